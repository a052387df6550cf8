"""`main.py requests`: the latest calls, or all that come from now on."""

import argparse
import re
import time
from collections.abc import Callable, Container
from typing import Any

from app.cli.database_access import command_settings, open_database, print_json, print_json_line, told
from app.cli.limit_scopes import read_owner
from app.cli.output import printable
from app.storage.database import Connection, Database
from app.storage.new_rows import NewRows, fits
from app.storage.request_pages import RowFilter, page_of_rows
from app.storage.rows import time_of

_PAUSE_SECONDS = 1.0
_PAGE = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--tail", action="store_true", help="go on with those that come; Ctrl+C ends it")
    parser.add_argument("--limit", type=_count, default=20, help="how many (default: 20)")
    parser.add_argument("--trouble", action="store_true", help="only those that didn't complete")
    parser.add_argument("--key", help="only this key's: its id or name")
    parser.add_argument("--project", help="only this project's; with --key, the project of its name")
    parser.add_argument("--json", action="store_true", help="print JSON; with --tail, an object a line")


def run(options: argparse.Namespace) -> int:
    """Print them, and return the exit status."""
    return told(lambda: _shown(options))


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,6}", text):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number from 0 to 999999")
    return int(text)


def _shown(options: argparse.Namespace) -> int:
    show = print_json_line if options.json else _print_line
    with open_database() as database:
        new = NewRows()
        with database.transaction(reads=True) as connection:
            key_id, project = read_owner(connection, command_settings(), options.key, options.project)
            wanted = RowFilter(key_id=key_id, project=project, trouble=options.trouble)
            if options.tail:
                new.take(new.look(connection))  # what is there already
            rows = _newest(connection, wanted, options.limit)
        rows.reverse()
        if options.json and not options.tail:
            print_json(rows)
            return 0
        for row in rows:
            show(row)
        if options.tail:
            _follow(database, new, {row["id"] for row in rows}, wanted, show)
        elif not rows:
            print("There are no such requests.")
    return 0


def _newest(connection: Connection, wanted: RowFilter, limit: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    before: int | None = None
    while len(rows) < limit:
        page = page_of_rows(connection, wanted, before=before, limit=min(limit - len(rows), _PAGE))
        rows += page.rows
        before = page.before
        if before is None:
            break
    return rows


def _follow(
    database: Database, new: NewRows, shown: Container[int], wanted: RowFilter, show: Callable[[dict[str, Any]], None]
) -> None:
    while True:
        time.sleep(_PAUSE_SECONDS)
        with database.transaction(reads=True) as connection:
            rows = new.look(connection)
        for row in new.take(rows):
            if fits(row, wanted) and row["id"] not in shown:
                show(row)


def _print_line(row: dict[str, Any]) -> None:
    begun = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time_of(row["id"]) / 1000))
    about = "≈" if row["estimated"] else ""
    tokens = f"{about}{row['tokens_in']}+{row['tokens_out']}"
    besides = f"{row['amount']} {row['unit'].replace('_', ' ')}  " if row["unit"] else ""
    what = row["outcome"] if row["error"] is None else f"{row['outcome']} ({row['error']})"
    line = (
        f"{begun}  {row['status']}  {row['key_id']:<16}  {row['model']:<21}  {row['provider']:<12}  "
        f"{tokens:>13} tokens  {besides}{row['milliseconds'] / 1000:7.2f} s  {what}"
    )
    print(printable(line), flush=True)
