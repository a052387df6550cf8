"""`main.py requests`: the latest calls, or all that come from now on."""

import argparse
import time
from typing import Any

from app.cli.database_access import open_database, print_json, told
from app.keys.administration import only_key
from app.storage.database import Connection, Database
from app.storage.request_pages import RowFilter, page_of_rows, rows_after
from app.storage.rows import time_of

_PAUSE_SECONDS = 1.0
_PAGE = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--tail", action="store_true", help="go on with those that come; Ctrl+C ends it")
    parser.add_argument("--limit", type=int, default=20, help="how many (default: 20)")
    parser.add_argument("--trouble", action="store_true", help="only those that didn't complete")
    parser.add_argument("--key", help="only this key's: its id or name")
    parser.add_argument("--project", help="the project of the key's name")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Print them, and return the exit status."""
    return told(lambda: _shown(options))


def _shown(options: argparse.Namespace) -> int:
    with open_database() as database:
        with database.transaction(reads=True) as connection:
            key_id = only_key(connection, options.key, options.project).id if options.key else None
            wanted = RowFilter(key_id=key_id, trouble=options.trouble)
            rows = _newest(connection, wanted, max(options.limit, 0))
        rows.reverse()
        if options.json and not options.tail:
            print_json(rows)
            return 0
        for row in rows:
            print(_line(row), flush=True)
        if options.tail:
            _follow(database, rows[-1]["id"] if rows else 0, wanted)
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


def _follow(database: Database, last: int, wanted: RowFilter) -> None:
    while True:
        with database.transaction(reads=True) as connection:
            rows = rows_after(connection, last, wanted)
        for row in rows:
            print(_line(row), flush=True)
            last = row["id"]
        time.sleep(_PAUSE_SECONDS)


def _line(row: dict[str, Any]) -> str:
    begun = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time_of(row["id"]) / 1000))
    about = "≈" if row["estimated"] else ""
    tokens = f"{about}{row['tokens_in']}+{row['tokens_out']}"
    besides = f"{row['amount']} {row['unit'].replace('_', ' ')}  " if row["unit"] else ""
    what = row["outcome"] if row["error"] is None else f"{row['outcome']} ({row['error']})"
    return (
        f"{begun}  {row['status']}  {row['key_id']:<16}  {row['model']:<20}  {row['provider']:<12}  "
        f"{tokens:>13} tokens  {besides}{row['milliseconds'] / 1000:7.2f} s  {what}"
    )
