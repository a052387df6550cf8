"""What `main.py` can do: one module each, with `run(options)`, imported by app/cli.py when it is asked for."""
