"""The gateway. Who may import whom is written in `pyproject.toml`."""

__version__ = "0.1.0"
