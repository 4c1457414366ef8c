"""Which collection is live, and which Milvus id stands for which product."""
