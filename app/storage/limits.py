"""Limits that all workers share: their texts, what is left of each, and which worker holds how much.

What the numbers mean, and how a claim is decided, is in `app.domain.granting`.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, and_, delete, func, insert, select, text, update

from app.domain.granting import (
    LAPSE_SECONDS,
    QUOTA_LAPSE_SECONDS,
    Claim,
    Exchanged,
    Holding,
    LimitState,
    Scope,
    ScopedLimit,
    Standing,
    grant,
    state_of,
)
from app.storage import tables
from app.storage.changes import note_change
from app.storage.clock import now
from app.storage.database import Database, insert_into
from app.storage.spent import name_of, scope_of, spent_of

_LIMITS, _BUCKETS, _LEASES, _WORKERS = tables.limits, tables.buckets, tables.leases, tables.workers
# The subject of changes of limits.
CHANGED = "limits"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_DAY = 86_400_000
_BUCKETS_KEPT = 40 * _DAY
# Workers beat more often.
_ALIVE_SECONDS = 15


class Worker(Struct, frozen=True):
    """A worker process, as it presents itself.

    Args:
        id: Another one for each process.
        machine: Its host's name.
        started_at: Milliseconds since the epoch.
    """

    id: str
    machine: str
    version: str
    started_at: int


class StaleMessage(Exception):
    """A later message of the same worker has been answered already."""


class SeenWorker(Struct, frozen=True):
    """A worker, as it was last seen; times in milliseconds since the epoch."""

    id: str
    machine: str
    version: str
    started_at: int
    seen_at: int
    is_alive: bool


def exchange(
    database: Database, connection: Connection, worker: Worker, message: int, claims: Sequence[Claim]
) -> Exchanged:
    """Note that a worker lives, and decide on its claims.

    Args:
        message: Its number, higher than that of any earlier one.

    Raises:
        StaleMessage: See there.
    """
    clock = _clock(database, connection)
    workers = {
        row.id: row for row in connection.execute(select(_WORKERS.c.id, _WORKERS.c.beat, _WORKERS.c.message)).all()
    }
    me = workers.get(worker.id)
    if me is not None and message <= me.message:
        raise StaleMessage
    # A clock that went back is a machine that was started anew.
    is_new = me is None or not 0 <= clock - me.beat <= LAPSE_SECONDS * 1000
    if is_new:
        connection.execute(delete(_LEASES).where(_LEASES.c.worker == worker.id, _LEASES.c.is_quota == 0))
    grants = {}
    if claims:
        beats = {name: row.beat for name, row in workers.items() if name != worker.id}
        grants = _decided(database, connection, worker.id, [_as_new(c) if is_new else c for c in claims], beats, clock)
    _present(database, connection, worker, message, clock)
    alive = sum(1 for name, row in workers.items() if name != worker.id and _is_alive(row.beat, clock, LAPSE_SECONDS))
    return Exchanged(grants, alive + 1, is_new=is_new, epoch=_epoch(database, clock))


def set_limits(database: Database, connection: Connection, scope: Scope, limits_text: str | None) -> None:
    """Set a scope's limits, as `texts_of` writes them, and tell all workers; None for those of the settings."""
    name = name_of(scope)
    connection.execute(delete(_LIMITS).where(_LIMITS.c.scope == name))
    if limits_text is not None:
        connection.execute(insert(_LIMITS).values(scope=name, limits=limits_text, changed_at=now()))
    note_change(database, connection, CHANGED)


def limits_of_scope(connection: Connection, scope: Scope) -> str | None:
    """A scope's limits, as `set_limits` has set them; None if it has none of its own."""
    return connection.execute(select(_LIMITS.c.limits).where(_LIMITS.c.scope == name_of(scope))).scalar()


def stored_limits(connection: Connection) -> dict[Scope, str]:
    """The limits of all scopes that have any in the database."""
    rows = connection.execute(select(_LIMITS.c.scope, _LIMITS.c.limits).order_by(_LIMITS.c.scope))
    return {scope_of(row.scope): row.limits for row in rows}


def states_of(database: Database, connection: Connection, limits: Sequence[ScopedLimit]) -> list[LimitState]:
    """What is left of limits now, and what living workers hold of them."""
    if not limits:
        return []
    clock = _clock(database, connection)
    ids = [one.limit_id for one in limits]
    buckets = connection.execute(select(_BUCKETS).where(_BUCKETS.c.limit_id.in_(ids)))
    standings = {row.limit_id: _standing(row) for row in buckets}
    query = (
        select(_LEASES, _WORKERS.c.machine, _WORKERS.c.beat)
        .join(_WORKERS, _WORKERS.c.id == _LEASES.c.worker)
        .where(_LEASES.c.limit_id.in_(ids))
        .order_by(_WORKERS.c.started_at, _WORKERS.c.id)
    )
    holdings: dict[str, list[Holding]] = {limit_id: [] for limit_id in ids}
    for row in connection.execute(query):
        if _is_alive(row.beat, clock, QUOTA_LAPSE_SECONDS if row.is_quota else LAPSE_SECONDS):
            holdings[row.limit_id].append(Holding(row.worker, row.machine, row.held))
    return [
        state_of(
            one,
            standings.get(one.limit_id),
            holdings[one.limit_id],
            used=0 if one.quota is None else spent_of(connection, one.quota),
            now=clock,
        )
        for one in limits
    ]


def seen_workers(database: Database, connection: Connection) -> list[SeenWorker]:
    """The workers of the last day, the newest first."""
    clock = _clock(database, connection)
    rows = connection.execute(select(_WORKERS).order_by(_WORKERS.c.started_at.desc(), _WORKERS.c.id))
    return [
        SeenWorker(
            row.id,
            row.machine,
            row.version,
            row.started_at,
            row.seen_at,
            _is_alive(row.beat, clock, _ALIVE_SECONDS),
        )
        for row in rows
    ]


def forget_idle(database: Database, connection: Connection) -> None:
    """Delete what belongs to workers that are gone, and limits that nobody has used for long."""
    clock = _clock(database, connection)
    connection.execute(delete(_WORKERS).where(_WORKERS.c.beat < clock - _DAY))
    connection.execute(delete(_LEASES).where(_LEASES.c.worker.not_in(select(_WORKERS.c.id))))
    connection.execute(delete(_BUCKETS).where(_BUCKETS.c.at < clock - _BUCKETS_KEPT))


def _decided(
    database: Database,
    connection: Connection,
    worker: str,
    claims: Sequence[Claim],
    beats: Mapping[str, int],
    clock: int,
) -> dict[str, Any]:
    by_id = {claim.limit_id: claim for claim in claims}
    ids = sorted(by_id)
    standings = _locked(database, connection, [by_id[limit_id] for limit_id in ids], clock)
    own, others = _held(connection, by_id, worker, beats, clock)
    grants, kept = {}, []
    for limit_id in ids:
        claim = by_id[limit_id]
        grants[limit_id], standing = grant(
            claim,
            standings[limit_id],
            own=own.get(limit_id, 0),
            others=others.get(limit_id, 0),
            used=0 if claim.quota is None else spent_of(connection, claim.quota),
            now=clock,
        )
        kept.append({"of": limit_id, **_columns(standing)})
    connection.execute(
        update(_BUCKETS).where(_BUCKETS.c.limit_id == text(":of")),
        kept,
    )
    _keep_leases(database, connection, worker, [(by_id[i], by_id[i].held + grants[i].granted) for i in ids])
    return grants


def _locked(database: Database, connection: Connection, claims: Sequence[Claim], clock: int) -> dict[str, Standing]:
    """The standings of limits in the order of their ids, locked until the end of the transaction."""
    fresh = [{"limit_id": c.limit_id, **_columns(Standing(c.amount, float(c.amount), clock))} for c in claims]
    connection.execute(insert_into(_BUCKETS, database.backend).on_conflict_do_nothing(), fresh)
    query = (
        select(_BUCKETS)
        .where(_BUCKETS.c.limit_id.in_([claim.limit_id for claim in claims]))
        .order_by(_BUCKETS.c.limit_id)
        .with_for_update()
    )
    return {row.limit_id: _standing(row) for row in connection.execute(query)}


def _held(
    connection: Connection, claims: Mapping[str, Claim], worker: str, beats: Mapping[str, int], clock: int
) -> tuple[dict[str, int], dict[str, int]]:
    """What the worker holds of each limit, and what all others that live do."""
    own: dict[str, int] = {}
    others: dict[str, int] = {}
    query = select(_LEASES).where(_LEASES.c.limit_id.in_(list(claims)))
    for row in connection.execute(query):
        lapse = QUOTA_LAPSE_SECONDS if row.is_quota else LAPSE_SECONDS
        if row.worker == worker:
            own[row.limit_id] = row.held
        elif row.worker in beats and _is_alive(beats[row.worker], clock, lapse):
            others[row.limit_id] = others.get(row.limit_id, 0) + row.held
    return own, others


def _keep_leases(database: Database, connection: Connection, worker: str, leases: Iterable[tuple[Claim, int]]) -> None:
    held, empty = [], []
    for claim, amount in leases:
        if amount:
            is_quota = int(claim.kind == "quota")
            held.append({"limit_id": claim.limit_id, "worker": worker, "held": amount, "is_quota": is_quota})
        else:
            empty.append(claim.limit_id)
    if held:
        statement = insert_into(_LEASES, database.backend)
        changed = {"held": statement.excluded.held}
        connection.execute(
            statement.on_conflict_do_update(index_elements=list(_LEASES.primary_key), set_=changed), held
        )
    if empty:
        connection.execute(delete(_LEASES).where(and_(_LEASES.c.worker == worker, _LEASES.c.limit_id.in_(empty))))


def _present(database: Database, connection: Connection, worker: Worker, message: int, clock: int) -> None:
    values = {"beat": clock, "message": message, "seen_at": now()}
    statement = insert_into(_WORKERS, database.backend).values(
        id=worker.id, machine=worker.machine, version=worker.version, started_at=worker.started_at, **values
    )
    connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))


def _as_new(claim: Claim) -> Claim:
    """A claim of a worker that was taken for dead: what it believes to hold may be others' by now."""
    return replace(claim, held=0, back=min(claim.back, 0)) if claim.kind == "bucket" else claim


def _standing(row: Any) -> Standing:
    return Standing(row.amount, row.tokens, row.at, row.wanted_at)


def _columns(standing: Standing) -> dict[str, float]:
    return {
        "amount": standing.amount,
        "tokens": standing.tokens,
        "at": standing.at,
        "wanted_at": standing.wanted_at,
    }


def _is_alive(beat: int, clock: int, lapse: float) -> bool:
    return 0 <= clock - beat <= lapse * 1000


def _clock(database: Database, connection: Connection) -> int:
    """Milliseconds of a clock that all workers share, whatever the time of day is where they run.

    PostgreSQL's own; or, since all who share a SQLite file are on one machine, what its kernel has counted since it was
    started, carried on from one start to the next.
    """
    if not database.is_sqlite:
        seconds = connection.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one()
        return int(seconds * 1000)
    try:
        boot = _BOOT_ID.read_text().strip()
    except OSError:  # macOS
        return now()
    counted = time.monotonic_ns() // 1_000_000
    base = connection.execute(select(tables.boots.c.base).where(tables.boots.c.id == boot)).scalar()
    if base is None:
        # Never back: what has been refilled before must not be again.
        newest = connection.execute(select(func.max(_BUCKETS.c.at))).scalar() or 0
        base = max(now(), newest) - counted
        if not connection.get_execution_options().get("reads"):
            connection.execute(insert(tables.boots).values(id=boot, base=base))
    return int(base + counted)


def _epoch(database: Database, clock: int) -> int:
    return now() if database.is_sqlite else clock
