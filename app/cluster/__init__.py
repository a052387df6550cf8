"""Several workers behind a local nginx, without Docker: `python main.py cluster`."""
