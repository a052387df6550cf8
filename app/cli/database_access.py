"""What the commands about keys, usage and the database share."""

import getpass
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from app.cli.output import is_output_unicode, printable, width
from app.keys.administration import KeyFault
from app.people.administration import PersonFault
from app.settings import Settings, SettingsError, load_settings
from app.storage.audit import Actor
from app.storage.database import Database, DatabaseAway
from app.storage.schema import SchemaError, migrate

# A person at a terminal waits longer than a request may.
_TIMEOUT = 15.0


class CommandFault(Exception):
    """What was asked for can't be done; says why, in words for whoever asked."""


def command_settings() -> Settings:
    """The settings, also where no `API_MASTER_KEY` is set: only who serves needs one, and the demo makes its own.

    Raises:
        SettingsError: They are wrong.
    """
    return load_settings(auth_disabled=True)


@contextmanager
def open_database(*, prepare: bool = True, may_make: bool = False) -> Iterator[Database]:
    """Open the database that the settings name, with its tables up to date.

    Args:
        prepare: Whether its tables are brought up to date first.
        may_make: Whether a file that isn't there is made, and told of: by what puts something into it. Anything else
            would only hide a path that is mistyped.

    Raises:
        SettingsError: There is none, or it can't be used.
        CommandFault: Its file isn't there.
    """
    settings = command_settings().database
    if not settings.enabled:
        raise SettingsError("DATABASE_URL: it is none, so there are no keys and no ledger")
    try:
        database = Database(settings.url.get_secret_value(), timeout=_TIMEOUT)
    except ValueError as error:
        raise SettingsError(f"DATABASE_URL: {error}") from None
    try:
        if database.is_missing:
            _tell_missing(database, may_make=may_make)
        if prepare:
            migrate(database)
        yield database
    finally:
        database.close()


def _tell_missing(database: Database, *, may_make: bool) -> None:
    file = database.url.database
    if not may_make:
        raise CommandFault(
            f"There is no database {file} (DATABASE_URL) yet. The gateway makes it at its first start, and so does: "
            "python main.py database migrate"
        )
    print(f"There was no database {file} (DATABASE_URL) yet; a new one is made.", file=sys.stderr)


def operator() -> Actor:
    """Who is at the terminal, for the audit log: the system's user."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container may run as somebody without a name
        name = f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"
    return Actor(name, "cli")


def told(command: Callable[[], int]) -> int:
    """Run a command, and say in one line what went wrong."""
    try:
        return command()
    except (CommandFault, KeyFault, PersonFault) as error:
        print(error, file=sys.stderr)
    except DatabaseAway as error:
        print(f"The database (DATABASE_URL) can't be used: {error}", file=sys.stderr)
    except SchemaError as error:
        print(f"The database (DATABASE_URL) can't be used: {error}.", file=sys.stderr)
    return 1


def print_json(value: object) -> None:
    """Print a value for machines."""
    print(json.dumps(value, ensure_ascii=not is_output_unicode(), indent=2))


def print_json_line(value: object) -> None:
    """Print a value for machines that read line by line, at once."""
    print(json.dumps(value, ensure_ascii=not is_output_unicode()), flush=True)


def print_table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows for people: numbers to the right."""
    lines = [[_shown(value) for value in row] for row in rows]
    widths = [max(width(line[place]) for line in [list(heads), *lines]) for place in range(len(heads))]
    is_number = [
        bool(lines)
        and all(line[place].replace(",", "").replace(".", "").isdigit() or not line[place] for line in lines)
        for place in range(len(heads))
    ]
    for line in [list(heads), *lines]:
        cells = (
            " " * (most - width(cell)) + cell if number else cell + " " * (most - width(cell))
            for cell, most, number in zip(line, widths, is_number, strict=True)
        )
        print("  ".join(cells).rstrip())


def time_text(milliseconds: int | None) -> str:
    """A time for people, in UTC; empty for none."""
    if milliseconds is None:
        return ""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else printable(str(value))
