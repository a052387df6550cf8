"""What every request passes on its way in: one plain ASGI class for each concern."""
