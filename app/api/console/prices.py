"""Prices: what models cost, and from which day on."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.api.console.rendering import Rendering
from app.api.console.services import ConsoleServices
from app.api.console.visitors import actor_of, form_of, home_of
from app.domain.durations import FIRST_YEAR, LAST_YEAR
from app.storage.prices import Price, change_prices, list_prices

# A form has dollars for a million tokens or characters, and for one of all else; the database has nano-dollars for one.
_NANO, _NANO_FOR_ONE = 1000, 1_000_000_000
# The database's names.
_OF_TOKENS = ("input", "output", "cached", "cache_write")
_FURTHER = ("image", "audio_second", "character", "search")
_FOR_ONE = frozenset({"image", "audio_second", "search"})
_MOST_DOLLARS = 1_000_000
_LONGEST_NAME = 200


class PricePages:
    """See the module."""

    def __init__(self, services: ConsoleServices, rendering: Rendering) -> None:
        self._database = services.admin.database
        self._registry = services.admin.registry
        self._rendering = rendering

    async def show(self, request: Request) -> Response:
        """All prices, by model, the newest first; and a form for one more."""
        return await self._shown(request)

    async def set(self, request: Request) -> Response:
        """Set a price. One of the same model and day is replaced, others stay."""
        form, actor = await form_of(request), actor_of(request)
        try:
            row = _row(form)
        except ValueError as fault:
            return await self._shown(request, values=form, fault=str(fault))
        await self._database.change(lambda connection: change_prices(self._database, connection, actor, [row]))
        return RedirectResponse(f"{home_of(request)}/prices", HTTPStatus.SEE_OTHER)

    async def _shown(self, request: Request, *, values: Mapping[str, str] | None = None, fault: str = "") -> Response:
        found = await self._database.report(list_prices)
        names = [*_OF_TOKENS, *(name for name in _FURTHER if any(row[name] for row in found))]
        rows: list[dict[str, Any]] = [{**row, **{name: _dollars(row[name], name) for name in names}} for row in found]
        shown = values or {"model": request.query_params.get("model", "")[:_LONGEST_NAME]}
        return self._rendering.page(
            request,
            "prices",
            status=400 if fault else 200,
            rows=sorted(rows, key=lambda row: (row["model"], -row["since"])),
            names=names,
            of_tokens=_OF_TOKENS,
            further=_FURTHER,
            models=sorted({spec.id for provider in self._registry.providers for spec in provider.models}),
            values=shown,
            has_further=any(shown.get(name) for name in _FURTHER),
            today=datetime.now(UTC).date().isoformat(),
            fault=fault,
        )


def _row(form: Mapping[str, str]) -> Price:
    """A price as it is stored.

    Raises:
        ValueError: A field can't be read.
    """
    model = form.get("model", "").strip()
    if not 0 < len(model) <= _LONGEST_NAME or not model.isprintable():
        raise ValueError(f"A model's name has 1 to {_LONGEST_NAME} characters.")
    since = form.get("since", "").strip()
    try:
        day = datetime.strptime(since, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        day = None
    if day is None or not FIRST_YEAR <= day.year <= LAST_YEAR:
        raise ValueError(f"{since[:20]!r} is not a date; write it like 2027-01-31.")
    read, written = _nano(form, "input"), _nano(form, "output")
    given = {name: _nano(form, name) for name in (*_OF_TOKENS[2:], *_FURTHER) if form.get(name, "").strip()}
    return Price(model, round(day.timestamp() * 1000), read, written, **{"cached": read, **given})


def _nano(form: Mapping[str, str], name: str) -> int:
    text = form.get(name, "").strip()
    try:
        dollars = float(text.removeprefix("$"))
    except ValueError:
        dollars = math.nan
    if not 0 <= dollars <= _MOST_DOLLARS:
        raise ValueError(f"{text[:20]!r} is not a price; write dollars, such as 0.6.")
    return round(dollars * _unit(name))


def _dollars(nano: int | None, name: str) -> str:
    """A price as the page shows it; empty if there is none."""
    if nano is None or (not nano and name in _FURTHER):
        return ""
    return "$" + f"{nano / _unit(name):,.9f}".rstrip("0").rstrip(".")


def _unit(name: str) -> int:
    return _NANO_FOR_ONE if name in _FOR_ONE else _NANO
