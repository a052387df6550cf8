"""What operators can see of the gateway: logs, metrics and traces."""
