"""Where the gateway is put together from its settings: providers, stores, middleware, routes."""
