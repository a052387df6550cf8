"""`main.py prices`: what models cost. None are shipped: prices change, and wrong ones are worse than none."""

import argparse
import csv
import sys
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path

from app.cli.database_access import CommandFault, open_database, operator, print_json, print_table, time_text, told
from app.cli.times import moment
from app.storage.prices import Price, change_prices, list_prices

# A file has dollars for a million tokens or characters, as vendors write them, and for one of all else; the database
# has nano-dollars for one.
_NANO = 1000
_NANO_FOR_ONE = 1_000_000_000
_NEEDED = ("model", "since", "input", "output")
# What a file may have besides, and the database's name for it.
_FURTHER = {
    "cached": "cached",
    "cache_write": "cache_write",
    "image": "image",
    "audio_second": "audio_second",
    "characters": "character",
    "search": "search",
}
_FOR_ONE = ("image", "audio_second", "search")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    importing = actions.add_parser(
        "import",
        help="read a CSV file: model,since,input,output,cached,cache_write,image,audio_second,characters,search "
        "(dollars for a million tokens or characters, or for one image, second or search; since is a date)",
    )
    importing.add_argument("file", type=Path)
    listing = actions.add_parser("list", help="show all prices")
    listing.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Do it, and return the exit status."""
    return told(lambda: _imported(options.file) if options.action == "import" else _listed(as_json=options.json))


def _imported(file: Path) -> int:
    rows = list(_rows(file))
    with open_database(may_make=True) as database, database.transaction() as connection:
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
        ("MODEL", "SINCE", "INPUT", "OUTPUT", *(name.replace("_", " ").upper() for name in _FURTHER)),
        (
            (
                row["model"],
                time_text(row["since"]),
                *(_dollars(row[name], name) for name in ("input", "output", *_FURTHER.values())),
            )
            for row in prices
        ),
    )
    return 0


def _dollars(nano: int | None, column: str) -> str:
    return "" if nano is None else f"{nano / (_NANO_FOR_ONE if column in _FOR_ONE else _NANO):g}"


def _rows(file: Path) -> Iterator[Price]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFault(f"{file} can't be read: {error}.") from None
    reader = csv.DictReader(lines)
    if not {*_NEEDED} <= set(reader.fieldnames or ()):
        raise CommandFault(f"{file}: the first line must name the columns {','.join(_NEEDED)}.")
    for name in reader.fieldnames or ():
        if name not in _NEEDED and name not in _FURTHER:
            print(
                f"{file}: the column {name!r} is ignored; there are {','.join((*_NEEDED, *_FURTHER))}.", file=sys.stderr
            )
    for place, row in enumerate(reader, start=2):
        try:
            fresh = _nano(row["input"])
            further = {
                column: _nano(row[name], _NANO_FOR_ONE if column in _FOR_ONE else _NANO)
                for name, column in _FURTHER.items()
                if row.get(name)
            }
            yield Price(
                model=row["model"].strip(),
                since=moment(row["since"]),
                input=fresh,
                output=_nano(row["output"]),
                **{"cached": fresh, **further},
            )
        except (ValueError, InvalidOperation, AttributeError, TypeError):
            raise CommandFault(f"{file}, line {place}: a price is model,date,dollars,dollars,dollars.") from None


def _nano(dollars: str, factor: int = _NANO) -> int:
    amount = Decimal(dollars)
    if not amount.is_finite() or amount < 0:
        raise ValueError(dollars)
    return round(amount * factor)
