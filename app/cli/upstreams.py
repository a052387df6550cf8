"""`main.py upstreams`: upstreams that are added while the gateway runs. All workers follow within two seconds."""

import argparse
import asyncio
import getpass
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, get_args

from app.assembly.database import catalog_of
from app.assembly.providers import build_providers
from app.cli.database_access import (
    CommandFault,
    command_settings,
    open_database,
    operator,
    print_json,
    print_table,
    told,
)
from app.domain.chat import ApiKind
from app.domain.counting import counted
from app.domain.errors import GatewayError
from app.providers.entries import KeyedEntry, model_names
from app.providers.stored import Opened, UpstreamAdministration, UpstreamFault, read_entry
from app.providers.trying import try_upstream
from app.storage.database import Connection

_SWITCHES = ("discover", "any_model")
_TEXTS = ("preset", "kind", "base_url", "key_env")
_SHOWN_MODELS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="show all upstreams, those of the settings, too")
    listing.add_argument("--json", action="store_true", help="print JSON")
    for name, purpose in (
        ("add", "add an upstream, after all others"),
        ("change", "change an upstream; what is not named stays"),
        ("test", "try whether an upstream answers: one that is there or, with options, one that could be added"),
    ):
        action = actions.add_parser(name, help=purpose)
        action.add_argument("name", metavar="NAME")
        _add_fields(action)
        if name == "add":
            action.add_argument("--disabled", action="store_true", help="don't use it yet")
    for name, purpose in (
        ("enable", "use an upstream (again)"),
        ("disable", "don't use an upstream for now; routes pass over it"),
        ("remove", "remove an upstream; calls that have begun end undisturbed"),
    ):
        actions.add_parser(name, help=purpose).add_argument("name", metavar="NAME")
    order = actions.add_parser("order", help="put an upstream at another place: of equal names the first one is meant")
    order.add_argument("name", metavar="NAME")
    order.add_argument("position", metavar="PLACE", type=int, help="1 for the first of the database")
    actions.add_parser("encrypt", help="encrypt all keys with the first text of SECRET_KEY, so that the others can go")


def _add_fields(action: argparse.ArgumentParser) -> None:
    action.add_argument("--preset", help="a known upstream that it is like: deepseek, openai, ollama …")
    action.add_argument("--kind", choices=get_args(ApiKind), help="which API it speaks (openai, unless it is known)")
    action.add_argument("--base-url", help="its address, up to /v1")
    action.add_argument("--key", action="store_true", help="ask for its key, or read it from the standard input")
    action.add_argument("--no-key", action="store_true", help="take its key away")
    action.add_argument(
        "--key-env", help="the environment variable of each worker that holds its key; several are separated by commas"
    )
    action.add_argument("--models", help="its models: names, or public-name=its-name, separated by commas")
    for name, purpose in (("discover", "list the models that it lists"), ("any-model", "accept NAME/anything")):
        action.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, help=purpose)
    action.add_argument("--json", metavar="FIELDS", help="further fields of an entry of PROVIDERS_FILE, as JSON")


def run(options: argparse.Namespace) -> int:
    """Do it, and return the exit status."""
    return told(lambda: _run(options))


@contextmanager
def upstreams_of_settings(*, may_make: bool = False) -> Iterator[tuple[UpstreamAdministration, Connection]]:
    """What changes upstreams and routes, in a transaction of the database that the settings name.

    Args:
        may_make: See `open_database`.

    Raises:
        CommandFault: It is told why something can't be done.
    """
    settings = command_settings()
    providers = build_providers(settings)
    with open_database(may_make=may_make) as database, database.transaction() as connection:
        try:
            yield UpstreamAdministration(database, catalog_of(settings, providers)), connection
        except UpstreamFault as fault:
            raise CommandFault(str(fault)) from None


def _run(options: argparse.Namespace) -> int:
    if options.action == "test":
        return _test(options)
    fields = _fields(options) if options.action in ("add", "change") else {}
    if options.action == "change" and not fields:
        raise CommandFault("Nothing to change was given; see --help.")
    with upstreams_of_settings(may_make=options.action == "add") as (upstreams, connection):
        name, actor = getattr(options, "name", ""), operator()
        match options.action:
            case "list":
                return _list(upstreams, connection, as_json=options.json)
            case "add":
                upstreams.add(connection, actor, {**fields, "name": name}, enabled=not options.disabled)
                done = "Added."
            case "change":
                upstreams.change(connection, actor, name, fields)
                done = "Changed."
            case "enable" | "disable":
                upstreams.change(connection, actor, name, {"enabled": options.action == "enable"})
                done = f"{options.action.capitalize()}d."
            case "order":
                upstreams.change(connection, actor, name, {"position": options.position})
                done = "Moved."
            case "remove":
                upstreams.remove(connection, actor, name)
                done = "Removed."
            case _:
                count = upstreams.seal_anew(connection, actor)
                print(f"Encrypted anew: what is secret of {counted(count, 'upstream')}.")
                return 0
    print(f"{done} Workers that run follow within two seconds.")
    return 0


def _fields(options: argparse.Namespace) -> dict[str, Any]:
    """The fields that options say, null for those to be taken away."""
    try:
        fields = {} if options.json is None else json.loads(options.json)
    except ValueError as error:
        raise CommandFault(f"--json: this is not JSON ({error}).") from None
    if not isinstance(fields, dict):
        raise CommandFault("--json: write an object, such as '{\"timeout\": 30}'.")
    for name in (*_TEXTS, *_SWITCHES):
        if (value := getattr(options, name)) is not None:
            fields[name] = value
    if options.models is not None:
        try:
            fields["models"] = model_names(options.models)
        except ValueError as error:
            raise CommandFault(f"--models: {error}.") from None
    if options.key:
        fields["key"] = _asked_key()
    elif options.no_key:
        fields["key"] = None
    return fields


def _asked_key() -> str:
    key = getpass.getpass("Key: ") if sys.stdin.isatty() else sys.stdin.readline()
    if not key.strip():
        raise CommandFault("--key: no key was given.")
    return key.strip()


def _test(options: argparse.Namespace) -> int:
    fields = _fields(options)
    settings = command_settings()
    catalog = catalog_of(settings, build_providers(settings))
    if options.name in catalog.registry.own_names and not fields:
        raise CommandFault("This one stands in the settings; `main.py doctor` tries it.")
    try:
        # What is only tried needs no database.
        entry = read_entry({**fields, "name": options.name}) if fields else _stored_entry(options.name)
        models = [spec.id for spec in asyncio.run(try_upstream(catalog, entry))]
    except UpstreamFault as fault:
        raise CommandFault(str(fault)) from None
    except GatewayError as error:
        raise CommandFault(f"{error.code or error.type}: {error.message}") from None
    more = f" and {len(models) - _SHOWN_MODELS} more" if len(models) > _SHOWN_MODELS else ""
    print(f"It answers. Its models: {', '.join(models[:_SHOWN_MODELS]) or 'none is listed'}{more}.")
    return 0


def _stored_entry(name: str) -> KeyedEntry:
    with upstreams_of_settings() as (upstreams, connection):
        opened = upstreams.upstream(connection, name)
    if opened.entry is None:
        raise CommandFault(f"It can't be used: {opened.fault}.")
    return opened.entry


def _list(upstreams: UpstreamAdministration, connection: Connection, *, as_json: bool) -> int:
    registry = upstreams.catalog.registry
    rows: list[dict[str, Any]] = [
        {"name": provider.name, "from": "settings", "enabled": True, "entry": None, "secrets": [], "fault": None}
        for provider in registry.providers
    ]
    rows += [_plain(opened) for opened in upstreams.upstreams(connection)]
    if as_json:
        print_json(rows)
        return 0
    print_table(
        ("NAME", "FROM", "STATE", "ADDRESS", "SECRETS"),
        (
            (row["name"], row["from"], _state(row), _address(row["entry"] or {}), ", ".join(row["secrets"]))
            for row in rows
        ),
    )
    return 0


def _plain(opened: Opened) -> dict[str, Any]:
    stored = opened.stored
    return {
        "name": stored.name,
        "from": "database",
        "enabled": stored.enabled,
        "entry": stored.entry,
        "secrets": opened.secrets,
        "fault": opened.fault or None,
    }


def _state(row: Mapping[str, Any]) -> str:
    return row["fault"] or ("enabled" if row["enabled"] else "disabled")


def _address(entry: Mapping[str, Any]) -> str:
    return entry.get("base_url") or entry.get("preset") or ""
