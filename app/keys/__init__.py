"""API keys: made, looked up, taken back. Only digests of them are kept."""
