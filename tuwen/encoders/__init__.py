"""What turns pictures and texts into vectors, and the service that batches the calls."""
