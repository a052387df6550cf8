"""Sessions in Redis, shared by all workers."""
