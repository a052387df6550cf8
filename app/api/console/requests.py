"""Requests: the log, live, and one with all that is known of it."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.api.admin.common import Stream, cursor_of, is_row_id, place_of
from app.api.admin.request_detail import known_headers, time_line
from app.api.console.rendering import Rendering
from app.api.console.services import ConsoleServices
from app.api.console.visitors import Refused, home_of
from app.api.logins import visitor_of
from app.domain.conversation import DIGEST_PREFIX, SessionKey
from app.domain.errors import InvalidRequest
from app.domain.json import json_bytes
from app.storage.clock import now
from app.storage.database import Connection
from app.storage.keys import list_keys
from app.storage.recordings import RecordedText, has_texts
from app.storage.request_pages import RowFilter, page_of_rows, row_of, rows_of_request
from app.storage.rows import OUTCOMES, time_of
from app.storage.usage import DAY, HOUR

_SPANS = {"1h": HOUR, "24h": DAY, "7d": 7 * DAY, "30d": 30 * DAY}
_IN_PAGE = 50
_FEED_SECONDS = 60.0
# The colours of a time line's steps.
_MARKS = {"limits": 1, "session": 2, "queue": 3, "nonce": 5, "upstream": 0, "answer": 4, "rest": 4}


class RequestPages:
    """See the module."""

    def __init__(self, services: ConsoleServices, rendering: Rendering) -> None:
        self._services = services.admin
        self._rendering = rendering
        self._feed = services.admin.feed

    async def show(self, request: Request) -> Response:
        """A page of the log; the filters are in its address."""
        words = request.query_params.get("q", "").strip()[:200]
        if words and (called := await self._called(request, words)):
            return RedirectResponse(f"{home_of(request)}/requests/{called}", HTTPStatus.SEE_OTHER)
        wanted, chosen = _filter(request)
        try:
            place = place_of(request.query_params.get("cursor"), int)
        except InvalidRequest:
            place = None
        before = None if place is None else place[0]

        def read(connection: Connection) -> dict[str, Any]:
            page = page_of_rows(connection, wanted, before=before, limit=_IN_PAGE)
            names = _names(connection)
            return {
                "rows": [_shown_row(row, names) for row in page.rows],
                "older": None if page.before is None else cursor_of(page.before),
                "keys": sorted((name, key_id) for key_id, name in names.items()),
            }

        values = await self._services.database.report(read)
        models = sorted({spec.id for provider in self._services.registry.providers for spec in provider.models})
        return self._rendering.page(
            request,
            "requests",
            **values,
            chosen=chosen,
            query=_query(chosen),
            models=models,
            upstreams=sorted(provider.name for provider in self._services.registry.providers),
            outcomes=OUTCOMES,
            spans=list(_SPANS),
            is_newest=before is None,
            is_filtered=any(value for name, value in chosen.items() if name != "key" or not _is_holder(request)),
        )

    async def _called(self, request: Request, words: str) -> int | None:
        """The request that has some words as its id: of several, the newest that the visitor may see."""
        visitor = visitor_of(request)
        only = None if visitor is None else visitor.key_id

        def read(connection: Connection) -> list[dict[str, Any]]:
            row = row_of(connection, int(words)) if is_row_id(words) else None
            return rows_of_request(connection, words) if row is None else [row]

        rows = await self._services.database.report(read)
        return next((row["id"] for row in rows if only in (None, row["key_id"])), None)

    async def detail(self, request: Request) -> Response:
        """One request."""
        call_id = request.path_params["call_id"]
        if not is_row_id(str(call_id)):
            raise Refused(HTTPStatus.NOT_FOUND, "missing")
        row = await self._services.database.report(lambda connection: shown_request(connection, call_id))
        visitor = visitor_of(request)
        only = None if visitor is None else visitor.key_id
        if row is None or only not in (None, row["key_id"]):
            raise Refused(HTTPStatus.NOT_FOUND, "missing")
        return request_page(self._rendering, request, row)

    async def feed(self, request: Request) -> Response:
        """Rows of the log as they come, as server-sent events."""
        wanted, _ = _filter(request)
        # The header is a browser's that comes back by itself; ours has to ask anew after a 503.
        last = request.headers.get("last-event-id") or request.query_params.get("last", "")
        names = await self._services.database.report(_names)
        await self._feed.begin()
        rows = self._feed.follow(int(last) if is_row_id(last) else None, wanted)
        return Stream(_events(rows, names), "text/event-stream", {"x-accel-buffering": "no"})


def shown_request(connection: Connection, call_id: int) -> dict[str, Any] | None:
    """A request as its page shows it; None if there is none."""
    row = row_of(connection, call_id)
    if row is None:
        return None
    return _shown_row(row, _names(connection)) | {"is_recorded": has_texts(connection, row)}


def request_page(
    rendering: Rendering,
    request: Request,
    row: dict[str, Any],
    texts: Sequence[RecordedText] | None = None,
    *,
    not_again: bool = False,
) -> Response:
    """The page of a request; with its texts, if they are to be shown.

    Args:
        not_again: Whether it was to be asked again, and can't be.
    """
    return rendering.page(
        request,
        "request",
        status=400 if not_again else 200,
        texts=texts,
        not_again=not_again,
        row=row,
        steps=time_line(row),
        headers=known_headers(row),
        marks=_MARKS,
    )


async def _events(
    rows: AsyncGenerator[dict[str, Any] | None, None], names: dict[str, str]
) -> AsyncGenerator[bytes, None]:
    yield b"retry: 2000\n\n"
    clock = asyncio.get_running_loop().time
    end = clock() + _FEED_SECONDS
    async with aclosing(rows):
        async for row in rows:
            if clock() > end:
                # The browser asks again, from its last row on: whoever may see nothing any more doesn't get further.
                return
            if row is None:
                yield b": nothing new\n\n"
            else:
                yield b"id: %d\ndata: %s\n\n" % (row["id"], json_bytes(_shown_row(row, names) | {"id": str(row["id"])}))


def _filter(request: Request) -> tuple[RowFilter, dict[str, str]]:
    """What is looked for, and how it was chosen. A key's holder sees only what is theirs."""
    names = ("span", "key", "model", "provider", "outcome", "error", "trouble", "session")
    chosen = {name: request.query_params.get(name, "")[:200] for name in names}
    visitor = visitor_of(request)
    if visitor is not None and visitor.key_id is not None:
        chosen["key"] = visitor.key_id
    span = _SPANS.get(chosen["span"])
    if span is None:
        chosen["span"] = ""
    # What is looked for is an id; if it is no request's, it may be a session's.
    chosen["session"] = request.query_params.get("q", "").strip()[:200] or chosen["session"]
    if chosen["outcome"] not in OUTCOMES:
        chosen["outcome"] = ""
    wanted = RowFilter(
        key_id=chosen["key"] or None,
        model=chosen["model"] or None,
        provider=chosen["provider"] or None,
        outcome=chosen["outcome"] or None,
        error=chosen["error"] or None,
        trouble=bool(chosen["trouble"]),
        since=None if span is None else now() - span,
        session=_session(chosen["session"], chosen["key"]),
    )
    return wanted, chosen


def _is_holder(request: Request) -> bool:
    visitor = visitor_of(request)
    return visitor is not None and visitor.key_id is not None


def _session(words: str, key_id: str) -> str | None:
    """The digest of a session: given as such, or by the id that the client of a key has given it."""
    if not words or words.startswith(DIGEST_PREFIX) or not key_id:
        return words or None
    return SessionKey(key_id, words).digest


def _query(chosen: dict[str, str]) -> str:
    return urlencode({name: value for name, value in chosen.items() if value})


def _names(connection: Connection) -> dict[str, str]:
    return {key.id: f"{key.project}/{key.name}" for key in list_keys(connection, revoked=True)}


def _passed(row: dict[str, Any]) -> list[tuple[str, str]]:
    """The upstreams that didn't answer, with their reasons, but for the one whose error is the request's own."""
    parts = (part.partition("=") for part in (row["passed_over"] or "").split(",") if part)
    return [(name, reason) for name, _, reason in parts if (name, reason) != (row["provider"], row["error"])]


def _shown_row(row: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """A row as pages show it."""
    return {
        **row,
        "at": time_of(row["id"]),
        "key_name": names.get(row["key_id"], row["key_id"]),
        "passed": _passed(row),
    }
