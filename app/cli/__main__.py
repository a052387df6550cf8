"""`python -m app.cli`: the commands, where there is no `main.py`."""

import sys

from app.cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
