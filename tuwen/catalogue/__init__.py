"""Products: the write path, the queries, how they look to a caller."""
