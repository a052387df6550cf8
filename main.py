"""The gateway's front door: `python main.py` to run it, `uvicorn main:app` for those who prefer that."""

import sys
from functools import cache

from fastapi import FastAPI

from app.assembly.app import create_app as assemble
from app.cli.commands import main
from app.settings import SettingsError, load_settings


def create_app() -> FastAPI:
    """Make a gateway from the environment's settings, for `uvicorn --factory main:create_app`."""
    try:
        return assemble(load_settings())
    except SettingsError as error:
        sys.exit(f"The settings are wrong.\n{error}")


_only_app = cache(create_app)


def __getattr__(name: str) -> FastAPI:
    """`app` is made when uvicorn asks for it, because the other commands need none. One process has one."""
    if name != "app":
        raise AttributeError(name)
    return _only_app()


if __name__ == "__main__":
    sys.exit(main())
