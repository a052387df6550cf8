"""The gateway's front door: `python main.py` to run it, `uvicorn main:app` for those who prefer that."""

import importlib
import sys
from functools import cache
from typing import TYPE_CHECKING

try:
    from app.cli.imports import light_imports

    with light_imports():
        from app.cli.commands import main
        from app.settings import SettingsError, load_settings
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] == "app":
        raise
    sys.exit(
        f"The Python package {missing.name} is not installed for {sys.executable}. In a checkout, ./dev COMMAND "
        "installs what is missing and runs the command, such as ./dev serve or ./dev keys list."
    )

if TYPE_CHECKING:
    from fastapi import FastAPI


def create_app() -> "FastAPI":
    """Make a gateway from the environment's settings, for `uvicorn --factory main:create_app`."""
    # Imported only now: most commands need none of it, and it takes longer than all that they do.
    with light_imports():
        assembly = importlib.import_module("app.assembly.app")
    try:
        app: FastAPI = assembly.create_app(load_settings())
    except SettingsError as error:
        sys.exit(f"The settings are wrong.\n{error}")
    return app


_only_app = cache(create_app)


def __getattr__(name: str) -> "FastAPI":
    """`app` is made when uvicorn asks for it, because the other commands need none. One process has one."""
    if name != "app":
        raise AttributeError(name)
    return _only_app()


if __name__ == "__main__":
    sys.exit(main())
