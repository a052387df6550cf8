"""What `main.py` can do. Each command is a module with `run(options)`, imported when it is asked for."""
