"""Being a polite and patient guest of an upstream: bounded concurrency, retries, a circuit breaker, a deadline."""
