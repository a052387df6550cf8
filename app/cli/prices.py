"""`main.py prices`: what models cost. None are shipped: prices change, and wrong ones are worse than none."""

import argparse
from pathlib import Path

from app.cli.database_access import open_database, operator, print_json, print_table, time_text, told
from app.cli.price_file import FURTHER, dollars_text, read_prices
from app.storage.prices import change_prices, list_prices


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
    rows = read_prices(file)
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
    if not prices:
        print("There are no prices yet; read some with: python main.py prices import FILE.csv")
        return 0
    print_table(
        ("MODEL", "SINCE", "INPUT", "OUTPUT", *(name.replace("_", " ").upper() for name in FURTHER)),
        (
            (
                row["model"],
                time_text(row["since"]),
                *(dollars_text(row[name], name) for name in ("input", "output", *FURTHER.values())),
            )
            for row in prices
        ),
    )
    return 0
