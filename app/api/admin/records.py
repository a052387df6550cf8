"""Prices, projects, and the log of changes."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, Field

from app.api.admin.common import Body, Cursor, Limit, Page, Writer, change, cursor_of, place_of, read
from app.api.admin.keys import time_at
from app.api.admin.requests import milliseconds_of
from app.api.admin.services import AdminServices
from app.domain.granting import Scope
from app.storage.audit import actions_before, note_action
from app.storage.database import Connection
from app.storage.keys import list_keys
from app.storage.limits import stored_limits
from app.storage.prices import list_prices, set_prices

Dollars = Annotated[float, Field(ge=0, le=1_000_000, description="dollars for a million tokens")]
# Nano-dollars for a token in dollars for a million.
_NANO_IN_DOLLARS = 1000


class Price(Body):
    """What a model costs from a day on."""

    model: Annotated[str, Field(min_length=1, max_length=200, description="its name, or provider/name")]
    since: AwareDatetime
    input: Dollars
    output: Dollars
    cached: Dollars


class PriceList(Body):
    """All prices."""

    data: list[Price]


class Project(Body):
    """A project: keys that belong together."""

    name: str
    keys: int
    limits: str | None


class ProjectList(Body):
    """All projects."""

    data: list[Project]


class Action(Body):
    """A change that somebody has made."""

    number: int
    at: AwareDatetime
    actor: str
    via: str
    action: str
    subject: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    address: str | None


def records_router(services: AdminServices) -> APIRouter:
    """The routes of prices, projects and changes."""
    router = APIRouter()
    database = services.database

    @router.get("/prices", summary="List prices", tags=["prices"])
    async def prices() -> PriceList:
        """By model and day."""
        return PriceList(data=await read(database, _prices))

    @router.put("/prices", summary="Set prices", tags=["prices"])
    async def put_prices(body: PriceList, actor: Writer) -> PriceList:
        """Those of the same model and day are replaced, others stay. They count for calls from now on."""
        rows = [
            (
                price.model,
                milliseconds_of(price.since) or 0,
                *(_nano(v) for v in (price.input, price.output, price.cached)),
            )
            for price in body.data
        ]

        def put(connection: Connection) -> list[Price]:
            set_prices(database, connection, rows)
            note_action(connection, actor, "prices.set", "prices", after=body.model_dump(mode="json"))
            return _prices(connection)

        return PriceList(data=await change(database, put))

    @router.get("/projects", summary="List projects", tags=["projects"])
    async def projects() -> ProjectList:
        """Those that have keys."""

        def listed(connection: Connection) -> list[Project]:
            limits = stored_limits(connection)
            counts: dict[str, int] = {}
            for key in list_keys(connection):
                counts[key.project] = counts.get(key.project, 0) + 1
            return [
                Project(name=name, keys=count, limits=limits.get(Scope("project", name)))
                for name, count in sorted(counts.items())
            ]

        return ProjectList(data=await read(database, listed))

    @router.get("/audit", summary="List changes", tags=["audit"])
    async def audit(
        subject: Annotated[str | None, Query(max_length=200, description="such as key:k_…")] = None,
        cursor: Cursor = None,
        limit: Limit = 50,
    ) -> Page[Action]:
        """Who has changed what, the newest first."""
        before = place_of(cursor)
        rows = await read(
            database, lambda connection: actions_before(connection, before, subject=subject, limit=limit + 1)
        )
        following = rows[limit - 1]["number"] if len(rows) > limit else None
        return Page(
            data=[Action(**{**row, "at": time_at(row["at"])}) for row in rows[:limit]], next=cursor_of(following)
        )

    return router


def _prices(connection: Connection) -> list[Price]:
    return [
        Price(
            model=row["model"],
            since=time_at(row["since"]),
            input=row["input"] / _NANO_IN_DOLLARS,
            output=row["output"] / _NANO_IN_DOLLARS,
            cached=row["cached"] / _NANO_IN_DOLLARS,
        )
        for row in list_prices(connection)
    ]


def _nano(dollars: float) -> int:
    return round(dollars * _NANO_IN_DOLLARS)
