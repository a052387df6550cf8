"""`main.py database`: looks after the database of keys and calls."""

import argparse
import contextlib
import sys
from pathlib import Path

from app.cli.database_access import CommandFault, open_database, told
from app.settings import SettingsError
from app.storage.database import Database, DatabaseAway
from app.storage.moving import MoveFault, copy_all
from app.storage.schema import HEAD, SchemaError, migrate, version_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("migrate", help="bring its tables up to date (each start does so, too)")
    actions.add_parser("check", help="say where it is and whether it can be used")
    backup = actions.add_parser("backup", help="copy it into a new SQLite file, also while the gateway runs")
    backup.add_argument("path", type=Path)
    move = actions.add_parser("move", help="copy it into another, empty database; stop the gateway first")
    move.add_argument("url", help="such as postgresql://user:password@host:5432/name")


def run(options: argparse.Namespace) -> int:
    """Do it, and return the exit status."""
    return told(lambda: _done(options))


def _done(options: argparse.Namespace) -> int:
    with open_database(prepare=False) as database:
        match options.action:
            case "migrate":
                print(f"Brought up to version {HEAD}." if migrate(database) else f"Version {HEAD}: nothing to do.")
            case "check":
                return _checked(database)
            case "backup":
                return _backed_up(database, options.path)
            case "move":
                return _moved(database, options.url)
    return 0


def _checked(database: Database) -> int:
    with database.transaction(reads=True) as connection:
        version = version_of(connection)
        if version and database.is_sqlite:
            broken = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
            if broken != "ok":
                print(f"{database.shown_url} is damaged: {broken}", file=sys.stderr)
                return 1
    print(f"{database.shown_url} can be used; version {version or 'none yet'} of {HEAD}.")
    return 0


def _backed_up(database: Database, path: Path) -> int:
    if path.exists():
        print(f"{path} exists; name a new file.", file=sys.stderr)
        return 1
    with contextlib.closing(Database(f"sqlite:///{path}")) as copy:
        return _copied(database, copy, f"Backed up to {path}")


def _moved(database: Database, url: str) -> int:
    try:
        target = Database(url)
    except ValueError as error:
        raise SettingsError(f"the target's address: {error}") from None
    with contextlib.closing(target):
        return _copied(database, target, f"Moved to {target.shown_url}; set DATABASE_URL to it and start the gateway")


def _copied(source: Database, target: Database, done: str) -> int:
    try:
        migrate(target)
    except (DatabaseAway, SchemaError) as error:
        raise CommandFault(f"{target.shown_url} can't be used: {error}") from None
    try:
        counts = copy_all(source, target)
    except MoveFault as error:
        print(f"Nothing was copied: {error}.", file=sys.stderr)
        return 1
    rows = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    print(f"{done}. Rows, the same on both sides: {rows}.")
    return 0
