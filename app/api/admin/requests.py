"""The ledger: requests one by one, as they come, and in sums."""

import csv
import io
from collections.abc import AsyncGenerator, Iterator
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, Field

from app.api.admin.common import Body, Cursor, Limit, Page, cursor_of, place_of, read
from app.api.admin.feed import Feed
from app.api.admin.keys import time_at
from app.api.admin.services import AdminServices
from app.domain.errors import InvalidRequest, KeyStoreUnavailable, NotFound
from app.domain.json import json_bytes
from app.storage.clock import now
from app.storage.request_pages import RowFilter, page_of_rows, row_of, rows_of_request
from app.storage.rows import time_of
from app.storage.usage import DAY, HOUR, NoSuchSums, UsageFilter, percentile, usage_by

Outcome = Literal["completed", "failed", "abandoned", "refused", "replayed"]
By = Literal["key", "project", "model", "provider", "outcome"]
_EXPORTED_AT_ONCE = 1000
_MOST_DAYS = 3700


class Call(Body):
    """A request, as the ledger has it. No text of any message is kept."""

    id: str
    at: AwareDatetime
    request_id: str
    key_id: str
    project: str
    model: str
    served: Annotated[str | None, Field(description="the model that answered, if it isn't the one that was asked for")]
    provider: str
    dialect: str
    outcome: Outcome
    error: str | None
    status: int
    streamed: bool
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    estimated: bool
    cost_usd: float
    milliseconds: int
    first_milliseconds: Annotated[int | None, Field(description="until the first word")]
    session: Annotated[str | None, Field(description="a digest")]
    end_user: str | None
    dropped: Annotated[int, Field(description="messages that did not fit into the prompt")]
    passed_over: Annotated[str | None, Field(description="who could not answer, as provider=reason")]


class Sums(Body):
    """What a group of calls has used."""

    begins_at: AwareDatetime | None = None
    key: str | None = None
    project: str | None = None
    model: str | None = None
    provider: str | None = None
    outcome: str | None = None
    requests: int
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    cost_usd: float
    mean_milliseconds: float | None
    p50_milliseconds: int | None
    p95_milliseconds: int | None


class Usage(Body):
    """Sums of a time, from its first day or hour to its last."""

    since: AwareDatetime
    until: AwareDatetime
    data: list[Sums]


class Filter:
    """Which requests are looked for.

    Args:
        key: The key's id.
        model: The one that answered, or `unlisted`.
        error: An error's code.
        trouble: Only those that got no whole answer.
    """

    def __init__(
        self,
        key: str | None = None,
        project: str | None = None,
        model: str | None = None,
        provider: str | None = None,
        outcome: Outcome | None = None,
        error: str | None = None,
        trouble: bool = False,
        since: AwareDatetime | None = None,
        until: AwareDatetime | None = None,
    ) -> None:
        self.rows = RowFilter(
            key_id=key,
            project=project,
            model=model,
            provider=provider,
            outcome=outcome,
            error=error,
            trouble=trouble,
            since=milliseconds_of(since),
            until=milliseconds_of(until),
        )


def requests_router(services: AdminServices) -> APIRouter:
    """The routes of requests and sums."""
    router = APIRouter(tags=["requests"])
    database = services.database
    feed = Feed(database)

    @router.get("/requests", summary="List requests")
    async def list_requests(
        wanted: Annotated[Filter, Depends()], cursor: Cursor = None, limit: Limit = 50
    ) -> Page[Call]:
        """The newest first. A page may have fewer than `limit`, or none, and `next` all the same."""
        before = place_of(cursor)
        page = await read(
            database, lambda connection: page_of_rows(connection, wanted.rows, before=before, limit=limit)
        )
        return Page(data=[call_of(row) for row in page.rows], next=cursor_of(page.before))

    @router.get("/requests/feed", summary="Requests as they end", response_class=StreamingResponse)
    async def follow(
        wanted: Annotated[Filter, Depends()],
        last_event_id: Annotated[str | None, Header(description="continues after this one")] = None,
    ) -> StreamingResponse:
        """Events `request`, each with a request's id as its id. From all workers, within two seconds."""
        after = place_of_event(last_event_id)
        events = feed.follow(after, wanted.rows)
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(_events(events), media_type="text/event-stream", headers=headers)

    @router.get("/requests/{call_id}", summary="Read a request")
    async def get(call_id: str) -> Call:
        """By the ledger's id, or by the `X-Request-ID` of its answer: of several with that one, the newest."""

        def found(connection: Any) -> dict[str, Any] | None:
            if call_id.isdecimal() and len(call_id) < 20:
                return row_of(connection, int(call_id))
            return next(iter(rows_of_request(connection, call_id)), None)

        row = await read(database, found)
        if row is None:
            raise NotFound("There is no such request, or it is older than REQUESTS_KEPT_DAYS.", param="call_id")
        return call_of(row)

    @router.get("/usage", summary="Sums")
    async def usage(
        by: Annotated[list[By], Query(description="what sums are told apart by")] = [],  # noqa: B006 - never changed
        every: Annotated[
            Literal["hour", "day"] | None, Query(description="one sum for each; null for one in all")
        ] = None,
        key: str | None = None,
        project: str | None = None,
        model: str | None = None,
        provider: str | None = None,
        outcome: Outcome | None = None,
        since: AwareDatetime | None = None,
        until: AwareDatetime | None = None,
    ) -> Usage:
        """From the sums that are kept for ever; of the last seven days if no time is given. Days are those of UTC."""
        begin, end = _span(since, until, every)
        wanted = UsageFilter(key, project, model, provider, outcome)
        groups = [*([every] if every else []), *dict.fromkeys(by)]
        try:
            rows = await read(
                database,
                lambda connection: usage_by(connection, *groups, since=begin, until=end, wanted=wanted, durations=True),
            )
        except NoSuchSums as error:
            raise InvalidRequest(f"{str(error).capitalize()}.", param="every") from None
        return Usage(since=time_at(begin), until=time_at(end), data=[sums_of(row, every) for row in rows])

    @router.get("/export/requests.jsonl", summary="All requests, a line each", response_class=StreamingResponse)
    async def export_requests(wanted: Annotated[Filter, Depends()]) -> StreamingResponse:
        """The newest first."""

        async def lines() -> AsyncGenerator[bytes, None]:
            before: int | None = None
            while True:
                place = before
                page = await read(
                    database,
                    lambda connection: page_of_rows(connection, wanted.rows, before=place, limit=_EXPORTED_AT_ONCE),
                )
                yield b"".join([json_bytes(call_of(row).model_dump(mode="json")) + b"\n" for row in page.rows])
                if page.before is None:
                    return
                before = page.before

        return StreamingResponse(lines(), media_type="application/jsonl", headers=_attachment("requests.jsonl"))

    @router.get("/export/usage.csv", summary="Sums as a table", response_class=StreamingResponse)
    async def export_usage(since: AwareDatetime | None = None, until: AwareDatetime | None = None) -> StreamingResponse:
        """By day, key and model."""
        begin, end = _span(since, until, "day")
        rows = await read(
            database, lambda connection: usage_by(connection, "day", "key", "model", since=begin, until=end)
        )
        return StreamingResponse(_csv(rows), media_type="text/csv", headers=_attachment("usage.csv"))

    return router


def call_of(row: dict[str, Any]) -> Call:
    """A row of the ledger, as the API has it."""
    fields = {name: row[name] for name in Call.model_fields if name in row}
    fields |= {
        "id": str(row["id"]),
        "at": time_at(time_of(row["id"])),
        "streamed": bool(row["streamed"]),
        "estimated": bool(row["estimated"]),
        "cost_usd": row["cost"] / 1e9,
    }
    return Call(**fields)


def sums_of(row: dict[str, Any], every: str | None) -> Sums:
    """A row of sums, as the API has it."""
    requests = row["requests"]
    return Sums(
        begins_at=None if every is None else time_at(row[every]),
        **{name: row[name] for name in ("key", "project", "model", "provider", "outcome") if name in row},
        requests=requests,
        tokens_in=row["tokens_in"],
        tokens_out=row["tokens_out"],
        tokens_cached=row["tokens_cached"],
        cost_usd=row["cost"] / 1e9,
        mean_milliseconds=row["milliseconds"] / requests if requests else None,
        p50_milliseconds=percentile(row, 0.5),
        p95_milliseconds=percentile(row, 0.95),
    )


def milliseconds_of(at: datetime | None) -> int | None:
    """A time of the API, as the database has it."""
    return None if at is None else round(at.timestamp() * 1000)


def place_of_event(event_id: str | None) -> int | None:
    """Where a feed continues.

    Raises:
        InvalidRequest: The id is none of its events'.
    """
    if event_id is None:
        return None
    if not event_id.isdecimal() or len(event_id) >= 20:
        raise InvalidRequest("Last-Event-ID must be the id of one of this feed's events.", param="Last-Event-ID")
    return int(event_id)


def _span(since: datetime | None, until: datetime | None, every: str | None) -> tuple[int, int]:
    """The begin and the end of a time, rounded to what sums are kept of."""
    end = milliseconds_of(until) or now()
    begin = milliseconds_of(since)
    if begin is None:
        begin = end - 7 * DAY
    if begin >= end:
        raise InvalidRequest("since must be before until.", param="since")
    if end - begin > _MOST_DAYS * DAY:
        raise InvalidRequest("The time must not be longer than ten years.", param="since")
    grain = DAY if every == "day" else HOUR
    return begin - begin % grain, end + -end % grain


async def _events(rows: AsyncGenerator[dict[str, Any] | None, None]) -> AsyncGenerator[bytes, None]:
    """Rows as server-sent events; nothing to tell is a comment, so that the connection stays."""
    yield b"retry: 2000\n\n"
    try:
        async for row in rows:
            if row is None:
                yield b": nothing new\n\n"
            else:
                data = json_bytes(call_of(row).model_dump(mode="json"))
                yield b"id: %d\nevent: request\ndata: %s\n\n" % (row["id"], data)
    except KeyStoreUnavailable as error:
        yield b"event: error\ndata: %s\n\n" % json_bytes({"message": error.message, "code": error.code})


def _csv(rows: list[dict[str, Any]]) -> Iterator[str]:
    names = ("day", "key", "model", "requests", "tokens_in", "tokens_out", "tokens_cached", "cost_usd")
    for row in (None, *rows):
        line = io.StringIO()
        if row is None:
            csv.writer(line).writerow(names)
        else:
            told = {**row, "day": time_at(row["day"]).date().isoformat(), "cost_usd": f"{row['cost'] / 1e9:.6f}"}
            csv.writer(line).writerow([told[name] for name in names])
        yield line.getvalue()


def _attachment(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
