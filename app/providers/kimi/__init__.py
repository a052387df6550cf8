"""The Kimi web chat: a WordPress site that takes one message at a time."""
