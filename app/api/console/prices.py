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
from app.storage.prices import change_prices, list_prices

# As the admin API has them: dollars for a million tokens; the database has nano-dollars for one.
_NANO_IN_DOLLARS, _MOST_DOLLARS = 1000, 1_000_000
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
        await self._database.run(lambda connection: change_prices(self._database, connection, actor, [row]))
        return RedirectResponse(f"{home_of(request)}/prices", HTTPStatus.SEE_OTHER)

    async def _shown(self, request: Request, *, values: Mapping[str, str] | None = None, fault: str = "") -> Response:
        found = await self._database.report(list_prices)
        rows: list[dict[str, Any]] = [
            {**row, **{name: _dollars(row[name]) for name in ("input", "output", "cached")}} for row in found
        ]
        return self._rendering.page(
            request,
            "prices",
            status=400 if fault else 200,
            rows=sorted(rows, key=lambda row: (row["model"], -row["since"])),
            models=sorted({spec.id for provider in self._registry.providers for spec in provider.models}),
            values=values or {"model": request.query_params.get("model", "")[:_LONGEST_NAME]},
            today=datetime.now(UTC).date().isoformat(),
            fault=fault,
        )


def _row(form: Mapping[str, str]) -> tuple[str, int, int, int, int]:
    """A price as it is stored.

    Raises:
        ValueError: A field can't be read.
    """
    model = form.get("model", "").strip()
    if not 0 < len(model) <= _LONGEST_NAME:
        raise ValueError(f"A model's name has 1 to {_LONGEST_NAME} characters.")
    since = form.get("since", "").strip()
    try:
        day = datetime.strptime(since, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(f"{since[:20]!r} is not a date; write it like 2027-01-31.") from None
    read, written = _nano(form.get("input", "")), _nano(form.get("output", ""))
    cached = _nano(form["cached"]) if form.get("cached", "").strip() else read
    return model, round(day.timestamp() * 1000), read, written, cached


def _nano(text: str) -> int:
    try:
        dollars = float(text.strip().removeprefix("$"))
    except ValueError:
        dollars = math.nan
    if not 0 <= dollars <= _MOST_DOLLARS:
        raise ValueError(f"{text[:20]!r} is not a price; write dollars for a million tokens, such as 0.6.")
    return round(dollars * _NANO_IN_DOLLARS)


def _dollars(nano: int) -> str:
    return "$" + f"{nano / _NANO_IN_DOLLARS:,.3f}".rstrip("0").rstrip(".")
