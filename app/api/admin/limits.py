"""Limits of keys, projects, upstreams and the gateway."""

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field

from app.api.admin.common import Body, Writer, change, read
from app.api.admin.services import AdminServices
from app.domain.errors import InvalidRequest
from app.domain.granting import Scope
from app.domain.limits import read_limits, texts_of
from app.storage.audit import Actor, note_action
from app.storage.database import Connection, Database
from app.storage.limits import set_limits, stored_limits
from app.storage.spent import name_of, scope_of

ScopeName = Annotated[str, Path(description="`key:ID`, `project:NAME`, `upstream:NAME` or `gateway`", max_length=200)]


class LimitsOfScope(Body):
    """The limits of a scope."""

    scope: str
    limits: str
    source: Annotated[str, Field(description="`database` or `settings`")]


class ScopeList(Body):
    """All scopes that have limits."""

    data: list[LimitsOfScope]


class NewLimits(Body):
    """Limits to be set."""

    limits: Annotated[str, Field(description="such as `60 requests/minute, 5 at once`; `none` for no limits")]


def limits_router(services: AdminServices) -> APIRouter:
    """The routes of limits."""
    router = APIRouter(prefix="/limits", tags=["limits"])
    database = services.database

    @router.get("", summary="List all limits")
    async def list_all() -> ScopeList:
        """Those of the database, and those of the settings where the database has no others."""
        stored = await read(database, stored_limits)
        of_database = {name_of(scope).rstrip(":"): text for scope, text in stored.items()}
        entries = [LimitsOfScope(scope=name, limits=text, source="database") for name, text in of_database.items()]
        entries += [
            LimitsOfScope(scope=name, limits=text, source="settings")
            for name, text in services.fixed_limits.items()
            if name not in of_database
        ]
        return ScopeList(data=sorted(entries, key=lambda entry: entry.scope))

    @router.put("/{scope}", summary="Set limits")
    async def put(scope: ScopeName, body: NewLimits, actor: Writer) -> LimitsOfScope:
        """Count on every worker within two seconds; what was used before counts on."""
        meant = _scope(scope)
        try:
            text = texts_of(read_limits(body.limits))
        except ValueError as error:
            raise InvalidRequest(f"limits: {error}.", param="limits") from None

        await change(database, lambda connection: change_limits(database, connection, actor, meant, text))
        return LimitsOfScope(scope=scope, limits=text, source="database")

    @router.delete("/{scope}", summary="Go back to the limits of the settings", status_code=204)
    async def unset(scope: ScopeName, actor: Writer) -> None:
        """Those of DEFAULT_LIMITS for a key."""
        meant = _scope(scope)

        await change(database, lambda connection: change_limits(database, connection, actor, meant, None))

    return router


def change_limits(database: Database, connection: Connection, actor: Actor, scope: Scope, text: str | None) -> None:
    """Set a scope's limits, as `texts_of` writes them, or with None go back to those of the settings; note who did."""
    before = stored_limits(connection).get(scope)
    if text is not None:
        set_limits(database, connection, scope, text)
        after = {"limits": text}
        note_action(connection, actor, "limits.set", name_of(scope), before={"limits": before}, after=after)
    elif before is not None:
        set_limits(database, connection, scope, None)
        note_action(connection, actor, "limits.unset", name_of(scope), before={"limits": before})


def _scope(name: str) -> Scope:
    """The scope of a name.

    Raises:
        InvalidRequest: It is none.
    """
    kind, colon, of = name.partition(":")
    if name == "gateway" or (kind in ("key", "project", "upstream") and colon and of):
        return scope_of(name)
    raise InvalidRequest("The scope must be key:ID, project:NAME, upstream:NAME or gateway.", param="scope")
