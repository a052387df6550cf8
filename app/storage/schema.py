"""The version of the database's schema: looked up at the start, and brought up to date by whoever comes first."""

import importlib
from pathlib import Path

from sqlalchemy import Connection, inspect, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql import column, table

from app.storage.database import Database

# The newest step in migrations/versions.
HEAD = "0009"
_MIGRATIONS = Path(__file__).parent / "migrations"
# What all steps together make of an empty SQLite file: tests/storage/new_sqlite.py writes it.
NEW_SQLITE = _MIGRATIONS / "new_sqlite.sql"
_VERSION = table("alembic_version", column("version_num"))


class SchemaError(Exception):
    """The database can't be used as it is; says in one sentence why and what to do."""


def migrate(database: Database) -> bool:
    """Bring the schema up to date, in one transaction and under a lock. Tell whether there was anything to do.

    Raises:
        SchemaError: It is newer than this gateway, or a step failed; nothing has changed then.
        DatabaseAway: The database can't be reached.
    """
    # Alembic takes 10 MB and 0.2 s, and is seldom needed: a look at the version comes first.
    with database.transaction(reads=True) as connection:
        version = _version(connection)
    if version != HEAD:
        _refuse_unknown(version)
        _upgrade_under_lock(database)
    database.prepared = True
    return version != HEAD


def _upgrade_under_lock(database: Database) -> None:
    # A step may take longer than anything else does, and whoever starts at the same time waits for it.
    with database.transaction(patient=True) as connection:
        database.hold_back_writers(connection)
        version = _version(connection)
        if version == HEAD:
            return  # another worker was first
        _refuse_unknown(version)
        try:
            if database.is_sqlite and not version:
                _make_sqlite(connection)
            else:
                _upgrade(connection)
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", error)).strip().splitlines()[:1]
            raise SchemaError(
                f"the database could not be brought from version {version or 'none'} to {HEAD}; nothing was changed: "
                f"{''.join(reason)}"
            ) from error


def version_of(connection: Connection) -> str:
    """The schema's version; empty for a database without tables of ours.

    Raises:
        SchemaError: It is newer than this gateway.
    """
    version = _version(connection)
    if version != HEAD:
        _refuse_unknown(version)
    return version


def _version(connection: Connection) -> str:
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return str(connection.execute(select(_VERSION.c.version_num)).scalar() or "")


def _refuse_unknown(version: str) -> None:
    if version and not any(_MIGRATIONS.glob(f"versions/v{version}_*.py")):
        raise SchemaError(
            f"the database has version {version[:20]!r} of the schema, which this gateway (version {HEAD}) doesn't "
            "know: a newer gateway made it. Update this one, or give it another DATABASE_URL"
        )


def _make_sqlite(connection: Connection) -> None:
    """What the steps would do to an empty file, without Alembic: most gateways start with one, and never need it."""
    for statement in NEW_SQLITE.read_text("utf-8").split(";\n"):
        if statement:
            connection.exec_driver_sql(statement)


def _upgrade(connection: Connection) -> None:
    # Imported only now: see `migrate`.
    command, config = importlib.import_module("alembic.command"), importlib.import_module("alembic.config")
    steps = config.Config()
    steps.set_main_option("script_location", str(_MIGRATIONS))
    steps.set_main_option("path_separator", "os")
    steps.attributes["connection"] = connection
    command.upgrade(steps, "head")
