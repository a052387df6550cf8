"""Upstreams and routes that were added while the gateway ran."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, delete, insert, select, update

from app.storage import tables
from app.storage.changes import note_change
from app.storage.clock import now
from app.storage.database import Database

_UPSTREAMS, _ROUTES = tables.upstreams, tables.routes
# The subject of changes of both.
UPSTREAMS_CHANGED = "upstreams"

Targets = Sequence[str] | Mapping[str, float]


class StoredUpstream(Struct, frozen=True):
    """An upstream. Times are milliseconds since the epoch.

    Args:
        entry: What an entry of `PROVIDERS_FILE` says, without what is secret.
        secrets: What is secret, encrypted; None for nothing.
        position: Where it stands among the others.
    """

    name: str
    entry: Mapping[str, Any]
    secrets: str | None
    enabled: bool
    position: int
    created_at: int
    changed_at: int


class StoredRoute(Struct, frozen=True):
    """A route.

    Args:
        targets: A list of them in order, or a table of them with weights.
        changed_at: In milliseconds since the epoch.
    """

    name: str
    targets: Targets
    changed_at: int


def list_upstreams(connection: Connection) -> list[StoredUpstream]:
    """All upstreams, in order."""
    rows = connection.execute(select(_UPSTREAMS).order_by(_UPSTREAMS.c.position, _UPSTREAMS.c.name)).mappings()
    return [
        StoredUpstream(**{**row, "entry": msgspec.json.decode(row["entry"]), "enabled": bool(row["enabled"])})
        for row in rows
    ]


def put_upstreams(database: Database, connection: Connection, upstreams: Sequence[StoredUpstream]) -> None:
    """Write upstreams, new ones or others in place of their namesakes, and tell all workers."""
    for one in upstreams:
        values = {
            **{name: getattr(one, name) for name in StoredUpstream.__struct_fields__},
            "entry": msgspec.json.encode(one.entry).decode(),
            "enabled": int(one.enabled),
        }
        if connection.execute(update(_UPSTREAMS).where(_UPSTREAMS.c.name == one.name).values(values)).rowcount == 0:
            connection.execute(insert(_UPSTREAMS).values(values))
    note_change(database, connection, UPSTREAMS_CHANGED)


def delete_upstream(database: Database, connection: Connection, name: str) -> None:
    """Remove an upstream, and tell all workers."""
    connection.execute(delete(_UPSTREAMS).where(_UPSTREAMS.c.name == name))
    note_change(database, connection, UPSTREAMS_CHANGED)


def list_routes(connection: Connection) -> list[StoredRoute]:
    """All routes, by name."""
    rows = connection.execute(select(_ROUTES).order_by(_ROUTES.c.name)).mappings()
    return [StoredRoute(row["name"], msgspec.json.decode(row["targets"]), row["changed_at"]) for row in rows]


def put_route(database: Database, connection: Connection, name: str, targets: Targets) -> StoredRoute:
    """Write a route, a new one or another in place of its namesake, and tell all workers."""
    route = StoredRoute(name, targets, now())
    connection.execute(delete(_ROUTES).where(_ROUTES.c.name == name))
    text = msgspec.json.encode(targets).decode()
    connection.execute(insert(_ROUTES).values(name=name, targets=text, changed_at=route.changed_at))
    note_change(database, connection, UPSTREAMS_CHANGED)
    return route


def delete_route(database: Database, connection: Connection, name: str) -> None:
    """Remove a route, and tell all workers."""
    connection.execute(delete(_ROUTES).where(_ROUTES.c.name == name))
    note_change(database, connection, UPSTREAMS_CHANGED)
