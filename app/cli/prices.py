"""`main.py prices`: what models cost. None are shipped: prices change, and wrong ones are worse than none."""

import argparse
import csv
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path

from app.cli.database_access import CommandFault, open_database, operator, print_json, print_table, time_text, told
from app.cli.times import moment
from app.storage.prices import change_prices, list_prices

# A file has dollars for a million tokens, as vendors write them; the database nano-dollars for one.
_NANO = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    importing = actions.add_parser(
        "import",
        help="read a CSV file: model,since,input,output,cached (dollars for a million tokens; since is a date)",
    )
    importing.add_argument("file", type=Path)
    listing = actions.add_parser("list", help="show all prices")
    listing.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Do it, and return the exit status."""
    return told(lambda: _imported(options.file) if options.action == "import" else _listed(as_json=options.json))


def _imported(file: Path) -> int:
    rows = list(_rows(file))
    with open_database() as database, database.transaction() as connection:
        change_prices(database, connection, operator(), rows)
    print(f"Prices read: {len(rows)}. Each counts for calls from now on that begin on its date or later.")
    return 0


def _listed(*, as_json: bool) -> int:
    with open_database() as database, database.transaction(reads=True) as connection:
        prices = list_prices(connection)
    if as_json:
        print_json(prices)
        return 0
    print_table(
        ("MODEL", "SINCE", "INPUT", "OUTPUT", "CACHED"),
        (
            (
                row["model"],
                time_text(row["since"]),
                *(f"{row[name] / _NANO:g}" for name in ("input", "output", "cached")),
            )
            for row in prices
        ),
    )
    return 0


def _rows(file: Path) -> Iterator[tuple[str, int, int, int, int]]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFault(f"{file} can't be read: {error}.") from None
    reader = csv.DictReader(lines)
    missing = {"model", "since", "input", "output"} - set(reader.fieldnames or ())
    if missing:
        raise CommandFault(f"{file}: the first line must name the columns model,since,input,output,cached.")
    for place, row in enumerate(reader, start=2):
        try:
            fresh = _nano(row["input"])
            yield (
                row["model"].strip(),
                moment(row["since"]),
                fresh,
                _nano(row["output"]),
                _nano(row["cached"]) if row.get("cached") else fresh,
            )
        except (ValueError, InvalidOperation, AttributeError):
            raise CommandFault(f"{file}, line {place}: a price is model,date,dollars,dollars,dollars.") from None


def _nano(dollars_for_a_million: str) -> int:
    amount = Decimal(dollars_for_a_million)
    if not amount.is_finite() or amount < 0:
        raise ValueError(dollars_for_a_million)
    return round(amount * _NANO)
