"""The ledger: requests one by one, as they come, and in sums."""

import csv
import io
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query
from msgspec.structs import replace
from pydantic import AwareDatetime, BaseModel, Field

from app.api.admin.common import (
    Cursor,
    Endpoint,
    Limit,
    Page,
    Since,
    Stream,
    Until,
    cursor_of,
    is_row_id,
    milliseconds_of,
    place_of,
    read,
    router_of,
    time_at,
)
from app.api.admin.request_detail import known_headers, time_line
from app.api.admin.services import AdminServices
from app.domain.errors import InvalidRequest, NotFound
from app.domain.json import json_bytes
from app.domain.spreadsheet import cell
from app.domain.units import UNITS, Unit
from app.storage.clock import now
from app.storage.database import Connection
from app.storage.request_pages import RowFilter, page_of_rows, row_of, rows_of_request
from app.storage.rows import RowOutcome, time_of
from app.storage.usage import DAY, HOUR, UNLISTED, NoSuchSums, UsageFilter, percentile, usage_by

By = Literal["key", "project", "model", "provider", "outcome"]
_EXPORTED_AT_ONCE = 1000
_MOST_DAYS = 3700
_USUAL_DAYS = 7
_CSV_COLUMNS = (
    *("day", "key", "model", "requests", "tokens_in", "tokens_out", "tokens_cached", "cost_usd"),
    *("tokens_cache_written", *UNITS),
)


class Call(BaseModel):
    """A request, as the ledger has it, which keeps no text of any message."""

    id: str
    at: AwareDatetime
    request_id: str
    key_id: str
    project: str
    model: str
    served: Annotated[str | None, Field(description="The model that answered, if it isn't the one that was asked for.")]
    provider: str
    dialect: str
    outcome: RowOutcome
    error: str | None
    status: int
    streamed: bool
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    estimated: bool
    cost_usd: float
    milliseconds: int
    first_milliseconds: Annotated[int | None, Field(description="Until the first word.")]
    session: Annotated[str | None, Field(description="A digest of the session.")]
    end_user: str | None
    dropped: Annotated[int, Field(description="Messages that did not fit into the prompt.")]
    passed_over: Annotated[str | None, Field(description="Who could not answer, as provider=reason.")]
    action: Annotated[
        str | None, Field(description="What it meant for its session. This and what follows: null if not known.")
    ]
    prompt_size: int | None
    prompt_limit: Annotated[int | None, Field(description="What the prompt had room in.")]
    prompt_in_tokens: Annotated[bool | None, Field(description="Whether both are in tokens; else in characters.")]
    shortened: Annotated[int | None, Field(description="Messages of which only a part fitted; null for none.")]
    waits: Annotated[str | None, Field(description="What it waited for, as step=milliseconds; null for nothing.")]
    tokens_cache_written: Annotated[int, Field(description="Of `tokens_in`, those that were written into a cache.")]
    unit: Annotated[Unit | None, Field(description="Of what was used besides tokens; null for nothing.")]
    amount: Annotated[int | None, Field(description="How much of it.")]


class TimeStep(BaseModel):
    """A stretch of a request's time."""

    step: Literal["limits", "session", "queue", "nonce", "upstream", "answer", "rest"]
    begins: Annotated[int, Field(description="Milliseconds after the request began.")]
    milliseconds: int


class CallDetail(Call):
    """A request, with what follows from what is kept of it."""

    time_line: Annotated[list[TimeStep], Field(description="What its time went to. Waits of all attempts come first.")]
    headers: Annotated[dict[str, str], Field(description="Headers of its answer, as far as they are known.")]


class Sums(BaseModel):
    """What a group of calls has used. What they aren't told apart by is null."""

    begins_at: AwareDatetime | None
    key: str | None
    project: str | None
    model: str | None
    provider: str | None
    outcome: str | None
    requests: int
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    tokens_cache_written: int
    images: int
    audio_seconds: int
    characters: int
    searches: int
    cost_usd: float
    mean_milliseconds: float | None
    p50_milliseconds: int | None
    p95_milliseconds: int | None


class Usage(BaseModel):
    """Sums of a time, from its first day or hour to its last."""

    since: AwareDatetime
    until: AwareDatetime
    data: list[Sums]


class CallFilter:
    """Which requests are looked for."""

    def __init__(
        self,
        *,
        key: Annotated[str | None, Query(description="The key's id.")] = None,
        project: Annotated[str | None, Query(description="Its name when the call was made.")] = None,
        model: Annotated[
            str | None, Query(description="The one that answered; `unlisted` for all that no list has.")
        ] = None,
        provider: str | None = None,
        outcome: RowOutcome | None = None,
        error: Annotated[str | None, Query(description="An error's code.")] = None,
        trouble: Annotated[bool, Query(description="Only those that got no whole answer.")] = False,
        session: Annotated[str | None, Query(description="The digest of a session, as requests have it.")] = None,
    ) -> None:
        self.rows = RowFilter(key, project, model, provider, outcome, error, trouble, session=session)


class PastCallFilter(CallFilter):
    """Which requests are looked for, and of which time."""

    def __init__(self, wanted: Annotated[CallFilter, Depends()], *, since: Since = None, until: Until = None) -> None:
        self.rows = replace(
            wanted.rows,
            since=None if since is None else milliseconds_of(since, "since"),
            until=None if until is None else milliseconds_of(until, "until"),
        )


class Span:
    """A time of which sums are kept; the last seven days if nothing else is said."""

    def __init__(self, *, since: Since = None, until: Until = None) -> None:
        self.until = now() if until is None else milliseconds_of(until, "until")
        self.since = self.until - _USUAL_DAYS * DAY if since is None else milliseconds_of(since, "since")
        if self.since >= self.until:
            raise InvalidRequest("since must be before until.", param="since")
        if self.until - self.since > _MOST_DAYS * DAY:
            raise InvalidRequest("The time must not be longer than ten years.", param="since")

    def rounded(self, grain: int) -> tuple[int, int]:
        """From the begin of its first hour or day to the end of its last."""
        return self.since - self.since % grain, self.until + -self.until % grain


class SumsFilter:
    """Which calls are summed up."""

    def __init__(
        self,
        *,
        key: Annotated[str | None, Query(description="The key's id.")] = None,
        project: str | None = None,
        model: str | None = None,
        provider: str | None = None,
        outcome: RowOutcome | None = None,
    ) -> None:
        self.calls = UsageFilter(key, project, model, provider, outcome)


class RequestEndpoints:
    """`/requests`, `/usage` and `/export`.

    Args:
        services: What the admin API works with.
    """

    def __init__(self, services: AdminServices) -> None:
        self._database = services.database
        self._feed = services.feed

    def router(self) -> APIRouter:
        """The routes. The feed comes before the ids."""
        return router_of(
            "requests",
            Endpoint("GET", "/requests", self.list_all, "List requests"),
            Endpoint("GET", "/requests/feed", self.follow, "Requests as they end", media_type="text/event-stream"),
            Endpoint("GET", "/requests/{call_id}", self.get, "Read a request", errors=(404,)),
            Endpoint("GET", "/usage", self.usage, "Sums"),
            Endpoint(
                "GET", "/export/requests.jsonl", self.export_requests, "All requests", media_type="application/jsonl"
            ),
            Endpoint("GET", "/export/usage.csv", self.export_usage, "Sums as a table", media_type="text/csv"),
        )

    async def list_all(
        self, wanted: Annotated[PastCallFilter, Depends()], cursor: Cursor = None, limit: Limit = 50
    ) -> Page[Call]:
        """The newest first. A page may have fewer than `limit`, or none, and `next` all the same."""
        place = place_of(cursor, int)
        before = None if place is None else place[0]
        page = await read(
            self._database, lambda connection: page_of_rows(connection, wanted.rows, before=before, limit=limit)
        )
        return Page(
            data=[call_of(row) for row in page.rows], next=None if page.before is None else cursor_of(page.before)
        )

    async def follow(
        self,
        wanted: Annotated[CallFilter, Depends()],
        last_event_id: Annotated[
            str | None, Header(description="Continues after this one, with at most 500 that have come since.")
        ] = None,
    ) -> Stream:
        """Server-sent events `request`, each with a request's id as its id, from all workers within two seconds.

        After a pause (`Last-Event-ID`) those of the last seconds before it may come again.
        """
        if last_event_id is not None and not is_row_id(last_event_id):
            raise InvalidRequest("Last-Event-ID must be the id of one of this feed's events.", param="Last-Event-ID")
        if wanted.rows.model == UNLISTED:
            raise InvalidRequest("The feed can't tell models that aren't listed from others.", param="model")
        await self._feed.begin()
        rows = self._feed.follow(None if last_event_id is None else int(last_event_id), wanted.rows)
        return Stream(_events(rows), "text/event-stream", {"x-accel-buffering": "no"})

    async def get(self, call_id: str) -> CallDetail:
        """By the ledger's id, or by the `X-Request-ID` of its answer: of several with that one, the newest."""

        def found(connection: Connection) -> dict[str, Any] | None:
            row = row_of(connection, int(call_id)) if is_row_id(call_id) else None
            return row or next(iter(rows_of_request(connection, call_id)), None)

        row = await read(self._database, found)
        if row is None:
            raise NotFound("There is no such request, or it is older than REQUESTS_KEPT_DAYS.", param="call_id")
        steps = [TimeStep.model_validate(step, from_attributes=True) for step in time_line(row)]
        return CallDetail(**call_of(row).model_dump(), time_line=steps, headers=known_headers(row))

    async def usage(
        self,
        span: Annotated[Span, Depends()],
        wanted: Annotated[SumsFilter, Depends()],
        by: Annotated[list[By] | None, Query(max_length=10, description="What sums are told apart by.")] = None,
        every: Annotated[
            Literal["hour", "day"] | None, Query(description="One sum for each; without it, one in all.")
        ] = None,
    ) -> Usage:
        """From sums that are kept for ever; of the last seven days if no time is given. Days are those of UTC."""
        since, until = span.rounded(DAY if every == "day" else HOUR)
        groups = [*([every] if every else []), *dict.fromkeys(by or ())]
        try:
            rows = await read(
                self._database,
                lambda connection: usage_by(
                    connection, *groups, since=since, until=until, wanted=wanted.calls, durations=True
                ),
            )
        except NoSuchSums as error:
            raise InvalidRequest(f"{str(error).capitalize()}.", param="every") from None
        return Usage(since=time_at(since), until=time_at(until), data=[sums_of(row, every) for row in rows])

    async def export_requests(self, wanted: Annotated[PastCallFilter, Depends()]) -> Stream:
        """A line of JSON each, the newest first."""
        first = await self._lines(wanted.rows, None)
        return Stream(self._all_lines(wanted.rows, first), "application/jsonl", _attachment("requests.jsonl"))

    async def export_usage(self, span: Annotated[Span, Depends()]) -> Stream:
        """By day, key and model."""
        since, until = span.rounded(DAY)
        rows = await read(
            self._database, lambda connection: usage_by(connection, "day", "key", "model", since=since, until=until)
        )
        return Stream(_csv(rows), "text/csv", _attachment("usage.csv"))

    async def _all_lines(self, wanted: RowFilter, part: tuple[bytes, int | None]) -> AsyncGenerator[bytes, None]:
        lines, before = part
        yield lines
        while before is not None:
            lines, before = await self._lines(wanted, before)
            yield lines

    async def _lines(self, wanted: RowFilter, before: int | None) -> tuple[bytes, int | None]:
        """A part of the export, and what the next one ends before."""
        page = await read(
            self._database,
            lambda connection: page_of_rows(connection, wanted, before=before, limit=_EXPORTED_AT_ONCE),
        )
        return b"".join([_line(row) + b"\n" for row in page.rows]), page.before


def call_of(row: Mapping[str, Any]) -> Call:
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


def sums_of(row: Mapping[str, Any], every: str | None) -> Sums:
    """A row of sums, as the API has it."""
    requests = row["requests"]
    return Sums(
        begins_at=None if every is None else time_at(row[every]),
        key=row.get("key"),
        project=row.get("project"),
        model=row.get("model"),
        provider=row.get("provider"),
        outcome=row.get("outcome"),
        requests=requests,
        tokens_in=row["tokens_in"],
        tokens_out=row["tokens_out"],
        tokens_cached=row["tokens_cached"],
        tokens_cache_written=row["tokens_cache_written"],
        **{unit: row[unit] for unit in UNITS},
        cost_usd=row["cost"] / 1e9,
        mean_milliseconds=row["milliseconds"] / requests if requests else None,
        p50_milliseconds=percentile(row, 0.5),
        p95_milliseconds=percentile(row, 0.95),
    )


async def _events(rows: AsyncGenerator[dict[str, Any] | None, None]) -> AsyncGenerator[bytes, None]:
    """Rows as server-sent events. Nothing to tell is a comment, so that the connection is seen to live."""
    async with aclosing(rows):
        yield b"retry: 2000\n\n"
        async for row in rows:
            if row is None:
                yield b": nothing new\n\n"
            else:
                yield b"id: %d\nevent: request\ndata: %s\n\n" % (row["id"], _line(row))


def _line(row: Mapping[str, Any]) -> bytes:
    return json_bytes(call_of(row).model_dump(mode="json"))


async def _csv(rows: Sequence[Mapping[str, Any]]) -> AsyncGenerator[bytes, None]:
    for begin in range(0, max(len(rows), 1), _EXPORTED_AT_ONCE):
        text = io.StringIO()
        writer = csv.writer(text)
        if begin == 0:
            writer.writerow(_CSV_COLUMNS)
        for row in rows[begin : begin + _EXPORTED_AT_ONCE]:
            told = {**row, "day": time_at(row["day"]).date().isoformat(), "cost_usd": f"{row['cost'] / 1e9:.6f}"}
            writer.writerow([cell(told[name]) for name in _CSV_COLUMNS])
        yield text.getvalue().encode()


def _attachment(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}"'}
