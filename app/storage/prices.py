"""What models cost, from when on."""

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict
from sqlalchemy import Connection, Row, select

from app.domain.units import Unit
from app.storage import tables
from app.storage.audit import Actor, note_action
from app.storage.changes import note_change
from app.storage.database import Database, insert_into

_PRICES = tables.prices
# The subject of changes of prices.
PRICES_CHANGED = "prices"


class Price(Struct, frozen=True):
    """What a model costs from a time on, in nano-dollars.

    Args:
        model: Its name, or `provider/name`.
        since: In milliseconds since the epoch.
        input, output, cached: A token that is read, written, read from a cache.
        image, audio_second, character, search: One of what is counted besides tokens.
        cache_write: A token that is written into a cache; None for the same as `input`.
    """

    model: str
    since: int
    input: int
    output: int
    cached: int
    image: int = 0
    audio_second: int = 0
    character: int = 0
    search: int = 0
    cache_write: int | None = None


def set_prices(database: Database, connection: Connection, rows: Iterable[Price]) -> int:
    """Set prices, and tell all workers."""
    note_change(database, connection, PRICES_CHANGED)
    given = [asdict(row) for row in rows]
    if given:
        # Of several for one model and time the last counts. All in one statement: a list may be long.
        prices = {(price["model"], price["since"]): price for price in given}
        statement = insert_into(_PRICES, database.backend)
        statement = statement.on_conflict_do_update(
            index_elements=list(_PRICES.primary_key),
            set_={name: statement.excluded[name] for name in Price.__struct_fields__[2:]},
        )
        connection.execute(statement, list(prices.values()))
    return len(given)


def change_prices(database: Database, connection: Connection, actor: Actor, rows: Sequence[Price]) -> None:
    """Set prices, as `set_prices` does, and write down who has changed which."""
    # Else who changes the same meanwhile would be missing in what is written down.
    database.hold_back_writers(connection)
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

    @property
    def is_empty(self) -> bool:
        """Whether nothing has a price."""
        return not self._rows

    def cost(
        self,
        provider: str,
        model: str,
        *,
        at: int,
        tokens_in: int,
        cached: int,
        tokens_out: int,
        cache_written: int = 0,
        unit: Unit | None = None,
        amount: int = 0,
    ) -> int:
        """What was used costs, in nano-dollars; 0 where no price is known.

        Args:
            at: When it was used, in milliseconds since the epoch.
            tokens_in: All that were read, those among them that came from a cache or were written into one.
            unit: Of what was used besides tokens, and how much of it.
        """
        for name in (f"{provider}/{model}", model) if self._rows else ():
            for price in self._rows.get(name, ()):
                if price.since <= at:
                    cost = (tokens_in - cached) * price.input + cached * price.cached + tokens_out * price.output
                    if cache_written and price.cache_write is not None:
                        cost += cache_written * (price.cache_write - price.input)
                    if unit is not None:
                        cost += amount * getattr(price, tables.PRICES_OF[unit])
                    return int(cost)
        return 0
