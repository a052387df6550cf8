"""The gateway's front door: `python main.py` to run it, `uvicorn main:app` for those who prefer that."""

import sys

from fastapi import FastAPI

from app.build import build_app
from app.cli import main
from app.settings import SettingsError, load_settings


def __getattr__(name: str) -> FastAPI:
    """`app` is made when uvicorn asks for it, so that the other commands need no settings for a server."""
    if name != "app":
        raise AttributeError(name)
    try:
        return build_app(load_settings())
    except SettingsError as error:
        sys.exit(f"The settings are wrong.\n{error}")


if __name__ == "__main__":
    sys.exit(main())
