"""What the gateway means, in plain Python: no web, no network, no settings."""
