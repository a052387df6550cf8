"""People who look after the gateway in a browser: how they sign in, and for how long."""
