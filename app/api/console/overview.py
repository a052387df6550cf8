"""The overview, and the welcome of whoever comes first."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.api.console.charts import Bar, stacked
from app.api.console.rendering import Rendering
from app.api.console.services import ConsoleServices
from app.api.console.visitors import home_of
from app.api.logins import visitor_of
from app.storage.clock import now
from app.storage.database import Connection
from app.storage.keys import list_keys
from app.storage.request_pages import RowFilter, page_of_rows
from app.storage.rows import COMPLETED, OUTCOMES
from app.storage.usage import DAY, HOUR, UsageFilter, percentile, usage_by

_HOURS_SHOWN = 24
_MOST_SHOWN = 8


class OverviewPages:
    """See the module."""

    def __init__(self, services: ConsoleServices, rendering: Rendering) -> None:
        self._services = services.admin
        self._without_database = services.without_database
        self._rendering = rendering

    async def show(self, request: Request) -> Response:
        """What happened in the last day, against the one before; how the gateway is now."""
        visitor = visitor_of(request)
        if visitor is not None and visitor.key_id is not None:
            return RedirectResponse(f"{home_of(request)}/keys/{visitor.key_id}", HTTPStatus.SEE_OTHER)
        values = await self._services.database.report(_figures)
        state = self._services.state()
        return self._rendering.page(
            request,
            "overview",
            **values,
            upstreams=[(provider.name, provider.status()) for provider in self._services.registry.providers],
            database_fault=self._services.database.reason(),
            without_database=self._without_database,
            shared=all(state.get("kimi_limits_shared", {}).values()),
            waiting=sum(state.get("kimi_ledger_waiting", {}).values()),
            lost=sum(state.get("kimi_ledger_lost", {}).values()),
        )

    async def welcome(self, request: Request) -> Response:
        """How to begin."""

        def read(connection: Connection) -> dict[str, Any]:
            answered = page_of_rows(connection, RowFilter(outcome=COMPLETED), limit=1).rows
            return {
                "keys": [key for key in list_keys(connection) if "chat" in key.scopes],
                "answered": answered[0] if answered else None,
            }

        return self._rendering.page(request, "welcome", **await self._services.database.report(read))


def _figures(connection: Connection) -> dict[str, Any]:
    end = now()
    end += -end % HOUR
    begin = end - _HOURS_SHOWN * HOUR
    by_hour = usage_by(connection, "hour", "outcome", since=begin, until=end)
    today = _sums(connection, begin, end)
    before = _sums(connection, begin - DAY, end - DAY)
    names = {key.id: (f"{key.project}/{key.name}", key.id) for key in list_keys(connection, revoked=True)}
    by_key = usage_by(connection, "key", since=begin, until=end)
    return {
        "figures": [
            ("requests", today["requests"], before["requests"], "number"),
            ("tokens", today["tokens"], before["tokens"], "number"),
            ("failures", today["failures"], before["failures"], "share"),
            ("p95", today["p95"], before["p95"], "duration"),
        ],
        "hours": _bars(by_hour, begin),
        "rectangles": stacked(_bars(by_hour, begin)),
        "outcomes": OUTCOMES,
        "models": _largest(usage_by(connection, "model", since=begin, until=end)),
        "keys": [
            {
                **row,
                "name": names.get(row["key"], (row["key"], None))[0],
                "link": names.get(row["key"], (None, None))[1],
            }
            for row in _largest(by_key)
        ],
    }


def _sums(connection: Connection, begin: int, end: int) -> dict[str, Any]:
    by_outcome = usage_by(connection, "outcome", since=begin, until=end)
    (all_of_it,) = usage_by(connection, since=begin, until=end, durations=True)
    counts = {row["outcome"]: row["requests"] for row in by_outcome}
    requests = all_of_it["requests"]
    return {
        "requests": requests,
        "tokens": all_of_it["tokens_in"] + all_of_it["tokens_out"],
        "failures": counts.get("failed", 0) / requests if requests else None,
        "p95": percentile(all_of_it, 0.95),
    }


def _bars(rows: Sequence[Mapping[str, Any]], begin: int) -> list[Bar]:
    found = {(row["hour"], row["outcome"]): float(row["requests"]) for row in rows}
    return [
        Bar(str(hour), tuple([found.get((hour, outcome), 0.0) for outcome in OUTCOMES]))
        for hour in range(begin, begin + _HOURS_SHOWN * HOUR, HOUR)
    ]


def _largest(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(rows, key=lambda row: int(row["requests"]), reverse=True)[:_MOST_SHOWN]


def day_bars(connection: Connection, key_id: str, days: int) -> list[Bar]:
    """A key's requests of the last days."""
    end = now()
    end += -end % DAY
    begin = end - days * DAY
    rows = usage_by(connection, "day", since=begin, until=end, wanted=UsageFilter(key_id=key_id))
    found = {row["day"]: float(row["requests"]) for row in rows}
    return [Bar(str(day), (found.get(day, 0.0),)) for day in range(begin, end, DAY)]


class KeyDays(Struct, frozen=True):
    """What a key was used for in the last days.

    Args:
        bars: Its requests by day.
        requests, tokens: Of all these days.
    """

    bars: list[Bar]
    requests: int
    tokens: int


def days_of_keys(connection: Connection, days: int) -> dict[str, KeyDays]:
    """What each key was used for in the last days that was used at all."""
    end = now()
    end += -end % DAY
    begin = end - days * DAY
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for row in usage_by(connection, "key", "day", since=begin, until=end):
        found.setdefault(row["key"], {})[row["day"]] = row
    return {
        key: KeyDays(
            [Bar(str(day), (float(rows[day]["requests"]) if day in rows else 0.0,)) for day in range(begin, end, DAY)],
            sum(row["requests"] for row in rows.values()),
            sum(row["tokens_in"] + row["tokens_out"] for row in rows.values()),
        )
        for key, rows in found.items()
    }
