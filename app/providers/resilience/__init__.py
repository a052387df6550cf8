"""Calls to an upstream that may fail: limited concurrency, retries, a circuit breaker, deadlines."""
