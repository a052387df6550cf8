"""`main.py console-link`: a link that signs in to the console, once, within a quarter of an hour."""

import argparse
import re
import sys
from contextlib import closing

import structlog

from app.cli.database_access import command_settings, open_database, told
from app.people.sign_in import TICKET_MINUTES, make_link_ticket
from app.settings import Settings
from app.storage.database import Database, DatabaseAway
from app.storage.people import has_anybody_signed_in
from app.storage.schema import SchemaError, migrate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_base_url(parser)


def run(options: argparse.Namespace) -> int:
    """Print it, and return the exit status."""
    return told(lambda: _printed(options.base_url))


def _printed(base_url: str | None) -> int:
    with open_database(may_make=True) as database, database.transaction() as connection:
        ticket = make_link_ticket(connection)
    print_link(link_below(base_url, ticket), is_address_known=base_url is not None)
    return 0


def add_base_url(parser: argparse.ArgumentParser) -> None:
    """Declare the argument that says where the gateway is."""
    parser.add_argument(
        "--base-url", type=_base_url, help="the gateway's address as browsers see it (default: this machine's)"
    )


def _base_url(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s/]\S*", text):
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no address such as https://gateway.example")
    return text


def link_below(base_url: str | None, ticket: str) -> str:
    """The link of a ticket.

    Args:
        base_url: The gateway's address; None for this machine's.
    """
    return _link((base_url or f"http://localhost:{command_settings().listening.port}").rstrip("/"), ticket)


def print_link(link: str, *, is_address_known: bool) -> None:
    """Show a link, and say how long it opens.

    Args:
        is_address_known: Whether browsers reach the gateway where the link says, rather than through a proxy perhaps.
    """
    print(link)
    print(f"It opens once, within {TICKET_MINUTES} minutes.")
    if not is_address_known:
        print("If browsers reach the gateway at another address, nginx's for example, say it with --base-url.")


def new_link(settings: Settings, address: str, *, only_first: bool) -> str | None:
    """A link that signs in; None if the database can't be used now, which whoever serves with it says.

    Args:
        address: Scheme, host and port, as browsers see them.
        only_first: None, too, once somebody has signed in.
    """
    try:
        with closing(Database(settings.database.url.get_secret_value())) as database:
            migrate(database)
            with database.transaction() as connection:
                if only_first and has_anybody_signed_in(connection):
                    return None
                return _link(address, make_link_ticket(connection))
    except (DatabaseAway, SchemaError, ValueError):
        return None


def tell_first_link(settings: Settings, address: str, *, may_print: bool = True) -> None:
    """Show a link at a terminal, as long as nobody has signed in.

    Any other output is kept somewhere, and no secret belongs there: it is only told how to get a link.

    Args:
        may_print: Whether this process is the one that speaks to the terminal.
    """
    if sys.stdout.isatty() and settings.logs.format != "json":
        if may_print and (link := new_link(settings, address, only_first=True)):
            print(f"Console: {link}\n(The link signs in once, within {TICKET_MINUTES} minutes.)", flush=True)
    elif _is_unused(settings):
        structlog.get_logger("kimi.console").info(
            "console_unused", hint="main.py console-link prints a link to sign in"
        )


def _is_unused(settings: Settings) -> bool:
    """Whether nobody has signed in yet, as far as that can be seen now."""
    try:
        with (
            closing(Database(settings.database.url.get_secret_value())) as database,
            database.transaction(reads=True) as connection,
        ):
            return not has_anybody_signed_in(connection)
    except (DatabaseAway, ValueError):
        return False


def _link(address: str, ticket: str) -> str:
    return f"{address}/console/#{ticket}"
