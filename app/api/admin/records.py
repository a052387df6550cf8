"""Prices, projects, and the log of changes."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import AwareDatetime, BaseModel, Field

from app.api.admin.common import (
    Body,
    Cursor,
    Endpoint,
    IfMatch,
    Limit,
    Page,
    Writer,
    change,
    check_version,
    cursor_of,
    milliseconds_of,
    place_of,
    read,
    router_of,
    sliced,
    time_at,
    with_etag,
)
from app.api.admin.services import AdminServices
from app.domain.granting import Scope
from app.storage.audit import actions_before
from app.storage.database import Connection
from app.storage.keys import count_of_keys
from app.storage.limits import stored_limits
from app.storage.prices import Price as StoredPrice
from app.storage.prices import change_prices, list_prices

Dollars = Annotated[float, Field(ge=0, le=1_000_000, description="Dollars for a million tokens, to a tenth of a cent.")]
DollarsForOne = Annotated[float, Field(ge=0, le=1_000_000, description="Dollars for one.")]
# Nano-dollars for a token in dollars for a million; and for one of what is priced by the piece.
_NANO_IN_DOLLARS = 1000
_NANO_FOR_ONE = 1_000_000_000
_MOST_PRICES = 1000


class Price(Body):
    """What a model costs from a day on."""

    model: Annotated[str, Field(min_length=1, max_length=200, description="Its name, or provider/name.")]
    since: AwareDatetime
    input: Dollars
    output: Dollars
    cached: Dollars
    cache_write: Annotated[
        Dollars | None, Field(description="For tokens that are written into a cache; null for the same as `input`.")
    ] = None
    image: DollarsForOne = 0
    audio_second: DollarsForOne = 0
    characters: Annotated[float, Field(ge=0, le=1_000_000, description="Dollars for a million that are spoken.")] = 0
    search: DollarsForOne = 0


class NewPrices(Body):
    """Prices to be set."""

    data: Annotated[list[Price], Field(max_length=_MOST_PRICES)]


class PriceList(BaseModel):
    """All prices."""

    data: list[Price]
    next: None = None


class Project(BaseModel):
    """A project: keys that belong together."""

    name: str
    keys: Annotated[int, Field(description="Those that aren't revoked.")]
    limits: str | None


class Action(BaseModel):
    """A change that somebody has made."""

    number: int
    at: AwareDatetime
    actor: Annotated[str, Field(description="`key:ID`, `person:ID`, or the system's user.")]
    via: Annotated[str, Field(description="`api`, `cli` or `console`.")]
    action: str
    subject: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    address: Annotated[str | None, Field(description="The client's address, where there is one.")]


class RecordEndpoints:
    """`/prices`, `/projects` and `/audit`.

    Args:
        services: What the admin API works with.
    """

    def __init__(self, services: AdminServices) -> None:
        self._database = services.database

    def router(self) -> APIRouter:
        """The routes."""
        return router_of(
            "records",
            Endpoint("GET", "/prices", self.prices, "List prices"),
            Endpoint("PUT", "/prices", self.put_prices, "Set prices", errors=(412,)),
            Endpoint("GET", "/projects", self.projects, "List projects"),
            Endpoint("GET", "/audit", self.audit, "List changes"),
        )

    async def prices(self, response: Response) -> PriceList:
        """By model and day, all at once; with their version as `ETag`."""
        return with_etag(response, await read(self._database, _prices))

    async def put_prices(
        self, body: NewPrices, actor: Writer, response: Response, if_match: IfMatch = None
    ) -> PriceList:
        """Those of the same model and day are replaced, others stay. They count for calls from now on."""
        rows = [
            StoredPrice(
                price.model,
                milliseconds_of(price.since, "since"),
                _nano(price.input),
                _nano(price.output),
                _nano(price.cached),
                image=_nano(price.image, _NANO_FOR_ONE),
                audio_second=_nano(price.audio_second, _NANO_FOR_ONE),
                character=_nano(price.characters),
                search=_nano(price.search, _NANO_FOR_ONE),
                cache_write=None if price.cache_write is None else _nano(price.cache_write),
            )
            for price in body.data
        ]

        def put(connection: Connection) -> PriceList:
            check_version(_prices(connection), if_match)
            change_prices(self._database, connection, actor, rows)
            return _prices(connection)

        return with_etag(response, await change(self._database, put))

    async def projects(self, cursor: Cursor = None, limit: Limit = 50) -> Page[Project]:
        """By name. Whoever makes a key in a new one makes the project."""

        def listed(connection: Connection) -> list[Project]:
            limits = stored_limits(connection)
            return [
                Project(name=name, keys=count, limits=limits.get(Scope("project", name)))
                for name, count in count_of_keys(connection).items()
            ]

        projects = await read(self._database, listed)
        return sliced(projects, lambda project: (project.name,), cursor, limit, str)

    async def audit(
        self,
        subject: Annotated[str | None, Query(max_length=300, description="Such as `key:k_…` or `prices`.")] = None,
        cursor: Cursor = None,
        limit: Limit = 50,
    ) -> Page[Action]:
        """Who has changed what, the newest first."""
        place = place_of(cursor, int)
        before = None if place is None else place[0]
        rows = await read(
            self._database, lambda connection: actions_before(connection, before, subject=subject, limit=limit + 1)
        )
        return Page(
            data=[Action(**{**row, "at": time_at(row["at"])}) for row in rows[:limit]],
            next=cursor_of(rows[limit - 1]["number"]) if len(rows) > limit else None,
        )


def _prices(connection: Connection) -> PriceList:
    return PriceList(
        data=[
            Price(
                model=row["model"],
                since=time_at(row["since"]),
                input=row["input"] / _NANO_IN_DOLLARS,
                output=row["output"] / _NANO_IN_DOLLARS,
                cached=row["cached"] / _NANO_IN_DOLLARS,
                cache_write=None if row["cache_write"] is None else row["cache_write"] / _NANO_IN_DOLLARS,
                image=row["image"] / _NANO_FOR_ONE,
                audio_second=row["audio_second"] / _NANO_FOR_ONE,
                characters=row["character"] / _NANO_IN_DOLLARS,
                search=row["search"] / _NANO_FOR_ONE,
            )
            for row in list_prices(connection)
        ]
    )


def _nano(dollars: float, factor: int = _NANO_IN_DOLLARS) -> int:
    return round(dollars * factor)
