"""Vectors and bindings: made for what changed (ingest), mended where they drifted (drift)."""
