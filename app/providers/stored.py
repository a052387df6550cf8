"""Upstreams and routes that are kept in the database: what they may be, and how they are changed.

Each change is one transaction's work, works whether or not a server runs, and is told to all workers.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from pydantic import ValidationError

from app.providers.base import BaseProvider
from app.providers.entries import KeyedEntry, entry_fault, route_to
from app.providers.registry import ProviderRegistry
from app.storage.audit import Actor, note_action, note_update
from app.storage.clock import now
from app.storage.database import Connection, Database
from app.storage.sealing import Sealer, SealFault
from app.storage.upstreams import (
    StoredRoute,
    StoredUpstream,
    Targets,
    delete_route,
    delete_upstream,
    list_routes,
    list_upstreams,
    put_route,
    put_upstreams,
)

_MOST_TARGETS, _LONGEST_NAME = 100, 256
# Fields of a change that concern the row rather than the entry.
_OF_ROW = ("enabled", "position")


class UpstreamFault(Exception):
    """What was asked for can't be done; says why, in words for whoever asked.

    Args:
        param: The field at fault; empty for none.
    """

    def __init__(self, message: str, param: str = "") -> None:
        super().__init__(message)
        self.param = param


class NotStored(UpstreamFault):
    """There is nothing of that name in the database."""


class Opened(Struct, frozen=True):
    """An upstream of the database, decrypted.

    Args:
        entry: None if it can't be read here.
        fault: Why it can't.
    """

    stored: StoredUpstream
    entry: KeyedEntry | None
    fault: str = ""

    @property
    def secrets(self) -> list[str]:
        """The fields that have a secret: `key`, `headers.X-Token`."""
        return [] if self.entry is None else _secret_fields(_secrets_of(self.entry))


class Catalog(Struct, frozen=True):
    """The upstreams and routes that there are, and what others may be added.

    Args:
        registry: Has those of the settings.
        fixed_routes: The names of the routes that the settings set.
        make: Makes the provider of an entry. Raises ValueError if the entry lacks something.
        sealer: Encrypts what is secret.
    """

    registry: ProviderRegistry
    fixed_routes: frozenset[str]
    make: Callable[[KeyedEntry], BaseProvider]
    sealer: Sealer

    def opened(self, stored: StoredUpstream) -> Opened:
        """Decrypt an upstream. Takes a while the first time: not for an event loop."""
        if stored.name in self.registry.own_names:
            return Opened(stored, None, "the settings have an upstream of that name, which counts")
        try:
            secrets = {} if stored.secrets is None else msgspec.json.decode(self.sealer.open(stored.secrets))
            return Opened(stored, read_entry(_joined(stored.entry, secrets)))
        except (SealFault, UpstreamFault) as fault:
            return Opened(stored, None, str(fault))

    def provider(self, entry: KeyedEntry) -> BaseProvider:
        """Make the provider of an entry.

        Raises:
            UpstreamFault: The entry lacks something.
        """
        try:
            return self.make(entry)
        except ValueError as error:
            field, colon, _ = str(error).partition(":")
            raise UpstreamFault(str(error), field if colon else "") from None

    def is_fixed(self, route: str) -> bool:
        """Whether the settings set a route of that name."""
        return route in self.fixed_routes


class UpstreamAdministration(Struct, frozen=True):
    """Changes what is kept.

    Args:
        database: Where it is kept.
        catalog: What else there is.
    """

    database: Database
    catalog: Catalog

    def upstreams(self, connection: Connection) -> list[Opened]:
        """All upstreams of the database, in order."""
        return [self.catalog.opened(stored) for stored in list_upstreams(connection)]

    def upstream(self, connection: Connection, name: str) -> Opened:
        """One of them.

        Raises:
            NotStored: It isn't one.
        """
        found = next((one for one in self.upstreams(connection) if one.stored.name == name), None)
        if found is None:
            where = "stands in the settings, and is changed there" if name in self.catalog.registry.own_names else ""
            raise NotStored(
                f"The upstream {name[:60]!r} {where}." if where else f"There is no upstream {name[:60]!r}.", "name"
            )
        return found

    def add(self, connection: Connection, actor: Actor, document: Mapping[str, Any], *, enabled: bool = True) -> Opened:
        """Add an upstream, after all others.

        Args:
            document: In the words of an entry of `PROVIDERS_FILE`, and `key`.

        Raises:
            UpstreamFault: Something is wrong with it.
        """
        self.database.hold_back_writers(connection)
        entry = read_entry(document)
        others = list_upstreams(connection)
        if entry.name in self.catalog.registry.own_names:
            raise UpstreamFault(f"There is an upstream {entry.name!r} in the settings already.", "name")
        if any(one.name == entry.name for one in others):
            raise UpstreamFault(f"There is an upstream {entry.name!r} already.", "name")
        self.catalog.provider(entry)
        at = now()
        position = max([one.position for one in others], default=0) + 1
        opened = Opened(self._sealed(StoredUpstream(entry.name, {}, None, enabled, position, at, at), entry), entry)
        put_upstreams(self.database, connection, [opened.stored])
        note_action(connection, actor, "upstream.create", f"upstream:{entry.name}", after=_facts(opened))
        return opened

    def change(self, connection: Connection, actor: Actor, name: str, patch: Mapping[str, Any]) -> Opened:
        """Change an upstream.

        Args:
            patch: A JSON merge patch of its entry (null takes a field away), with `key`, and with `enabled` and
                `position` (1 for the first).

        Raises:
            UpstreamFault: There is no such upstream, or something would be wrong with it.
        """
        self.database.hold_back_writers(connection)
        before = self.upstream(connection, name)
        fields = dict(patch)
        of_row = {field: fields.pop(field) for field in _OF_ROW if field in fields}
        for field, value in of_row.items():
            if value is None:
                raise UpstreamFault(f"{field} can't be null: there is nothing to take away.", field)
        if fields.get("name", name) != name:
            raise UpstreamFault("An upstream keeps its name: limits and the ledger know it by that.", "name")
        after = self._patched(before, fields) if fields else before
        if "enabled" in of_row:
            after = replace(after, stored=replace(after.stored, enabled=_flag(of_row["enabled"])))
        if after.entry is not None and after.stored.enabled and after is not before:
            self.catalog.provider(after.entry)
        after = replace(after, stored=replace(after.stored, changed_at=now()))
        moved = self._moved(connection, after.stored, of_row.get("position"))
        put_upstreams(self.database, connection, moved)
        after = replace(after, stored=moved[0])
        facts, new_facts = _facts(before), _facts(after)
        if (
            before.entry is not None
            and after.entry is not None
            and _secrets_of(before.entry) != (new := _secrets_of(after.entry))
        ):
            new_facts["secrets"] = [f"{field}: changed" for field in _secret_fields(new)]
        note_update(
            connection,
            actor,
            "upstream.update",
            f"upstream:{name}",
            {field: facts.get(field) for field in {**facts, **new_facts}},
            {field: new_facts.get(field) for field in {**facts, **new_facts}},
        )
        return after

    def remove(self, connection: Connection, actor: Actor, name: str) -> None:
        """Remove an upstream. Calls that have begun end undisturbed.

        Raises:
            UpstreamFault: There is no such upstream, or a route leads to it.
        """
        self.database.hold_back_writers(connection)
        before = self.upstream(connection, name)
        leading = [route.name for route in list_routes(connection) if any(_is_at(name, one) for one in route.targets)]
        if leading:
            raise UpstreamFault(
                f"These routes lead to it: {', '.join(leading[:10])}. Change or remove them first, or disable the "
                "upstream: routes pass over it then.",
                "name",
            )
        delete_upstream(self.database, connection, name)
        note_action(connection, actor, "upstream.delete", f"upstream:{name}", before=_facts(before))

    def set_route(self, connection: Connection, actor: Actor, name: str, targets: Targets) -> StoredRoute:
        """Set a route.

        Args:
            targets: A list in order, or a table with weights.

        Raises:
            UpstreamFault: It can't be: it leads nowhere, say, or back to itself.
        """
        self.database.hold_back_writers(connection)
        if self.catalog.is_fixed(name):
            raise UpstreamFault(f"The settings have a route {name!r} already.", "name")
        _check_targets(name, targets)
        routes = {route.name: route for route in list_routes(connection)}
        before = routes.get(name)
        self._check_route(connection, name, {**{one.name: one.targets for one in routes.values()}, name: targets})
        route = put_route(self.database, connection, name, targets)
        note_action(
            connection,
            actor,
            "route.set",
            f"route:{name}",
            before=None if before is None else {"targets": before.targets},
            after={"targets": targets},
        )
        return route

    def remove_route(self, connection: Connection, actor: Actor, name: str) -> None:
        """Remove a route.

        Raises:
            UpstreamFault: There is no such route, or another one leads to it.
        """
        self.database.hold_back_writers(connection)
        routes = {route.name: route for route in list_routes(connection)}
        if name not in routes:
            where = "stands in the settings, and is changed there" if self.catalog.is_fixed(name) else ""
            raise NotStored(f"The route {name[:60]!r} {where or 'does not exist in the database'}.", "name")
        delete_route(self.database, connection, name)
        note_action(connection, actor, "route.delete", f"route:{name}", before={"targets": routes[name].targets})

    def seal_anew(self, connection: Connection, actor: Actor) -> int:
        """Encrypt all secrets with the first key of `SECRET_KEY`, so that the others can go; how many upstreams have
        some.

        Raises:
            UpstreamFault: One can't be decrypted.
        """
        self.database.hold_back_writers(connection)
        sealed = []
        for opened in self.upstreams(connection):
            if opened.stored.secrets is not None:
                if opened.entry is None:
                    raise UpstreamFault(f"The upstream {opened.stored.name!r} can't be read: {opened.fault}.")
                sealed.append(self._sealed(opened.stored, opened.entry))
        if sealed:
            put_upstreams(self.database, connection, sealed)
            note_action(connection, actor, "upstream.encrypt", "upstreams")
        return len(sealed)

    def registry_with(self, connection: Connection, routes: Mapping[str, Targets]) -> ProviderRegistry:
        """A registry of the upstreams that there are, and of some routes, to look something up in. Its providers aren't
        started: they know no models that an upstream would have to be asked for."""
        running = {provider.name: provider for provider in self.catalog.registry.providers}
        providers = []
        for one in self.upstreams(connection):
            if one.entry is not None and one.stored.enabled:
                try:
                    providers.append(running.get(one.stored.name) or self.catalog.provider(one.entry))
                except UpstreamFault:
                    continue
        free = {name: route_to(targets) for name, targets in routes.items() if not self.catalog.is_fixed(name)}
        return self.catalog.registry.trial(providers, free)

    def _patched(self, before: Opened, fields: Mapping[str, Any]) -> Opened:
        """An upstream with other fields."""
        if before.entry is None and before.stored.secrets is not None and "key" not in fields:
            raise UpstreamFault(
                f"It can't be read here, and would lose its key: {before.fault}. Give key again.", "key"
            )
        entry = changed_entry(before, fields)
        return Opened(self._sealed(before.stored, entry), entry)

    def _sealed(self, stored: StoredUpstream, entry: KeyedEntry) -> StoredUpstream:
        """An upstream with another entry."""
        document, secrets = _plain(entry), _secrets_of(entry)
        try:
            sealed = self.catalog.sealer.seal(msgspec.json.encode(secrets).decode()) if secrets else None
        except SealFault as fault:
            raise UpstreamFault(str(fault), _secret_fields(secrets)[0]) from None
        return replace(stored, entry=document, secrets=sealed)

    def _moved(self, connection: Connection, stored: StoredUpstream, position: Any) -> list[StoredUpstream]:
        """What has to be written when an upstream comes to another place: it first of all, then those that give way."""
        if position is None:
            return [stored]
        if isinstance(position, bool) or not isinstance(position, int) or position < 1:
            raise UpstreamFault("position must be a number from 1 on.", "position")
        others = [one for one in list_upstreams(connection) if one.name != stored.name]
        order = [*others[: position - 1], stored, *others[position - 1 :]]
        placed = [replace(one, position=place) for place, one in enumerate(order, start=1)]
        moved = [one for one, old in zip(placed, order, strict=True) if one.position != old.position]
        (mine,) = (one for one in placed if one.name == stored.name)
        return [mine, *(one for one in moved if one.name != stored.name)]

    def _check_route(self, connection: Connection, name: str, routes: Mapping[str, Targets]) -> None:
        tried = self.registry_with(connection, routes)
        # Those that are disabled, or can't be read here, may come back.
        stored = {one.name for one in list_upstreams(connection)}
        try:
            tried.check_route(name, stored)
        except ValueError as error:
            raise UpstreamFault(str(error), "targets") from None


def read_entry(document: Mapping[str, Any]) -> KeyedEntry:
    """Read an entry.

    Raises:
        UpstreamFault: Something is wrong with it.
    """
    try:
        entry = KeyedEntry.model_validate(document)
        msgspec.json.encode(document_of(entry))
    except ValidationError as error:
        field, message = entry_fault(error)
        raise UpstreamFault(f"{field}: {message}" if field else message, field) from None
    except (OverflowError, UnicodeEncodeError):
        raise UpstreamFault("It has a number or a text that can't be stored.") from None
    return entry


def changed_fields(opened: Opened, patch: Mapping[str, Any]) -> dict[str, Any]:
    """What an upstream's entry says after a JSON merge patch, secrets included.

    Those that can't be read here have to be given anew.
    """
    stored = opened.stored.entry
    document = stored if opened.entry is None else _joined(stored, _secrets_of(opened.entry))
    merged: dict[str, Any] = _merged(document, patch)
    return merged


def changed_entry(opened: Opened, patch: Mapping[str, Any]) -> KeyedEntry:
    """An upstream's entry after a JSON merge patch. What is secret stays with the address that it was given for.

    Raises:
        UpstreamFault: It isn't one, or has another address and lacks its secrets.
    """
    entry = read_entry(changed_fields(opened, patch))
    kept = [field for field in opened.secrets if not _is_given(patch, field)]
    if kept and opened.entry is not None and _address(opened.entry) != _address(entry):
        raise UpstreamFault(
            f"What is secret was given for another address: give {' and '.join(kept)} again, or null.", kept[0]
        )
    return entry


def document_of(entry: KeyedEntry) -> dict[str, Any]:
    """The opposite of `read_entry`, secrets included."""
    return _joined(_plain(entry), _secrets_of(entry))


def _plain(entry: KeyedEntry) -> dict[str, Any]:
    """What an entry says, without what is secret."""
    document: dict[str, Any] = entry.model_dump(mode="json", exclude_unset=True, exclude_none=True, exclude={"key"})
    if headers := {name: value for name, value in document.pop("headers", {}).items() if not isinstance(value, str)}:
        document["headers"] = headers
    for row in (document, *document.get("models", ())):
        if "abilities" in row:
            row["abilities"] = sorted(row["abilities"])  # a set has no order, and a change of it would be none
    return document


def _secrets_of(entry: KeyedEntry) -> dict[str, Any]:
    """What is secret in an entry: its key, and what headers say."""
    secrets: dict[str, Any] = {} if entry.key is None else {"key": entry.key.get_secret_value()}
    if headers := {name: value for name, value in entry.headers.items() if isinstance(value, str)}:
        secrets["headers"] = headers
    return secrets


def _secret_fields(secrets: Mapping[str, Any]) -> list[str]:
    return [*(["key"] if "key" in secrets else []), *(f"headers.{name}" for name in secrets.get("headers", ()))]


def _joined(document: Mapping[str, Any], secrets: Mapping[str, Any]) -> dict[str, Any]:
    headers = {**document.get("headers", {}), **secrets.get("headers", {})}
    return {**document, **secrets, **({"headers": headers} if headers else {})}


def _merged(document: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7396), applied."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(document) if isinstance(document, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged


def _is_given(fields: Mapping[str, Any], field: str) -> bool:
    """Whether a patch says anything of a secret field."""
    whole, _, header = field.partition(".")
    within = fields.get(whole)
    return whole in fields and (not header or not isinstance(within, Mapping) or header in within)


def _address(entry: KeyedEntry) -> tuple[str | None, ...]:
    """What says where an upstream is."""
    return entry.base_url, entry.preset, entry.kind


def _facts(opened: Opened) -> dict[str, object]:
    """What the log of changes is told."""
    stored = opened.stored
    facts: dict[str, object] = {**stored.entry, "enabled": stored.enabled, "position": stored.position}
    return {**facts, "secrets": opened.secrets} if opened.secrets else facts


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise UpstreamFault("enabled must be true or false.", "enabled")
    return value


def _is_at(upstream: str, target: str) -> bool:
    return target.partition("/")[0] == upstream


def _check_targets(name: str, targets: Targets) -> None:
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable() or name.strip() != name:
        raise UpstreamFault(f"A route's name has 1 to {_LONGEST_NAME} printable characters.", "name")
    if not 0 < len(targets) <= _MOST_TARGETS or not all(_are_names(targets)):
        raise UpstreamFault(f"A route has 1 to {_MOST_TARGETS} targets: models, provider/model, or routes.", "targets")
    if isinstance(targets, Sequence) and len(set(targets)) < len(targets):
        raise UpstreamFault("A target is there twice.", "targets")
    if isinstance(targets, Mapping) and not all(0 < weight < float("inf") for weight in targets.values()):
        raise UpstreamFault("Weights must be above 0.", "targets")


def _are_names(targets: Iterable[str]) -> Iterable[bool]:
    return (0 < len(target) <= _LONGEST_NAME and target.isprintable() for target in targets)
