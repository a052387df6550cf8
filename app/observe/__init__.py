"""What the gateway lets its operator see."""
