"""What quotas count: the use of each scope by day, written in the transaction that writes the requests.

So a quota is what the ledger says: there is no second counter that could differ from it.
"""

from collections.abc import Sequence
from functools import lru_cache
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, func, select

from app.domain.granting import Quota, Scope
from app.domain.limits import Limit, measured, period_at
from app.storage import tables
from app.storage.database import Database, insert_into
from app.storage.rows import RequestRow

_SPENT = tables.spent
_SUMS = ("requests", "tokens_in", "tokens_out", "cost")
# All days begin at one of these.
_QUARTER = 900_000


def add_spent(
    database: Database, connection: Connection, rows: Sequence[RequestRow], costs: Sequence[int], zone: ZoneInfo
) -> None:
    """Add what requests have used, and what they cost, to the days of a calendar."""
    # By what rows have in common first: they are many more than what they add up to.
    parts: dict[tuple[int, str, str, str, str], list[int]] = {}
    for row, cost in zip(rows, costs, strict=True):
        if row.first_milliseconds is None and not row.tokens_in and not row.tokens_out:
            continue  # no answer came: that counts for no quota
        # By the model's own name, be it listed or not: a limit may be for some models only.
        common = (row.at // _QUARTER, row.key_id, row.project, row.served, row.provider)
        sums = parts.get(common)
        if sums is None:
            sums = parts[common] = [0] * len(_SUMS)
        sums[0] += 1
        sums[1] += row.tokens_in
        sums[2] += row.tokens_out
        sums[3] += cost
    spent: dict[tuple[str, int, str, str], list[int]] = {}
    for (quarter, key_id, project, model, provider), part in parts.items():
        for scope in (f"key:{key_id}", f"project:{project}", "gateway:"):
            of = (scope, _day_of(quarter, zone), model, provider)
            spent[of] = [old + new for old, new in zip(spent.get(of, [0] * len(_SUMS)), part, strict=True)]
    if not spent:
        return
    names = [column.name for column in _SPENT.primary_key]
    # In one order everywhere, so that two workers never wait for each other crosswise.
    values = [dict(zip((*names, *_SUMS), (*of, *spent[of]), strict=True)) for of in sorted(spent)]
    statement = insert_into(_SPENT, database.backend)
    statement = statement.on_conflict_do_update(
        index_elements=list(_SPENT.primary_key),
        set_={name: _SPENT.c[name] + statement.excluded[name] for name in _SUMS},
    )
    connection.execute(statement, values)


def spent_of(connection: Connection, quota: Quota) -> int:
    """What the ledger knows of a quota."""
    of_upstream = quota.scope.kind == "upstream"
    query = (
        select(
            _SPENT.c.model,
            *(func.sum(_SPENT.c[name]).label(name) for name in _SUMS),
        )
        .where(
            _SPENT.c.scope == name_of(Scope("gateway") if of_upstream else quota.scope),
            _SPENT.c.day >= quota.start,
            _SPENT.c.day < quota.end,
        )
        .group_by(_SPENT.c.model)
    )
    if of_upstream:
        query = query.where(_SPENT.c.provider == quota.scope.name)
    pattern = Limit(1, "requests", "day", quota.pattern)
    return sum(
        measured(
            quota.measure,
            requests=int(row.requests),  # PostgreSQL's sums are decimals
            tokens_in=int(row.tokens_in),
            tokens_out=int(row.tokens_out),
            cost=int(row.cost),
        )
        for row in connection.execute(query)
        if pattern.counts(row.model)
    )


def name_of(scope: Scope) -> str:
    """A scope as the tables have it, such as `key:k_9fJ3kQ2mXb`; the gateway is `gateway:`."""
    return f"{scope.kind}:{scope.name}"


def scope_of(name: str) -> Scope:
    """The opposite of `name_of`."""
    kind, _, of = name.partition(":")
    return Scope(kind, of)  # type: ignore[arg-type]  # `name_of` has written it


@lru_cache(maxsize=1000)
def _day_of(quarter: int, zone: ZoneInfo) -> int:
    return period_at("day", quarter * _QUARTER, zone).start
