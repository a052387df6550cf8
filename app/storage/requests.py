"""The ledger's rows: what a journal holds is carried over exactly once, and the oldest rows go.

A journal's position is kept in the transaction that writes its rows: whatever happens in between, the next attempt
begins where the last one that counted has ended.
"""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from itertools import compress, repeat
from operator import is_not
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, text, update
from sqlalchemy.exc import DataError, IntegrityError

from app.domain.units import unit_of
from app.storage import tables
from app.storage.clock import now
from app.storage.database import Database
from app.storage.names import numbers_of
from app.storage.prices import Prices
from app.storage.rows import NUMBER_BITS, RequestRow, id_at, names_in, time_of, values_of
from app.storage.spent import add_spent
from app.storage.usage import HOUR, add_up, calls_since

_REQUESTS, _JOURNALS = tables.requests, tables.journals
UTC = ZoneInfo("UTC")
# What PostgreSQL needs for a row beside its columns: its place in its page, and in the indexes.
_BESIDE_COLUMNS = 78
_ROWS_WEIGHED = 3000
# What they take if the pages that were looked at have none.
_USUAL_COLUMNS = 130
# At once; more than what the rows of one deletion leave free.
_PAGES_GIVEN_BACK = 500
_NAMES = tuple(_REQUESTS.c.keys())
# By name: a newer gateway may have added columns already, while this one still writes.
COLUMNS = ", ".join(_NAMES)
_POSTGRESQL_INSERT = f"INSERT INTO request ({COLUMNS}) SELECT {COLUMNS} FROM json_populate_recordset(NULL::request, %s)"  # noqa: S608


def journal_position(connection: Connection, journal: str) -> int | None:
    """How far a journal has been carried over, in bytes; None if the database doesn't know it."""
    return connection.execute(select(_JOURNALS.c.position).where(_JOURNALS.c.id == journal)).scalar()


def carry(
    database: Database,
    connection: Connection,
    journal: str,
    begin: int,
    rows: Sequence[RequestRow],
    end: int,
    zone: ZoneInfo = UTC,
) -> int:
    """Write a journal's rows, add them to the sums, and move its position. Returns how many don't fit in.

    Args:
        begin: The position that the rows were read from.
        end: The position behind them.
        zone: Whose calendar quotas follow.

    Raises:
        RuntimeError: The journal's position is another one: somebody else carries it.
    """
    number = _number_of(database, connection, journal)
    moved = connection.execute(
        update(_JOURNALS).where(_JOURNALS.c.id == journal, _JOURNALS.c.position == begin).values(position=end, at=now())
    )
    if moved.rowcount != 1:
        raise RuntimeError(f"the journal {journal} is no longer at {begin}")
    return _write_fitting(database, connection, number, rows, zone)


def _write_fitting(
    database: Database, connection: Connection, number: int, rows: Sequence[RequestRow], zone: ZoneInfo
) -> int:
    """Write the rows that the database takes, and say how many it doesn't: one must not keep out all others."""
    try:
        with connection.begin_nested():
            write_rows(database, connection, number, rows, zone)
    except (DataError, OverflowError, IntegrityError) as error:
        if isinstance(error, IntegrityError) and not _is_overflow(error):
            raise
        if len(rows) == 1:
            return 1
        half = len(rows) // 2
        return sum(_write_fitting(database, connection, number, part, zone) for part in (rows[:half], rows[half:]))
    return 0


def _is_overflow(error: IntegrityError) -> bool:
    """Whether a sum has become too large for SQLite, which makes a fraction of it; PostgreSQL has a `DataError`."""
    return "cannot store REAL value" in str(error.orig)


def write_rows(
    database: Database, connection: Connection, number: int, rows: Sequence[RequestRow], zone: ZoneInfo = UTC
) -> None:
    """Write rows that belong to the journal of this number, and add them to the sums."""
    if not rows:
        return
    costs = _costs(Prices.read(connection), rows)
    names = numbers_of(database, connection, names_in(rows))
    values = [values_of(row, names, number, cost) for row, cost in zip(rows, costs, strict=True)]
    try:
        with connection.begin_nested():
            insert_rows(database, connection, values)
    except IntegrityError:  # the clock was set back, and the ids of that time are taken
        for row_id, *rest in values:
            insert_rows(database, connection, [(_free_id(connection, row_id), *rest)])
    add_up(database, connection, rows, costs)
    add_spent(database, connection, rows, costs, zone)


def _costs(prices: Prices, rows: Sequence[RequestRow]) -> list[int]:
    """What each row costs, in nano-dollars."""
    if prices.is_empty:
        return [0] * len(rows)
    return [
        prices.cost(
            row.provider,
            row.served,
            at=row.at,
            tokens_in=row.tokens_in,
            cached=row.tokens_cached,
            tokens_out=row.tokens_out,
            cache_written=row.tokens_cache_written or 0,
            unit=unit_of(row.unit),
            amount=row.amount or 0,
        )
        for row in rows
    ]


def insert_rows(database: Database, connection: Connection, values: list[tuple[Any, ...]]) -> None:
    """Write rows as `values_of` makes them."""
    # Past SQLAlchemy's own way for many rows, which takes longer than everything else that is done with them.
    if database.is_sqlite:
        for given, rows in _by_columns(values).items():
            columns = [*compress(_NAMES, given)]
            places = ", ".join("?" * len(columns))
            statement = f"INSERT INTO request ({', '.join(columns)}) VALUES ({places})"  # noqa: S608 - no values
            connection.exec_driver_sql(statement, rows)
    else:
        named = [{name: value for name, value in zip(_NAMES, row, strict=True) if value is not None} for row in values]
        connection.exec_driver_sql(_POSTGRESQL_INSERT, (msgspec.json.encode(named).decode(),))


def _by_columns(values: list[tuple[Any, ...]]) -> dict[tuple[bool, ...], list[tuple[Any, ...]]]:
    """Rows by which columns they have values for, without the others.

    Python's module for SQLite takes as long for a NULL as for four numbers, and most rows have fifteen of them.
    """
    rows = defaultdict(list)
    for row in values:
        given = tuple(map(is_not, row, repeat(None)))
        rows[given].append(tuple(compress(row, given)))
    return rows


def close_journal(connection: Connection, journal: str) -> None:
    """Give a journal's number back, when all of it has been carried over. Its row stays, until the file is gone."""
    connection.execute(update(_JOURNALS).where(_JOURNALS.c.id == journal).values(number=None, at=now()))


def delete_journal(connection: Connection, journal: str) -> None:
    """Forget a journal that nobody can come back for."""
    connection.execute(delete(_JOURNALS).where(_JOURNALS.c.id == journal))


def forget_journals(connection: Connection, before: int) -> None:
    """Delete the rows of journals that were closed before a time."""
    connection.execute(delete(_JOURNALS).where(_JOURNALS.c.number.is_(None), _JOURNALS.c.at < before))


def delete_rows_before(database: Database, connection: Connection, row_id: int, limit: int) -> int:
    """Delete the oldest rows before an id, at most `limit`, give their room back, and say how many they were."""
    oldest = select(_REQUESTS.c.id).where(_REQUESTS.c.id < row_id).order_by(_REQUESTS.c.id).limit(limit)
    count = connection.execute(delete(_REQUESTS).where(_REQUESTS.c.id.in_(oldest))).rowcount
    if count and database.is_sqlite:
        give_back(connection)
    return count


def size_in_bytes(database: Database, connection: Connection) -> int:
    """How much the rows take, about. What a deletion leaves free doesn't count."""
    if database.is_sqlite:
        pages, free, size = (
            int(connection.exec_driver_sql(f"PRAGMA {name}").scalar() or 0)
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size
    rows = _rows(connection)
    return round(rows * _bytes_of_row(connection, rows))


def give_back(connection: Connection) -> None:
    """Make SQLite's file smaller by what is free in it."""
    free = int(connection.exec_driver_sql("PRAGMA freelist_count").scalar() or 0)
    with closing(connection.connection.cursor()) as cursor:
        for _ in range(min(free, _PAGES_GIVEN_BACK)):
            # Each step gives back one page, and Python's module takes no more than one of each statement.
            cursor.execute("PRAGMA incremental_vacuum(1)")


def _rows(connection: Connection) -> int:
    """How many rows there are: PostgreSQL's own count is a guess. Deletion takes the oldest, so the sums know it."""
    oldest = connection.execute(select(func.min(_REQUESTS.c.id))).scalar()
    if oldest is None:
        return 0
    # Of the oldest hour some may be gone.
    next_hour = time_of(oldest) // HOUR * HOUR + HOUR
    in_hour = connection.execute(select(func.count()).where(_REQUESTS.c.id < id_at(next_hour))).scalar()
    return int(in_hour or 0) + calls_since(connection, next_hour)


def _bytes_of_row(connection: Connection, rows: int) -> float:
    """What PostgreSQL needs for a row, by some pages of them. After deletions, the table's size tells nothing."""
    percent = min(100.0, 100 * _ROWS_WEIGHED / max(rows, 1))
    weighed = text("SELECT avg(pg_column_size(request)) FROM request TABLESAMPLE SYSTEM (:percent)")
    size = connection.execute(weighed, {"percent": percent}).scalar()
    return float(size or _USUAL_COLUMNS) + _BESIDE_COLUMNS


def _number_of(database: Database, connection: Connection, journal: str) -> int:
    """The journal's number, claimed if it has none."""
    row = connection.execute(select(_JOURNALS).where(_JOURNALS.c.id == journal)).first()
    if row is not None and row.number is not None:
        return int(row.number)
    database.hold_back_writers(connection)
    taken = set(connection.execute(select(_JOURNALS.c.number).where(_JOURNALS.c.number.is_not(None))).scalars())
    number = next((number for number in range(1 << NUMBER_BITS) if number not in taken), None)
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


def _free_id(connection: Connection, row_id: int) -> int:
    while connection.execute(select(_REQUESTS.c.id).where(_REQUESTS.c.id == row_id)).scalar() is not None:
        row_id += 1
    return row_id
