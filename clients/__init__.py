"""Programs that use the service over its public API."""
