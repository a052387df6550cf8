"""Limits of keys, projects, upstreams and the gateway."""

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field

from app.api.admin.common import Body, Writer, change, read
from app.api.admin.services import AdminServices
from app.domain.errors import InvalidRequest
from app.domain.granting import Scope
from app.domain.limits import read_limits, texts_of
from app.storage.audit import note_action
from app.storage.database import Connection
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

        def set_them(connection: Connection) -> LimitsOfScope:
            before = stored_limits(connection).get(meant)
            set_limits(database, connection, meant, text)
            note_action(
                connection, actor, "limits.set", name_of(meant), before={"limits": before}, after={"limits": text}
            )
            return LimitsOfScope(scope=scope, limits=text, source="database")

        return await change(database, set_them)

    @router.delete("/{scope}", summary="Go back to the limits of the settings", status_code=204)
    async def unset(scope: ScopeName, actor: Writer) -> None:
        """Those of DEFAULT_LIMITS for a key."""
        meant = _scope(scope)

        def unset_them(connection: Connection) -> None:
            before = stored_limits(connection).get(meant)
            if before is not None:
                set_limits(database, connection, meant, None)
                note_action(connection, actor, "limits.unset", name_of(meant), before={"limits": before})

        await change(database, unset_them)

    return router


def _scope(name: str) -> Scope:
    """The scope of a name.

    Raises:
        InvalidRequest: It is none.
    """
    kind, colon, of = name.partition(":")
    if name == "gateway" or (kind in ("key", "project", "upstream") and colon and of):
        return scope_of(name)
    raise InvalidRequest("The scope must be key:ID, project:NAME, upstream:NAME or gateway.", param="scope")
