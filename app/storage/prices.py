"""What models cost, from when on."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, select

from app.storage import tables
from app.storage.audit import Actor, note_action
from app.storage.changes import note_change
from app.storage.database import Database, insert_into

_PRICES = tables.prices
# The subject of changes of prices.
PRICES_CHANGED = "prices"


def set_prices(database: Database, connection: Connection, rows: Iterable[tuple[str, int, int, int, int]]) -> int:
    """Set prices, and tell all workers.

    Args:
        rows: Model (or `provider/model`), since when (milliseconds), nano-dollars for a token in, out, cached.
    """
    names = [column.name for column in _PRICES.columns]
    given = [dict(zip(names, row, strict=True)) for row in rows]
    if given:
        # Of several for one model and time the last counts. All in one statement: a list may be long.
        prices = {(price["model"], price["since"]): price for price in given}
        statement = insert_into(_PRICES, database.backend)
        statement = statement.on_conflict_do_update(
            index_elements=list(_PRICES.primary_key),
            set_={name: statement.excluded[name] for name in ("input", "output", "cached")},
        )
        connection.execute(statement, list(prices.values()))
    note_change(database, connection, PRICES_CHANGED)
    return len(given)


def change_prices(
    database: Database, connection: Connection, actor: Actor, rows: Sequence[tuple[str, int, int, int, int]]
) -> None:
    """Set prices, as `set_prices` does, and write down who has changed which."""
    before = list_prices(connection)
    set_prices(database, connection, rows)
    after = list_prices(connection)
    if before != after:
        note_action(
            connection,
            actor,
            "prices.set",
            "prices",
            before={"data": [price for price in before if price not in after]},
            after={"data": [price for price in after if price not in before]},
        )


def list_prices(connection: Connection) -> list[dict[str, Any]]:
    """All prices, by model and time."""
    rows = connection.execute(select(_PRICES).order_by(_PRICES.c.model, _PRICES.c.since))
    return [dict(row) for row in rows.mappings()]


class Prices:
    """What models cost, and cost before.

    Args:
        rows: The newest first.
    """

    def __init__(self, rows: Iterable[Row[Any]]) -> None:
        self._rows: dict[str, list[Row[Any]]] = {}
        for row in rows:
            self._rows.setdefault(row.model, []).append(row)

    @classmethod
    def read(cls, connection: Connection) -> "Prices":
        """All prices that there are."""
        return cls(connection.execute(select(_PRICES).order_by(_PRICES.c.since.desc())).all())

    def cost(self, provider: str, model: str, *, at: int, tokens_in: int, cached: int, tokens_out: int) -> int:
        """What tokens cost, in nano-dollars; 0 where no price is known.

        Args:
            at: When they were used, in milliseconds since the epoch.
        """
        for name in (f"{provider}/{model}", model) if self._rows else ():
            for price in self._rows.get(name, ()):
                if price.since <= at:
                    fresh = tokens_in - cached
                    return int(fresh * price.input + cached * price.cached + tokens_out * price.output)
        return 0
