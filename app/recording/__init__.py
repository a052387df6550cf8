"""Recording of texts: off unless somebody starts it for a key, and never for longer than a day."""
