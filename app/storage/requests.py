"""The ledger's rows and their sums. What a journal holds is carried over exactly once.

A journal's position is kept in the transaction that writes its rows: whatever happens in between, the next attempt
begins where the last one that counted has ended.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from contextlib import closing
from functools import cache
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Row, Select, delete, func, insert, select, text, update
from sqlalchemy.exc import DataError, IntegrityError

from app.storage import tables
from app.storage.database import Database, insert_into
from app.storage.keys import now

_REQUESTS, _USAGE, _JOURNALS, _PRICES = tables.requests, tables.usage, tables.journals, tables.prices
_HOUR, _DAY = 3_600_000, 86_400_000
_NUMBER_BITS, _COUNT_BITS = 10, 12
_ID_BITS = _NUMBER_BITS + _COUNT_BITS
_COUNT_MASK = (1 << _COUNT_BITS) - 1
_SUMS = ("requests", "tokens_in", "tokens_out", "tokens_cached", "cost", "milliseconds")
_SUM_COLUMNS = (*_SUMS, *(f"m{place}" for place in range(len(tables.DURATIONS) + 1)))
# What PostgreSQL needs for a row and its places in the indexes.
_ROW_BYTES = 250
_UNLISTED = "unlisted"
_NAMES = tuple(_REQUESTS.c.keys())
_SQLITE_INSERT = f"INSERT INTO request VALUES ({', '.join('?' * len(_NAMES))})"  # noqa: S608 - no value is in it
_POSTGRESQL_INSERT = "INSERT INTO request SELECT * FROM json_populate_recordset(NULL::request, %s)"


class RequestRow(Struct, frozen=True, array_like=True, gc=False):
    """One call, as a journal's line has it.

    Args:
        at: When it began, in milliseconds since the epoch.
        count: Tells apart the calls of one millisecond: 12 bits of a counter.
        model: The name that was asked for.
        served: The model that it stood for.
        listed: Whether that is one of a bounded number of names.
        outcome: `completed`, `failed`, `abandoned` or `refused`.
        estimated: Whether the tokens are the gateway's estimate.
        first_milliseconds: Until the first word; None if there was none.
        session: A digest.
        end_user: The request's `user`.
        passed_over: Who could not answer, as `provider=reason`, separated by commas.
    """

    at: int
    count: int
    request_id: str
    key_id: str
    project: str
    model: str
    served: str
    listed: bool
    provider: str
    dialect: str
    outcome: str
    error: str | None
    status: int
    streamed: bool
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    estimated: bool
    milliseconds: int
    first_milliseconds: int | None
    session: str | None
    end_user: str | None
    dropped: int
    passed_over: str | None


def journal_position(connection: Connection, journal: str) -> int | None:
    """How far a journal has been carried over, in bytes; None if the database doesn't know it."""
    return connection.execute(select(_JOURNALS.c.position).where(_JOURNALS.c.id == journal)).scalar()


def carry(
    database: Database, connection: Connection, journal: str, begin: int, rows: Sequence[RequestRow], end: int
) -> int:
    """Write a journal's rows, add them to the sums, and move its position. Returns how many don't fit in.

    Args:
        begin: The position that the rows were read from.
        end: The position behind them.

    Raises:
        RuntimeError: The journal's position is another one: somebody else carries it.
    """
    number = _number_of(database, connection, journal)
    moved = connection.execute(
        update(_JOURNALS).where(_JOURNALS.c.id == journal, _JOURNALS.c.position == begin).values(position=end, at=now())
    )
    if moved.rowcount != 1:
        raise RuntimeError(f"the journal {journal} is no longer at {begin}")
    return _write_fitting(database, connection, number, rows)


def _write_fitting(database: Database, connection: Connection, number: int, rows: Sequence[RequestRow]) -> int:
    """Write the rows that the database takes, and say how many it doesn't: one must not keep out all others."""
    try:
        with connection.begin_nested():
            write_rows(database, connection, number, rows)
    except (DataError, OverflowError):
        if len(rows) == 1:
            return 1
        half = len(rows) // 2
        return sum(_write_fitting(database, connection, number, part) for part in (rows[:half], rows[half:]))
    return 0


def write_rows(database: Database, connection: Connection, number: int, rows: Sequence[RequestRow]) -> None:
    """Write rows that belong to the journal of this number, and add them to the sums."""
    if not rows:
        return
    prices = _Prices(connection)
    costs = [prices.cost(row) for row in rows]
    values = [_values(row, number, cost) for row, cost in zip(rows, costs, strict=True)]
    try:
        with connection.begin_nested():
            _insert(database, connection, values)
    except IntegrityError:  # the clock was set back, and the ids of that time are taken
        for row_id, *rest in values:
            _insert(database, connection, [(_free_id(connection, row_id), *rest)])
    _add_up(database, connection, rows, costs)


def close_journal(connection: Connection, journal: str) -> None:
    """Give a journal's number back, when all of it has been carried over. Its row stays, until the file is gone."""
    connection.execute(update(_JOURNALS).where(_JOURNALS.c.id == journal).values(number=None, at=now()))


def delete_journal(connection: Connection, journal: str) -> None:
    """Forget a journal that nobody can come back for."""
    connection.execute(delete(_JOURNALS).where(_JOURNALS.c.id == journal))


def forget_journals(connection: Connection, before: int) -> None:
    """Delete the rows of journals that were closed before a time."""
    connection.execute(delete(_JOURNALS).where(_JOURNALS.c.number.is_(None), _JOURNALS.c.at < before))


def id_at(milliseconds: int) -> int:
    """The lowest id of a row from a time on, in milliseconds since the epoch."""
    return milliseconds << _ID_BITS


def time_of(row_id: int) -> int:
    """When the call of a row began, in milliseconds since the epoch."""
    return row_id >> _ID_BITS


def rows_before(
    connection: Connection,
    *,
    before: int | None = None,
    key_id: str | None = None,
    trouble: bool = False,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """A page of rows, the newest first.

    Args:
        before: The id that the page ends before; None for the newest.
        key_id: Only this key's.
        trouble: Only calls that didn't complete.
    """
    query = _filtered(select(_REQUESTS).order_by(_REQUESTS.c.id.desc()).limit(limit), key_id, trouble=trouble)
    return _dicts(connection.execute(query if before is None else query.where(_REQUESTS.c.id < before)))


def rows_after(
    connection: Connection, after: int, *, key_id: str | None = None, trouble: bool = False, limit: int = 500
) -> list[dict[str, Any]]:
    """The rows that came after an id, the oldest first."""
    query = select(_REQUESTS).where(_REQUESTS.c.id > after).order_by(_REQUESTS.c.id).limit(limit)
    return _dicts(connection.execute(_filtered(query, key_id, trouble=trouble)))


def usage_by(
    connection: Connection, by: str, *, since: int, until: int, key_id: str | None = None
) -> list[dict[str, Any]]:
    """Sums of a time by `key`, `model`, `provider`, `outcome`, `day` or `hour`, from the hours that begin in it.

    Args:
        since, until: Milliseconds since the epoch; from the first on, before the second.
        key_id: Only this key's.

    Raises:
        KeyError: There are no sums by that.
    """
    day = _USAGE.c.start - _USAGE.c.start % _DAY
    column = {"day": day, "hour": _USAGE.c.start, "key": _USAGE.c.key_id}.get(by)
    if column is None:
        column = {name: _USAGE.c[name] for name in ("model", "provider", "outcome")}[by]
    grain = "day" if since % _DAY == 0 and until % _DAY == 0 and by != "hour" else "hour"
    query = (
        select(column.label(by), *(func.sum(_USAGE.c[name]).label(name) for name in _SUM_COLUMNS))
        .where(_USAGE.c.grain == grain, _USAGE.c.start >= since, _USAGE.c.start < until)
        .group_by(column)
        .order_by(column)
    )
    if key_id is not None:
        query = query.where(_USAGE.c.key_id == key_id)
    elif by == "key":
        query = query.where(_USAGE.c.key_id != "")
    else:
        query = query.where(_USAGE.c.key_id == "")
    return [{name: _plain(value) for name, value in row._mapping.items()} for row in connection.execute(query)]  # noqa: SLF001 - SQLAlchemy's public name


def usage_of(connection: Connection, key_id: str, since: int) -> dict[str, int]:
    """A key's sums from a day on, in milliseconds since the epoch."""
    row = connection.execute(
        select(*(func.coalesce(func.sum(_USAGE.c[name]), 0).label(name) for name in _SUMS)).where(
            _USAGE.c.grain == "day", _USAGE.c.key_id == key_id, _USAGE.c.start >= since
        )
    ).one()
    return {name: int(value) for name, value in row._mapping.items()}  # noqa: SLF001 - SQLAlchemy's public name


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
    return _dicts(connection.execute(select(_PRICES).order_by(_PRICES.c.model, _PRICES.c.since)))


def delete_rows_before(database: Database, connection: Connection, row_id: int, limit: int) -> int:
    """Delete the oldest rows before an id, at most `limit`, give their room back, and say how many they were."""
    oldest = select(_REQUESTS.c.id).where(_REQUESTS.c.id < row_id).order_by(_REQUESTS.c.id).limit(limit)
    count = connection.execute(delete(_REQUESTS).where(_REQUESTS.c.id.in_(oldest))).rowcount
    if count and database.is_sqlite:
        with closing(connection.connection.cursor()) as cursor:
            # Each step gives back one page, and SQLAlchemy would take only one.
            cursor.execute("PRAGMA incremental_vacuum(2000)")
            cursor.fetchall()
    return count


def size_in_bytes(database: Database, connection: Connection) -> int:
    """How much the rows take, about. What a deletion leaves free doesn't count."""
    if database.is_sqlite:
        pages, free, size = (
            int(connection.exec_driver_sql(f"PRAGMA {name}").scalar() or 0)
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size
    rows = connection.execute(text("SELECT reltuples FROM pg_class WHERE oid = 'request'::regclass")).scalar()
    return max(int(rows or 0), 0) * _ROW_BYTES


def _number_of(database: Database, connection: Connection, journal: str) -> int:
    """The journal's number, claimed if it has none."""
    row = connection.execute(select(_JOURNALS).where(_JOURNALS.c.id == journal)).first()
    if row is not None and row.number is not None:
        return int(row.number)
    database.hold_back_writers(connection)
    taken = set(connection.execute(select(_JOURNALS.c.number).where(_JOURNALS.c.number.is_not(None))).scalars())
    number = next((number for number in range(1 << _NUMBER_BITS) if number not in taken), None)
    if number is None:  # all belong to journals that nobody came back for
        oldest = connection.execute(
            select(_JOURNALS.c.id, _JOURNALS.c.number)
            .where(_JOURNALS.c.number.is_not(None))
            .order_by(_JOURNALS.c.at)
            .limit(1)
        ).one()
        connection.execute(update(_JOURNALS).where(_JOURNALS.c.id == oldest.id).values(number=None))
        number = int(oldest.number)
    if row is None:
        connection.execute(insert(_JOURNALS).values(id=journal, number=number, position=0, at=now()))
    else:
        connection.execute(update(_JOURNALS).where(_JOURNALS.c.id == journal).values(number=number))
    return number


def _values(row: RequestRow, number: int, cost: int) -> tuple[Any, ...]:
    """The row in the order of the table's columns."""
    return (
        (row.at << _ID_BITS) | (number << _COUNT_BITS) | (row.count & _COUNT_MASK),
        row.request_id,
        row.key_id,
        row.project,
        row.model,
        None if row.served == row.model else row.served,
        row.provider,
        row.dialect,
        row.outcome,
        row.error,
        row.status,
        int(row.streamed),
        row.tokens_in,
        row.tokens_out,
        row.tokens_cached,
        int(row.estimated),
        cost,
        row.milliseconds,
        row.first_milliseconds,
        row.session,
        row.end_user,
        row.dropped,
        row.passed_over,
    )


def _insert(database: Database, connection: Connection, values: list[tuple[Any, ...]]) -> None:
    # Past SQLAlchemy's own way for many rows, which takes longer than everything else that is done with them.
    if database.is_sqlite:
        connection.exec_driver_sql(_SQLITE_INSERT, values)
    else:
        rows = [dict(zip(_NAMES, value, strict=True)) for value in values]
        connection.exec_driver_sql(_POSTGRESQL_INSERT, (msgspec.json.encode(rows).decode(),))


def _free_id(connection: Connection, row_id: int) -> int:
    while connection.execute(select(_REQUESTS.c.id).where(_REQUESTS.c.id == row_id)).scalar() is not None:
        row_id += 1
    return row_id


class _Prices:
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


def _add_up(database: Database, connection: Connection, rows: Sequence[RequestRow], costs: Sequence[int]) -> None:
    hours: dict[tuple[Any, ...], list[int]] = {}
    for row, cost in zip(rows, costs, strict=True):
        model = row.served if row.listed else _UNLISTED
        of = (row.at - row.at % _HOUR, row.key_id, model, row.provider, row.outcome)
        line = hours.get(of)
        if line is None:
            line = hours[of] = [0] * len(_SUM_COLUMNS)
        line[0] += 1
        line[1] += row.tokens_in
        line[2] += row.tokens_out
        line[3] += row.tokens_cached
        line[4] += cost
        line[5] += row.milliseconds
        line[len(_SUMS) + bisect_left(tables.DURATIONS, row.milliseconds)] += 1
    sums: dict[tuple[Any, ...], list[int]] = {}
    for (hour, key, model, provider, outcome), line in hours.items():
        day = hour - hour % _DAY
        for grain, start, whose in (("hour", hour, ""), ("hour", hour, key), ("day", day, ""), ("day", day, key)):
            total = (grain, whose, start, model, provider, outcome)
            sums[total] = [old + new for old, new in zip(sums.get(total, [0] * len(line)), line, strict=True)]
    keys = [column.name for column in _USAGE.primary_key]
    # In one order everywhere, so that two workers never wait for each other crosswise.
    values = [dict(zip((*keys, *_SUM_COLUMNS), (*of, *sums[of]), strict=True)) for of in sorted(sums)]
    connection.execute(_adding(database.backend), values)


@cache
def _adding(backend: str) -> Any:
    """The statement that adds sums to those that are there."""
    statement = insert_into(_USAGE, backend)
    return statement.on_conflict_do_update(
        index_elements=list(_USAGE.primary_key),
        set_={name: _USAGE.c[name] + statement.excluded[name] for name in _SUM_COLUMNS},
    )


def _filtered(query: Select[Any], key_id: str | None, *, trouble: bool) -> Select[Any]:
    if key_id is not None:
        query = query.where(_REQUESTS.c.key_id == key_id)
    # As the index has it.
    return query.where(text("outcome <> 'completed'")) if trouble else query


def _dicts(rows: Iterable[Row[Any]]) -> list[dict[str, Any]]:
    return [dict(row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's public name


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str) else int(value)  # PostgreSQL's sums are decimals
