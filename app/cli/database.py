"""`main.py database`: looks after the database of keys and calls."""

import argparse
import contextlib
import sys
from pathlib import Path

from app.cli.database_access import CommandFault, open_database, told
from app.cli.database_use import check_unused
from app.storage.database import Database, DatabaseAway
from app.storage.moving import MoveFault, check_movable, copy_all
from app.storage.schema import HEAD, SchemaError, migrate, version_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("migrate", help="bring its tables up to date (each start does so, too)")
    actions.add_parser("check", help="say where it is and whether it can be used")
    backup = actions.add_parser("backup", help="copy it into a new SQLite file, also while the gateway runs")
    backup.add_argument("path", type=Path, metavar="FILE", help="a new file in a folder that is there")
    move = actions.add_parser("move", help="copy it into another, empty database; stop the gateway first")
    move.add_argument("url", help="such as postgresql://user:password@host:5432/name")
    move.add_argument(
        "--even-if-in-use", action="store_true", help="while a gateway uses it, too: what comes meanwhile is not copied"
    )


def run(options: argparse.Namespace) -> int:
    """Do it, and return the exit status."""
    return told(lambda: _done(options))


def _done(options: argparse.Namespace) -> int:
    with open_database(prepare=False, may_make=options.action == "migrate") as database:
        match options.action:
            case "migrate":
                print(f"Brought up to version {HEAD}." if migrate(database) else f"Version {HEAD}: nothing to do.")
            case "check":
                return _checked(database)
            case "backup":
                return _backed_up(database, options.path)
            case "move":
                return _moved(database, options.url, even_if_in_use=options.even_if_in_use)
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
        raise CommandFault(f"{path} exists; name a new file.")
    if not path.parent.is_dir():
        raise CommandFault(f"There is no folder {path.parent}; make it first, or name another one.")
    _check_movable(database)
    try:
        with contextlib.closing(Database.in_file(path)) as copy:
            _copy(database, copy, f"Backed up to {path}")
    except BaseException:
        # Nobody should take a part of it for a backup. SQLite's further files are gone when it is closed.
        path.unlink(missing_ok=True)
        raise
    return 0


def _moved(database: Database, url: str, *, even_if_in_use: bool) -> int:
    try:
        target = Database(url)
    except ValueError as error:
        raise CommandFault(f"The target's address can't be used: {error}.") from None
    with contextlib.closing(target):
        if target.url == database.url:
            raise CommandFault(f"{target.shown_url} is the database itself (DATABASE_URL); name another one.")
        _check_movable(database)
        if not even_if_in_use:
            check_unused(database)
        _copy(database, target, f"Moved to {target.shown_url}; set DATABASE_URL to it and start the gateway")
    return 0


def _check_movable(source: Database) -> None:
    """See that there is something to copy before anything is made of the target."""
    try:
        with source.transaction(reads=True) as connection:
            check_movable(connection)
    except MoveFault as error:
        raise CommandFault(f"Nothing was copied: {error}.") from None


def _copy(source: Database, target: Database, done: str) -> None:
    try:
        migrate(target)
    except (DatabaseAway, SchemaError) as error:
        raise CommandFault(f"{target.shown_url} can't be used: {error}.") from None
    try:
        counts = copy_all(source, target)
    except (MoveFault, DatabaseAway) as error:
        raise CommandFault(f"Nothing was copied: {error}.") from None
    rows = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    print(f"{done}. Rows, the same on both sides: {rows}.")
