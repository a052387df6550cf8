"""`main.py keys`: gives API keys out, and takes them back."""

import argparse
import sys
from datetime import UTC
from typing import Any

import msgspec
from msgspec.structs import replace

from app.cli.database_access import command_settings, open_database, operator, print_json, print_table, time_text, told
from app.cli.limit_scopes import give_limits, limits_or_default, stored_book
from app.cli.output import printable
from app.cli.times import expiry_or_span
from app.domain.durations import span
from app.domain.granting import Scope
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
from app.keys.history import key_facts, note_changed, note_created, note_rotated
from app.storage.clock import now
from app.storage.database import Connection, Database
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
    parser.add_argument(
        "--expires",
        type=_expiry,
        help="a date (2027-01-31: the end of that day in TIME_ZONE), a span from now (30d) or `never` (the default)",
    )
    parser.add_argument("--note", help="for yourself")
    parser.add_argument(
        "--limits",
        type=limits_or_default,
        default=argparse.SUPPRESS,  # None says `default`
        help="such as '60 requests/minute, 5 at once'; `none`, or `default` for DEFAULT_LIMITS (the default)",
    )


def _done(options: argparse.Namespace) -> int:
    with open_database(may_make=options.action == "create") as database:
        if options.action == "list":
            with database.transaction(reads=True) as connection:
                keys = list_keys(connection, revoked=options.all)
                shown = _plain(connection, keys)
            _print_list(keys, shown, as_json=options.json)
        elif options.action in ("create", "rotate"):
            with database.transaction() as connection:
                database.hold_back_writers(connection)
                new = _with_new_secret(database, connection, options)
                (shown_key,) = _plain(connection, [new.key])
            _print_secret(new, shown_key, as_json=options.json)
        else:
            reads = options.action == "show"
            with database.transaction(reads=reads) as connection:
                if not reads:
                    # All of a key's fields are written: none that somebody else changes must have been read before.
                    database.hold_back_writers(connection)
                (shown_key,) = _plain(connection, [_acted(database, connection, options)])
            _print_key(shown_key, as_json=options.json)
    return 0


def _with_new_secret(database: Database, connection: Connection, options: argparse.Namespace) -> NewSecret:
    if options.action == "rotate":
        key = only_key(connection, options.key, options.project)
        new = rotate_key(database, connection, key, grace_seconds=options.grace)
        note_rotated(connection, operator(), new, grace_seconds=options.grace)
        return new
    new = create_key(connection, name=options.name, project=options.project, **_fields(options))
    _set_limits(database, connection, new.key, options)
    note_created(connection, operator(), new.key)
    return new


def _acted(database: Database, connection: Connection, options: argparse.Namespace) -> StoredKey:
    key = only_key(connection, options.key, options.project)
    if options.action == "show":
        return key
    before = key_facts(connection, key)
    changed = _changed(database, connection, key, options)
    note_changed(connection, operator(), f"key.{options.action}", before, changed)
    return changed


def _changed(database: Database, connection: Connection, key: StoredKey, options: argparse.Namespace) -> StoredKey:
    match options.action:
        case "pause":
            return pause_key(database, connection, key)
        case "resume":
            return resume_key(database, connection, key)
        case "revoke":
            return revoke_key(database, connection, key)
    changes = _fields(options) | ({} if options.name is None else {"name": options.name})
    if not changes and "limits" not in options:
        raise KeyFault("Nothing to change was given; see --help.")
    _set_limits(database, connection, key, options)
    return update_key(database, connection, replace(key, **changes)) if changes else key


def _set_limits(database: Database, connection: Connection, key: StoredKey, options: argparse.Namespace) -> None:
    if "limits" in options:
        give_limits(database, connection, Scope("key", key.id), options.limits)


def _fields(options: argparse.Namespace) -> dict[str, Any]:
    """The fields that were given. `--models '*'` means all."""
    fields: dict[str, Any] = {}
    if options.models is not None:
        fields["models"] = None if options.models == ("*",) else options.models
    if options.expires is not None:
        fields["expires_at"] = expiry_or_span(options.expires, command_settings().limits.zone)
    others = {"scopes": options.scopes, "note": options.note}
    return fields | {name: value for name, value in others.items() if value is not None}


def _print_secret(new: NewSecret, shown: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(shown | {"secret": new.secret})
        return
    print(new.secret)
    # Beside the secret, so that it can be piped on alone.
    print(f"{printable(new.key.name)} ({new.key.id}): keep this key; it is not shown again.", file=sys.stderr)


def _print_key(shown: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(shown)
        return
    secrets = shown.pop("secrets")
    for name, value in shown.items():
        text = time_text(value) if name.endswith("_at") else ", ".join(value) if isinstance(value, tuple) else value
        if text:
            print(f"{name.replace('_', ' '):<11} {printable(text)}")
    for secret in secrets:
        used = f"last used {time_text(secret['last_used_at'])}" if secret["last_used_at"] else "no use noted"
        ends = secret["valid_until"] and shown["state"] != "revoked"
        until = f", works until {time_text(secret['valid_until'])}" if ends else ""
        print(f"{'secret':<11} {secret['hint']}, {used}{until}")


def _print_list(keys: list[StoredKey], shown: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(shown)
        return
    if not keys:
        print("There are no keys; make one with: python main.py keys create NAME (--all shows revoked ones)")
        return
    print_table(
        ("ID", "NAME", "PROJECT", "STATE", "KEY", "MODELS", "SCOPES", "EXPIRES", "LIMITS"),
        (
            (
                key.id,
                key.name,
                key.project,
                fields["state"],
                ", ".join(secret.hint for secret in key.secrets),
                "all" if key.models is None else ", ".join(key.models),
                ", ".join(key.scopes),
                time_text(key.expires_at),
                fields["limits"],
            )
            for key, fields in zip(keys, shown, strict=True)
        ),
    )


def _plain(connection: Connection, keys: list[StoredKey]) -> list[dict[str, Any]]:
    """The keys with their states and limits."""
    stored = stored_book(connection, command_settings())
    return [
        msgspec.to_builtins(key) | {"state": key.state(now()), "limits": stored.text(Scope("key", key.id))}
        for key in keys
    ]


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _span(text: str) -> float:
    try:
        return span(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _expiry(text: str) -> str:
    """A text that can be read; whose day it means, only the settings know."""
    try:
        expiry_or_span(text, UTC)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text
