"""What the commands about limits share: limits in arguments, and what has them: `key:NAME`, `gateway` and the like."""

import argparse
import sys
from collections.abc import Iterable

from msgspec import Struct

from app.assembly.limits import book_of
from app.assembly.providers import build_registry
from app.cli.database_access import CommandFault
from app.domain.caller import ENVIRONMENT, caller_of_key
from app.domain.granting import Scope
from app.domain.limits import Limit, read_limits, texts_of
from app.keys.administration import only_key
from app.limits.stored import StoredBook
from app.settings import Settings
from app.storage.database import Connection, Database
from app.storage.keys import StoredKey, list_keys, list_projects
from app.storage.limits import set_limits, stored_limits
from app.storage.prices import list_prices
from app.storage.upstreams import list_upstreams

HELP = "key:NAME (or its id), project:NAME, upstream:NAME or gateway"
# How the ids of API_MASTER_KEY's keys begin.
_ENVIRONMENT_KEY = "key-"
_KINDS = ("key", "project", "upstream")


class NamedScope(Struct, frozen=True):
    """A scope, and what people call it."""

    scope: Scope
    name: str


def limits_or_default(text: str) -> tuple[Limit, ...] | None:
    """The limits in an argument; None for `default`, those of the settings.

    Raises:
        argparse.ArgumentTypeError: It says something else.
    """
    return None if text.strip().lower() == "default" else limits_in(text)


def limits_in(text: str) -> tuple[Limit, ...]:
    """The limits in an argument.

    Raises:
        argparse.ArgumentTypeError: It says something else.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("nothing was given; `none` is for no limits")
    try:
        return read_limits(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def stored_book(connection: Connection, settings: Settings) -> StoredBook:
    """The limits that hold, as the database and the settings say."""
    return StoredBook.read(connection, book_of(settings.limits))


def give_limits(database: Database, connection: Connection, scope: Scope, limits: tuple[Limit, ...] | None) -> None:
    """Set a scope's limits, as `limits_or_default` reads them."""
    set_limits(database, connection, scope, None if limits is None else texts_of(limits))
    warn_of_dollars(connection, limits or ())


def read_scope(connection: Connection, settings: Settings, words: str, project: str | None) -> NamedScope:
    """The scope that somebody means.

    Args:
        project: The project of a key's name.

    Raises:
        CommandFault: There is none.
        KeyFault: There is no such key, or more than one.
    """
    kind, _, name = words.partition(":")
    if project is not None and kind != "key":
        raise CommandFault("--project is for the name of a key; a project's own limits are those of project:NAME.")
    if words in ("gateway", "gateway:"):
        return NamedScope(Scope("gateway"), "gateway")
    if words.startswith(_ENVIRONMENT_KEY):
        kind, name = "key", words
    if kind not in _KINDS:
        raise CommandFault(f"{words[:60]!r} is nothing that can have limits; write {HELP}.")
    if not name:
        raise CommandFault(f"{words!r} lacks a name; write {HELP}.")
    match kind:
        case "key" if name.startswith(_ENVIRONMENT_KEY) and project in (None, ENVIRONMENT):
            return _environment_key(connection, settings, name)
        case "key":
            return named_key(only_key(connection, name, project))
        case "project":
            return _one_of("project", name, (ENVIRONMENT, *list_projects(connection)))
    stored = [upstream.name for upstream in list_upstreams(connection)]
    return _one_of("upstream", name, [*(one.name for one in build_registry(settings).providers), *stored])


def read_owner(
    connection: Connection, settings: Settings, key: str | None, project: str | None
) -> tuple[str | None, str | None]:
    """The key's id or the project whose calls are meant; None and None for everybody's.

    Args:
        key: Its id or name.
        project: Of the key's name; without a key, all keys of it are meant.

    Raises:
        CommandFault: There is none.
        KeyFault: There is no such key, or more than one.
    """
    if key is not None:
        return read_scope(connection, settings, f"key:{key}", project).scope.name, None
    if project is not None:
        return None, read_scope(connection, settings, f"project:{project}", None).scope.name
    return None, None


def named_key(key: StoredKey) -> NamedScope:
    """A key's scope."""
    state = " (revoked)" if key.revoked_at is not None else ""
    return NamedScope(Scope("key", key.id), f"key:{key.name} of project:{key.project}{state}")


def names_of(connection: Connection, scopes: Iterable[Scope]) -> list[NamedScope]:
    """What people call scopes."""
    keys = {key.id: named_key(key) for key in list_keys(connection, revoked=True)}
    found = []
    for scope in scopes:
        known = keys.get(scope.name) if scope.kind == "key" else None
        found.append(known or NamedScope(scope, scope.text))
    return found


def warn_of_dollars(connection: Connection, limits: Iterable[Limit]) -> None:
    """Say that dollars count nothing, where no price is known."""
    if any(limit.measure == "dollars" for limit in limits) and not list_prices(connection):
        print(
            "No prices are known, so calls cost nothing and limits in dollars never apply. "
            "Import some with: main.py prices import FILE.csv",
            file=sys.stderr,
        )


def _environment_key(connection: Connection, settings: Settings, name: str) -> NamedScope:
    ids = [caller_of_key(key).id for key in settings.access.api_keys]
    # One whose limits were set, and that was taken out of the settings since, can be looked after, too.
    if name not in ids and Scope("key", name) not in stored_limits(connection):
        known = f"its keys are {', '.join(ids)}" if ids else "it has none"
        raise CommandFault(f"There is no key {name!r} in API_MASTER_KEY; {known}.")
    return NamedScope(Scope("key", name), f"key:{name}")


def _one_of(kind: str, name: str, known: Iterable[str]) -> NamedScope:
    names = list(dict.fromkeys(known))
    if name not in names:
        raise CommandFault(f"There is no {kind} {name[:60]!r}; there are: {', '.join(names)}.")
    scope = Scope(kind, name)  # type: ignore[arg-type]  # one of `_KINDS`
    return NamedScope(scope, f"{kind}:{name}")
