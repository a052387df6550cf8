"""`main.py usage`: what was used, by whom and of what."""

import argparse
import csv
import sys
from typing import Any

from app.cli.database_access import (
    CommandFault,
    command_settings,
    open_database,
    print_json,
    print_table,
    time_text,
    told,
)
from app.cli.limit_scopes import read_owner
from app.domain.durations import span
from app.domain.spreadsheet import cell
from app.domain.units import UNITS
from app.storage.clock import now
from app.storage.keys import list_keys
from app.storage.usage import NoSuchSums, UsageFilter, usage_by

_HOUR, _DAY = 3_600_000, 86_400_000
_SHOWN = ("requests", "tokens_in", "tokens_out", "tokens_cached", "tokens_cache_written", *UNITS, "cost")
# Columns of a table for people that are left out if all of it is 0.
_RARE = ("tokens_cache_written", *UNITS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--by", choices=("key", "project", "model", "provider", "outcome", "day", "hour"), default="key"
    )
    parser.add_argument("--last", default="7d", help="a span such as 24h or 30d (default: 7d)")
    parser.add_argument("--key", help="only this key's: its id or name")
    parser.add_argument("--project", help="only this project's; with --key, the project of its name")
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--csv", action="store_true", help="print CSV")
    forms.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Print it, and return the exit status."""
    try:
        seconds = span(options.last)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if not seconds:
        print(f"--last {options.last}: nothing lies in no time; write for example 24h", file=sys.stderr)
        return 2
    return told(lambda: _shown(options, seconds))


def _shown(options: argparse.Namespace, seconds: float) -> int:
    # From the begin of the hour, or of the day, in which the span begins.
    grain = _HOUR if seconds < 2 * _DAY / 1000 else _DAY
    since = now() - round(seconds * 1000)
    until = now() - now() % grain + grain
    with open_database() as database, database.transaction(reads=True) as connection:
        key_id, project = read_owner(connection, command_settings(), options.key, options.project)
        wanted = UsageFilter(key_id=key_id, project=project)
        try:
            rows = usage_by(connection, options.by, since=since - since % grain, until=until, wanted=wanted)
        except NoSuchSums as error:
            raise CommandFault(f"{str(error).capitalize()}; take --by day, or a shorter --last.") from None
        names = {key.id: f"{key.project}/{key.name}" for key in list_keys(connection, revoked=True)}
    table = [_row(row, options.by, names) for row in rows]
    if options.json:
        print_json(table)
    elif options.csv:
        writer = csv.DictWriter(sys.stdout, (options.by, *_SHOWN))
        writer.writeheader()
        writer.writerows({name: cell(value) for name, value in row.items()} for row in table)
    elif not table:
        print(f"Nothing was used in the last {options.last}.")
    else:
        shown = [name for name in _SHOWN if name not in _RARE or any(row[name] for row in table)]
        print_table(
            (options.by.upper(), *(name.replace("_", " ").upper() for name in shown)),
            (tuple(row[name] for name in (options.by, *shown)) for row in table),
        )
    return 0


def _row(row: dict[str, Any], by: str, names: dict[str, str]) -> dict[str, Any]:
    value = row[by]
    label = time_text(value)[: 16 if by == "hour" else 10] if by in ("hour", "day") else names.get(value, value)
    return {by: label, **{name: row[name] for name in _SHOWN[:-1]}, "cost": f"{row['cost'] / 1e9:.4f}"}
