"""What models cost, from when on."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from app.storage import tables
from app.storage.rows import RequestRow

_PRICES = tables.prices


def set_prices(connection: Connection, rows: Iterable[tuple[str, int, int, int, int]]) -> int:
    """Set prices: model (or `provider/model`), since when (milliseconds), nano-dollars for a token in, out, cached."""
    count = 0
    for model, since, price_in, price_out, price_cached in rows:
        connection.execute(delete(_PRICES).where(_PRICES.c.model == model, _PRICES.c.since == since))
        connection.execute(
            insert(_PRICES).values(model=model, since=since, input=price_in, output=price_out, cached=price_cached)
        )
        count += 1
    return count


def list_prices(connection: Connection) -> list[dict[str, Any]]:
    """All prices, by model and time."""
    rows = connection.execute(select(_PRICES).order_by(_PRICES.c.model, _PRICES.c.since))
    return [dict(row) for row in rows.mappings()]


class Prices:
    """What models cost, as far as it is asked for."""

    def __init__(self, connection: Connection) -> None:
        rows = connection.execute(select(_PRICES).order_by(_PRICES.c.since.desc())).all()
        self._rows: dict[str, list[Row[Any]]] = {}
        for row in rows:
            self._rows.setdefault(row.model, []).append(row)

    def cost(self, row: RequestRow) -> int:
        """What a call cost, in nano-dollars; 0 where no price is known."""
        if not self._rows:
            return 0
        for name in (f"{row.provider}/{row.served}", row.served):
            for price in self._rows.get(name, ()):
                if price.since <= row.at:
                    fresh = row.tokens_in - row.tokens_cached
                    return int(fresh * price.input + row.tokens_cached * price.cached + row.tokens_out * price.output)
        return 0
