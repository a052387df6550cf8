"""`main.py console-link`: a link that signs in to the console, once, within a quarter of an hour."""

import argparse

from app.cli.database_access import open_database, told
from app.people.sign_in import TICKET_MINUTES, make_link_ticket
from app.settings import load_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--base-url", help="the gateway's address as browsers see it (default: this machine's)")


def run(options: argparse.Namespace) -> int:
    """Print it, and return the exit status."""
    return told(lambda: _printed(options.base_url))


def _printed(base_url: str | None) -> int:
    address = (base_url or f"http://localhost:{load_settings().listening.port}").rstrip("/")
    with open_database() as database, database.transaction() as connection:
        ticket = make_link_ticket(connection)
    print(f"{address}/console/sign-in#{ticket}")
    print(f"It opens once, within {TICKET_MINUTES} minutes.")
    return 0
