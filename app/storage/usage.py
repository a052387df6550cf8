"""The ledger's sums: by hour and by day, of all keys together and of each key.

Sums stay for ever, but for the hours of single keys, which would soon be more than the rows themselves.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, FromClause, Subquery, case, delete, func, select

from app.domain.caller import ENVIRONMENT
from app.domain.units import UNITS, unit_of
from app.storage import tables
from app.storage.clock import now
from app.storage.database import Database, insert_into
from app.storage.rows import RequestRow

_USAGE, _KEYS, _PROJECTS = tables.usage, tables.keys, tables.projects
# Keys of API_MASTER_KEY are in no table.
_PROJECT = func.coalesce(_PROJECTS.c.name, ENVIRONMENT)
HOUR, DAY = 3_600_000, 86_400_000
# How long the hours of single keys are kept, in milliseconds: for a week's comparison with the one before they aren't
# needed, and 1000 keys with 10 models each would fill 15 GB in a year.
KEY_HOURS_KEPT = 8 * DAY
# What models that aren't listed are summed up under.
UNLISTED = "unlisted"
ALL_KEYS = ""
# All outcomes but those for which nothing was sent to an upstream.
_IS_REQUEST = _USAGE.c.outcome.not_in(("refused", "replayed"))
_SUMS = ("requests", "tokens_in", "tokens_out", "tokens_cached", "cost", "milliseconds", "tokens_cache_written", *UNITS)
_CACHE_WRITTEN, _FIRST_UNIT = _SUMS.index("tokens_cache_written"), _SUMS.index(UNITS[0])
_CLASSES = tuple(f"m{place}" for place in range(len(tables.DURATIONS) + 1))
_SUM_COLUMNS = (*_SUMS, *_CLASSES)


class UsageFilter(Struct, frozen=True):
    """Which calls are summed up; None means any.

    Args:
        project: Its name; the keys of API_MASTER_KEY are in `environment`.
        model: The one that answered, or `unlisted`.
    """

    key_id: str | None = None
    project: str | None = None
    model: str | None = None
    provider: str | None = None
    outcome: str | None = None


_ANY = UsageFilter()


class NoSuchSums(ValueError):
    """The hours of single keys are no longer kept."""


def add_up(database: Database, connection: Connection, rows: Sequence[RequestRow], costs: Sequence[int]) -> None:
    """Add rows, and what each cost, to the sums."""
    add_sums(database, connection, sums_of(rows, costs))


def add_sums(database: Database, connection: Connection, sums: Mapping[tuple[Any, ...], Sequence[int]]) -> None:
    """Add rows of sums, as `sums_of` makes them, to those that are there."""
    keys = [column.name for column in _USAGE.primary_key]
    # In one order everywhere, so that two workers never wait for each other crosswise.
    values = [dict(zip((*keys, *_SUM_COLUMNS), (*of, *sums[of]), strict=True)) for of in sorted(sums)]
    connection.execute(_adding(database.backend), values)


def sums_of(rows: Sequence[RequestRow], costs: Sequence[int]) -> dict[tuple[Any, ...], list[int]]:
    """The rows of sums that these calls make, by the primary key of their table."""
    hours: dict[tuple[Any, ...], list[int]] = {}
    for row, cost in zip(rows, costs, strict=True):
        model = row.served if row.listed else UNLISTED
        of = (row.at - row.at % HOUR, row.key_id, model, row.provider, row.outcome)
        line = hours.get(of)
        if line is None:
            line = hours[of] = [0] * len(_SUM_COLUMNS)
        line[0] += 1
        line[1] += row.tokens_in
        line[2] += row.tokens_out
        line[3] += row.tokens_cached
        line[4] += cost
        line[5] += row.milliseconds
        if row.tokens_cache_written is not None:
            line[_CACHE_WRITTEN] += row.tokens_cache_written
        if row.unit is not None and unit_of(row.unit) is not None:
            line[_FIRST_UNIT + row.unit - 1] += row.amount or 0
        line[len(_SUMS) + bisect_left(tables.DURATIONS, row.milliseconds)] += 1
    sums: dict[tuple[Any, ...], list[int]] = {}
    for (hour, key, model, provider, outcome), line in hours.items():
        day = hour - hour % DAY
        for grain, start, whose in (
            ("hour", hour, ALL_KEYS),
            ("hour", hour, key),
            ("day", day, ALL_KEYS),
            ("day", day, key),
        ):
            total = (grain, whose, start, model, provider, outcome)
            sums[total] = [old + new for old, new in zip(sums.get(total, [0] * len(line)), line, strict=True)]
    return sums


def usage_by(
    connection: Connection,
    *by: str,
    since: int,
    until: int,
    wanted: UsageFilter = _ANY,
    durations: bool = False,
) -> list[dict[str, Any]]:
    """Sums of a time, from the hours or days that begin in it.

    Args:
        by: What they are told apart by, all at once: `key`, `project`, `model`, `provider`, `outcome`, and `day` or
            `hour`. With none there is one row.
        since, until: Milliseconds since the epoch; from the first on, before the second. Where only days are kept,
            the days in which they lie count as a whole.
        wanted: Which calls.
        durations: Whether `percentile` will be asked about the rows. It takes twice as long.

    Returns:
        Rows with the names in `by`, `requests`, `tokens_in`, `tokens_out`, `tokens_cached`, `tokens_cache_written`,
        the units of `app.domain.units`, `cost` (nano-dollars), `milliseconds` (of all calls together), and if asked
        for the number of calls in each class of duration.
        What was refused, or answered again, is no request: only sums by `outcome` have it.

    Raises:
        KeyError: There are no sums by that.
        NoSuchSums: The hours of single keys were asked for, from a time of which only days are left.
    """
    of_keys = not {"key", "project"}.isdisjoint(by) or wanted.key_id is not None or wanted.project is not None
    hours_are_gone = of_keys and since < now() - KEY_HOURS_KEPT
    if hours_are_gone and "hour" in by:
        raise NoSuchSums(f"sums of a single key are kept by hour for {KEY_HOURS_KEPT // DAY} days, then by day")
    if hours_are_gone or ("hour" not in by and since % DAY == 0 and until % DAY == 0):
        grain, since, until = "day", since - since % DAY, until + -until % DAY
    else:
        grain = "hour"
    columns = {name: _column(name) for name in by}
    summed = _SUM_COLUMNS if durations else _SUMS
    query = (
        select(
            *(column.label(name) for name, column in columns.items()),
            *(func.coalesce(func.sum(_USAGE.c[name]), 0).label(name) for name in summed),
        )
        .where(_USAGE.c.grain == grain, _USAGE.c.start >= since, _USAGE.c.start < until)
        .where(*_conditions(wanted), *([] if "outcome" in by or wanted.outcome is not None else [_IS_REQUEST]))
        .group_by(*columns.values())
        .order_by(*columns.values())
    )
    source: FromClause = _USAGE
    if not of_keys:
        query = query.where(_USAGE.c.key_id == ALL_KEYS)
    elif wanted.key_id is None:
        # Key by key, so that each takes only its part of the index, in whose order the keys are.
        query = query.where(_USAGE.c.key_id.in_(select(_keys_with_sums(grain).c.key_id)))
    if wanted.project is not None or "project" in by:
        source = source.outerjoin(_KEYS, _KEYS.c.id == _USAGE.c.key_id)
        source = source.outerjoin(_PROJECTS, _PROJECTS.c.id == _KEYS.c.project_id)
    query = query.select_from(source)
    return [{name: _plain(value) for name, value in row.items()} for row in connection.execute(query).mappings()]


def usage_of(connection: Connection, key_id: str, begins: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """A key's sums from each of some days on, in milliseconds since the epoch."""
    columns = [
        func.coalesce(func.sum(case((_USAGE.c.start >= begin, _USAGE.c[column]), else_=0)), 0)
        for begin in begins.values()
        for column in _SUMS
    ]
    row = connection.execute(
        select(*columns).where(
            _USAGE.c.grain == "day", _USAGE.c.key_id == key_id, _USAGE.c.start >= min(begins.values()), _IS_REQUEST
        )
    ).one()
    values = iter(map(int, row))
    return {name: {column: next(values) for column in _SUMS} for name in begins}


def percentile(sums: Mapping[str, Any], share: float) -> int | None:
    """The duration in milliseconds that this share of the calls didn't exceed, as an estimate; None without calls.

    Args:
        sums: A row of `usage_by` with durations.
        share: 0.5 for the median, 0.95 for what 19 of 20 calls kept within.

    Returns:
        A time within the class in which that call lies. Of the last class only the lower bound is known.
    """
    counts = [int(sums[name]) for name in _CLASSES]
    place = share * sum(counts)
    bounds = (0, *tables.DURATIONS)
    for number, count in enumerate(counts):
        if count and place <= count:
            low = bounds[number]
            high = tables.DURATIONS[number] if number < len(tables.DURATIONS) else low
            return round(low + (high - low) * place / count)
        place -= count
    return None


def calls_since(connection: Connection, hour: int) -> int:
    """How many calls, of any outcome, began in or after an hour that begins so many milliseconds after the epoch."""
    next_day = hour + -hour % DAY
    of_all = select(func.sum(_USAGE.c.requests)).where(_USAGE.c.key_id == ALL_KEYS)
    hours = of_all.where(_USAGE.c.grain == "hour", _USAGE.c.start >= hour, _USAGE.c.start < next_day)
    days = of_all.where(_USAGE.c.grain == "day", _USAGE.c.start >= next_day)
    return sum(int(connection.execute(query).scalar() or 0) for query in (hours, days))


def end_of_newest_hour(connection: Connection, wanted: UsageFilter, since: int, until: int) -> int | None:
    """The end of the newest hour of a time in which such calls began; None if none did.

    Args:
        wanted: Its project isn't looked at.
        since, until: Milliseconds since the epoch; from the first on, before the second.
    """
    conditions = _conditions(UsageFilter(provider=wanted.provider, outcome=wanted.outcome))
    if wanted.model is not None:
        conditions.append(_USAGE.c.model.in_((wanted.model, UNLISTED)))
    whose = ALL_KEYS if wanted.key_id is None else wanted.key_id
    while since < until:
        # Days first: they are fewer, and those of single keys stay.
        day = _newest_start(connection, "day", whose, since - since % DAY, until, conditions)
        if day is None:
            return None
        begin = max(day, since - since % HOUR)
        hour = _newest_start(connection, "hour", ALL_KEYS, begin, min(until, day + DAY), conditions)
        if hour is not None:
            return min(hour + HOUR, until)
        until = day
    return None


def keys_with_old_hours(connection: Connection, before: int) -> list[str]:
    """The keys that have sums of hours before a time."""
    keys = _keys_with_sums("hour")
    is_old = select(_USAGE.c.start).where(
        _USAGE.c.grain == "hour", _USAGE.c.key_id == keys.c.key_id, _USAGE.c.start < before
    )
    return list(connection.execute(select(keys.c.key_id).where(is_old.exists())).scalars())


def forget_key_hours(connection: Connection, key_id: str, before: int) -> None:
    """Delete a key's sums of hours before a time; those of its days stay."""
    connection.execute(
        delete(_USAGE).where(_USAGE.c.grain == "hour", _USAGE.c.key_id == key_id, _USAGE.c.start < before)
    )


def _newest_start(
    connection: Connection, grain: str, whose: str, since: int, until: int, conditions: Sequence[ColumnElement[bool]]
) -> int | None:
    query = (
        select(_USAGE.c.start)
        .where(_USAGE.c.grain == grain, _USAGE.c.key_id == whose, _USAGE.c.start >= since, _USAGE.c.start < until)
        .where(*conditions)
        .order_by(_USAGE.c.start.desc())
        .limit(1)
    )
    return connection.execute(query).scalar()


def _keys_with_sums(grain: str) -> Subquery[Any]:
    """The ids of all keys that have sums, each found by one look into the index."""
    key_id = _USAGE.c.key_id
    keys = select(func.min(key_id).label("key_id")).where(_USAGE.c.grain == grain, key_id > ALL_KEYS)
    found = keys.cte("keys", recursive=True)
    following = select(func.min(key_id)).where(_USAGE.c.grain == grain, key_id > found.c.key_id).scalar_subquery()
    found = found.union_all(select(following).where(found.c.key_id.is_not(None)))
    return select(found.c.key_id).where(found.c.key_id.is_not(None)).subquery("keys_with_sums")


def _column(name: str) -> ColumnElement[Any]:
    match name:
        case "hour":
            return _USAGE.c.start
        case "day":
            return _USAGE.c.start - _USAGE.c.start % DAY
        case "key":
            return _USAGE.c.key_id
        case "project":
            return _PROJECT
    return {column: _USAGE.c[column] for column in ("model", "provider", "outcome")}[name]


def _conditions(wanted: UsageFilter) -> list[ColumnElement[bool]]:
    given = {
        _USAGE.c.key_id: wanted.key_id,
        _USAGE.c.model: wanted.model,
        _USAGE.c.provider: wanted.provider,
        _USAGE.c.outcome: wanted.outcome,
        _PROJECT: wanted.project,
    }
    return [column == value for column, value in given.items() if value is not None]


@cache
def _adding(backend: str) -> Any:
    """The statement that adds sums to those that are there."""
    statement = insert_into(_USAGE, backend)
    return statement.on_conflict_do_update(
        index_elements=list(_USAGE.primary_key),
        set_={name: _USAGE.c[name] + statement.excluded[name] for name in _SUM_COLUMNS},
    )


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str) else int(value)  # PostgreSQL's sums are decimals
