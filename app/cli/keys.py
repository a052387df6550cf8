"""`main.py keys`: gives API keys out, and takes them back."""

import argparse
import sys
from typing import Any

import msgspec
from msgspec.structs import replace

from app.cli.database_access import open_database, print_json, print_table, time_text, told
from app.cli.times import moment, span
from app.keys.administration import (
    KeyFault,
    NewSecret,
    create_key,
    only_key,
    pause_key,
    resume_key,
    revoke_key,
    rotate_key,
    update_key,
)
from app.storage.clock import now
from app.storage.database import Database
from app.storage.keys import StoredKey, list_keys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = actions.add_parser("create", help="make a key; its secret is shown once")
    create.add_argument("name", help="what you call it, such as ada-laptop")
    create.add_argument("--project", default="default", help="made if there is none of that name (default: default)")
    _add_fields(create)
    change = actions.add_parser("update", help="change a key")
    change.add_argument("--name", help="another name")
    _add_fields(change)
    listing = actions.add_parser("list", help="show all keys")
    listing.add_argument("--all", action="store_true", help="revoked ones, too")
    rotate = actions.add_parser("rotate", help="give a key a new secret, shown once; its history stays")
    rotate.add_argument("--grace", type=_span, default=0.0, help="how long the old secret still opens, such as 24h")
    others = {
        "show": "show one key",
        "pause": "let a key no longer open, until it is resumed",
        "resume": "let a paused key open again",
        "revoke": "let a key never open again; its history stays",
    }
    for action, purpose in others.items():
        actions.add_parser(action, help=purpose)
    for action, subparser in actions.choices.items():
        subparser.add_argument("--json", action="store_true", help="print JSON")
        if action not in ("create", "list"):
            subparser.add_argument("key", help="its id or name")
            subparser.add_argument("--project", help="the project of the name")


def run(options: argparse.Namespace) -> int:
    """Do it, and return the exit status."""
    return told(lambda: _done(options))


def _add_fields(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", type=_list, help="what it may use, such as 'kimi*,gpt-4o' (default: all)")
    parser.add_argument("--scopes", type=_list, help="chat, metrics, admin:read, admin (default: chat)")
    parser.add_argument("--expires", type=_moment, help="a date (2027-01-31) or a span from now (30d)")
    parser.add_argument("--note", help="for yourself")


def _done(options: argparse.Namespace) -> int:
    with open_database() as database:
        if options.action == "list":
            with database.transaction(reads=True) as connection:
                keys = list_keys(connection, revoked=options.all)
            _print_list(keys, as_json=options.json)
        elif options.action == "create":
            with database.transaction() as connection:
                new = create_key(connection, name=options.name, project=options.project, **_fields(options))
            _print_secret(new, as_json=options.json)
        elif options.action == "rotate":
            with database.transaction() as connection:
                key = only_key(connection, options.key, options.project)
                new = rotate_key(database, connection, key, grace_seconds=options.grace)
            _print_secret(new, as_json=options.json)
        else:
            _print_key(_acted(database, options), as_json=options.json)
    return 0


def _acted(database: Database, options: argparse.Namespace) -> StoredKey:
    with database.transaction(reads=options.action == "show") as connection:
        key = only_key(connection, options.key, options.project)
        match options.action:
            case "show":
                return key
            case "pause":
                return pause_key(database, connection, key)
            case "resume":
                return resume_key(database, connection, key)
            case "revoke":
                return revoke_key(database, connection, key)
        changes = _fields(options) | ({"name": options.name} if options.name else {})
        if not changes:
            raise KeyFault("Nothing to change was given; see --help.")
        return update_key(database, connection, replace(key, **changes))


def _fields(options: argparse.Namespace) -> dict[str, Any]:
    """The fields that were given. `--models '*'` means all."""
    fields: dict[str, Any] = {}
    if options.models is not None:
        fields["models"] = None if options.models == ("*",) else options.models
    others = {"scopes": options.scopes, "expires_at": options.expires, "note": options.note}
    return fields | {name: value for name, value in others.items() if value is not None}


def _print_secret(new: NewSecret, *, as_json: bool) -> None:
    if as_json:
        print_json(_plain(new.key) | {"secret": new.secret})
        return
    print(new.secret)
    # Beside the secret, so that it can be piped on alone.
    print(f"{new.key.name} ({new.key.id}): keep this key; it is not shown again.", file=sys.stderr)


def _print_key(key: StoredKey, *, as_json: bool) -> None:
    if as_json:
        print_json(_plain(key))
        return
    for name, value in _plain(key).items():
        shown = time_text(value) if name.endswith("_at") else ", ".join(value) if isinstance(value, tuple) else value
        if shown:
            print(f"{name.replace('_', ' '):<11} {shown}")


def _print_list(keys: list[StoredKey], *, as_json: bool) -> None:
    if as_json:
        print_json([_plain(key) for key in keys])
        return
    if not keys:
        print("There are no keys yet; make one with: python main.py keys create NAME")
        return
    print_table(
        ("ID", "NAME", "PROJECT", "STATE", "KEY", "MODELS", "SCOPES", "EXPIRES"),
        (
            (
                key.id,
                key.name,
                key.project,
                key.state(now()),
                ", ".join(key.hints),
                "all" if key.models is None else ", ".join(key.models),
                ", ".join(key.scopes),
                time_text(key.expires_at),
            )
            for key in keys
        ),
    )


def _plain(key: StoredKey) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(key)
    return fields | {"state": key.state(now())}


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _span(text: str) -> float:
    try:
        return span(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _moment(text: str) -> int:
    try:
        return moment(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
