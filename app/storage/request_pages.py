"""Pages of the ledger's rows, by what somebody looks for.

Pages go by the rows' ids and never count or skip rows. A page looks at a bounded number of rows, so that it takes
milliseconds whatever is looked for; the sums by hour say where there is nothing to look at.
"""

from collections.abc import Collection
from typing import Any

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, ScalarSelect, Select, func, literal_column, or_, select

from app.domain.request_ids import number_of, time_in
from app.storage import tables
from app.storage.clock import now
from app.storage.names import number_of_name, texts_of
from app.storage.rows import CLOCK_SLACK, COMPLETED, ID_BITS, LONGEST_ARRIVAL, as_told, id_at, names_needed, time_of
from app.storage.usage import HOUR, UNLISTED, UsageFilter, end_of_newest_hour, usage_by

_REQUESTS = tables.requests
# As the index has it.
_TROUBLE: ColumnElement[bool] = literal_column("outcome IS NOT NULL")
_NEWEST = (1 << 63) - 1
# So many rows are looked at first, so many at most for one page.
_FIRST_LOOK = 500
_MOST_LOOKED_AT = 10_000
_LOOKS_GROW = 4
_MOST_OF_ONE_REQUEST = 50


class RowFilter(Struct, frozen=True):
    """Which rows are looked for; None means any.

    Args:
        project: Its name when the call was made.
        model: The one that answered, or `unlisted`.
        error: An error's code.
        trouble: Only calls that didn't complete.
        since, until: When they began, in milliseconds since the epoch; from the first on, before the second.
        session: The digest of their session.
    """

    key_id: str | None = None
    project: str | None = None
    model: str | None = None
    provider: str | None = None
    outcome: str | None = None
    error: str | None = None
    trouble: bool = False
    since: int | None = None
    until: int | None = None
    session: str | None = None


_ANY = RowFilter()


class Page(Struct, frozen=True):
    """Some rows.

    Args:
        rows: The newest first.
        before: What the next page ends before; None after the last one. A page may have fewer rows than were asked
            for, or none, and still be followed by another.
    """

    rows: list[dict[str, Any]]
    before: int | None


def page_of_rows(
    connection: Connection, wanted: RowFilter = _ANY, *, before: int | None = None, limit: int = 50
) -> Page:
    """A page of rows, the newest first.

    Args:
        before: The id that the page ends before; None for the newest.
        limit: The most rows that it has.
    """
    low, high = _bounds(wanted)
    high = high if before is None else min(before, high)
    indexed, others = _conditions(wanted)
    if not others:
        return _page(_rows_between(connection, indexed, low, high, limit + 1), limit, None)
    return _searched(connection, wanted, low, high, limit)


def rows_ended_since(
    connection: Connection, ended: int, wanted: RowFilter = _ANY, *, since: int, limit: int
) -> list[dict[str, Any]]:
    """The newest rows of calls that ended from a time on, in the order in which they ended.

    Args:
        ended: In milliseconds since the epoch.
        since: When the oldest of them began, likewise.
    """
    columns = _REQUESTS.c
    indexed, others = _conditions(wanted)
    # As a word of the statement: PostgreSQL shifts by integers only, and parameters are more than that.
    has_ended = columns.id.op(">>")(literal_column(str(ID_BITS))) + columns.milliseconds >= ended
    query = select(_REQUESTS).where(*indexed, *others, *_between(id_at(since), _NEWEST), has_ended)
    rows = _told(connection, query.order_by(columns.id.desc()).limit(limit))
    return sorted(rows, key=end_of)


def end_of(row: dict[str, Any]) -> tuple[int, int]:
    """When a row's call ended, in milliseconds since the epoch, and its id: an order for rows that have come."""
    return time_of(row["id"]) + row["milliseconds"], row["id"]


def slow_rows(connection: Connection, *, since: int, until: int, at_least: int, limit: int) -> list[dict[str, Any]]:
    """Rows of calls that took long, in no order: when they ended, others that began later were there already.

    Args:
        since, until: When they began, in milliseconds since the epoch.
        at_least: Milliseconds.
    """
    is_slow = _REQUESTS.c.milliseconds >= at_least
    return _told(connection, select(_REQUESTS).where(*_between(id_at(since), id_at(until)), is_slow).limit(limit))


def scan_of_rows(
    connection: Connection, wanted: RowFilter, *, after: int = 0, limit: int = 1000
) -> tuple[list[dict[str, Any]], int | None]:
    """The rows of a time from the oldest on, a part at a time.

    Args:
        wanted: Of which time, and which rows of it.
        after: The id that the part begins after.
        limit: The number of rows that are looked at.

    Returns:
        The rows that are wanted, perhaps none, and what the next part begins after; None after the last one.
    """
    low = max(after + 1, 0 if wanted.since is None else id_at(wanted.since))
    high = _NEWEST if wanted.until is None else id_at(wanted.until)
    indexed, others = _conditions(wanted)
    ids = select(_REQUESTS.c.id).where(*indexed, *_between(low, high)).order_by(_REQUESTS.c.id).limit(limit)
    looked_at = ids.subquery()
    last, count = connection.execute(select(func.max(looked_at.c.id), func.count()).select_from(looked_at)).one()
    if not count:
        return [], None
    query = select(_REQUESTS).where(*indexed, *others, *_between(low, last + 1)).order_by(_REQUESTS.c.id)
    return _told(connection, query), last if count == limit else None


def deleted_until(connection: Connection, since: int) -> int | None:
    """Until when rows of a time have been deleted, in milliseconds since the epoch; None if none have.

    Args:
        since: When the time begins.
    """
    oldest = connection.execute(select(func.min(_REQUESTS.c.id))).scalar()
    end = now() if oldest is None else time_of(oldest)
    if end <= since:
        return None
    sums = usage_by(connection, since=since - since % HOUR, until=end - end % HOUR)
    return end if sums and sums[0]["requests"] else None


def newest_of_keys(connection: Connection, key_ids: Collection[str]) -> dict[str, int]:
    """When the newest call of each key began that has any, in milliseconds since the epoch."""
    # One look at the end of each key's part of the index.
    newest = select(func.max(_REQUESTS.c.id)).where(_REQUESTS.c.key == tables.names.c.number).scalar_subquery()
    query = select(tables.names.c.text, newest.label("newest")).where(tables.names.c.text.in_(key_ids))
    return {row.text: time_of(row.newest) for row in connection.execute(query) if row.newest is not None}


def row_of(connection: Connection, row_id: int) -> dict[str, Any] | None:
    """One row; None if there is none."""
    rows = _told(connection, select(_REQUESTS).where(_REQUESTS.c.id == row_id))
    return rows[0] if rows else None


def rows_of_request(connection: Connection, request_id: str) -> list[dict[str, Any]]:
    """The rows of a request's id, the newest first: a client may give several requests the same one."""
    query = select(_REQUESTS).order_by(_REQUESTS.c.id.desc()).limit(_MOST_OF_ONE_REQUEST)
    rows = _told(connection, query.where(_REQUESTS.c.request_id == request_id))
    number = number_of(request_id)
    if number is None:
        return rows
    came = time_in(number)
    query = query.where(_REQUESTS.c.request_number == number)
    rows += _told(connection, query.where(*_between(id_at(came - CLOCK_SLACK), id_at(came + LONGEST_ARRIVAL + 1))))
    return sorted(rows, key=lambda row: int(row["id"]), reverse=True)


def _searched(connection: Connection, wanted: RowFilter, low: int, high: int, limit: int) -> Page:
    """A page of rows that no index leads to: stretch by stretch, up to a number of rows looked at."""
    oldest = connection.execute(select(func.min(_REQUESTS.c.id))).scalar()
    if oldest is None:
        return Page([], None)
    low = max(low, oldest)
    indexed, others = _conditions(wanted)
    rows: list[dict[str, Any]] = []
    look, left = _FIRST_LOOK, _MOST_LOOKED_AT
    while len(rows) <= limit and left > 0:
        end = _end_of_possible(connection, wanted, low, high)
        if end is None:
            return _page(rows, limit, None)
        # Where the look ends comes first: rows that come in between the two statements change nothing.
        look = min(look, left)
        ids = select(_REQUESTS.c.id).where(*indexed, *_between(low, end)).order_by(_REQUESTS.c.id.desc()).limit(look)
        looked_at = ids.subquery()
        first, count = connection.execute(select(func.min(looked_at.c.id), func.count()).select_from(looked_at)).one()
        high = first if count == look else low
        rows += _rows_between(connection, [*indexed, *others], high, end, limit + 1 - len(rows))
        left -= look
        look *= _LOOKS_GROW
    return _page(rows, limit, high if high > low else None)


def _page(rows: list[dict[str, Any]], limit: int, before: int | None) -> Page:
    """The page, if one row more than it may have was looked for."""
    return Page(rows, before) if len(rows) <= limit else Page(rows[:limit], rows[limit - 1]["id"] if limit else before)


def _end_of_possible(connection: Connection, wanted: RowFilter, low: int, high: int) -> int | None:
    """The id below which there may be such rows, from `low` on and below `high`; None if there can't be any."""
    if low >= high:
        return None
    sums = UsageFilter(key_id=wanted.key_id, model=wanted.model, provider=wanted.provider, outcome=wanted.outcome)
    if sums == UsageFilter(key_id=wanted.key_id):
        return high
    # The times in which the first and the last of them began.
    end = end_of_newest_hour(connection, sums, time_of(low), time_of(high - 1) + 1)
    return None if end is None else min(id_at(end), high)


def _rows_between(
    connection: Connection, conditions: list[ColumnElement[bool]], low: int, high: int, limit: int
) -> list[dict[str, Any]]:
    query: Select[Any] = select(_REQUESTS).where(*conditions, *_between(low, high))
    return _told(connection, query.order_by(_REQUESTS.c.id.desc()).limit(limit))


def _between(low: int, high: int) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return _REQUESTS.c.id >= low, _REQUESTS.c.id < high


def _bounds(wanted: RowFilter) -> tuple[int, int]:
    """The ids from the first on and before the second are those of the time that is looked at."""
    low = 0 if wanted.since is None else id_at(wanted.since)
    return low, _NEWEST if wanted.until is None else id_at(wanted.until)


def _conditions(wanted: RowFilter) -> tuple[list[ColumnElement[bool]], list[ColumnElement[bool]]]:
    """What one index answers in the order of ids, and what has to be looked at row by row."""
    columns = _REQUESTS.c
    by_index = (
        (wanted.key_id, columns.key == _number(wanted.key_id)),
        (wanted.error, columns.error == wanted.error),
        (wanted.trouble or wanted.outcome not in (None, COMPLETED) or None, _TROUBLE),
    )
    by_row = (
        (wanted.project, columns.project == _number(wanted.project)),
        (wanted.provider, columns.provider == _number(wanted.provider)),
        (wanted.outcome, func.coalesce(columns.outcome, COMPLETED) == wanted.outcome),
        (wanted.session, columns.session == wanted.session),
        (wanted.model, _is_model(wanted.model or "")),
        (wanted.trouble or None, columns.outcome != "replayed"),
    )
    indexed = [condition for value, condition in by_index if value is not None]
    return indexed[:1], [*indexed[1:], *(condition for value, condition in by_row if value is not None)]


def _is_model(name: str) -> ColumnElement[bool]:
    columns = _REQUESTS.c
    if name == UNLISTED:
        return columns.model.is_(None)
    is_unlisted = columns.model.is_(None) & (func.coalesce(columns.served, columns.asked) == name)
    return or_(columns.model == _number(name), is_unlisted)


def _number(name: str | None) -> ScalarSelect[int]:
    return number_of_name(name or "")


def _told(connection: Connection, query: Select[Any]) -> list[dict[str, Any]]:
    """The rows as others know them."""
    rows = [dict(row) for row in connection.execute(query).mappings()]
    numbers = {number for row in rows for number in names_needed(row)}
    names = texts_of(connection, numbers) if numbers else {}
    return [as_told(row, names) for row in rows]
