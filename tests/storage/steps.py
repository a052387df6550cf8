"""Alembic's steps, for tests that need a database of an older version."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from app.storage import schema

FOLDER = str(Path(schema.__file__).parent / "migrations")


def upgrade(connection: Connection, version: str) -> None:
    """Bring a database to a version, or to `head`, in the connection's transaction."""
    steps = Config()
    steps.set_main_option("script_location", FOLDER)
    steps.set_main_option("path_separator", "os")
    steps.attributes["connection"] = connection
    command.upgrade(steps, version)
