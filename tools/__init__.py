"""What `./dev` runs besides the gateway; nothing here is part of it."""
