"""Where conversations are remembered."""
