"""The use case: a conversation comes in, an answer goes out, and the turn is remembered."""
