"""Limits that all workers share: their texts, what is left of each, and which worker holds how much.

What the numbers mean, and how a claim is decided, is in `app.domain.granting`.
"""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace
from sqlalchemy import Connection, and_, delete, func, insert, select, text, update

from app.domain.granting import (
    LAPSE_SECONDS,
    QUOTA_LAPSE_SECONDS,
    WANTED_SECONDS,
    Claim,
    Exchanged,
    Grant,
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
    # Locked, so that an earlier message that comes late waits for this one, and sees its number.
    me = connection.execute(
        select(_WORKERS.c.beat, _WORKERS.c.message).where(_WORKERS.c.id == worker.id).with_for_update()
    ).first()
    if me is not None and message <= me.message:
        raise StaleMessage
    is_new = me is None or not _is_alive(me.beat, clock, LAPSE_SECONDS)
    alive = _count_alive(connection, worker.id, clock)
    grants = {}
    if claims:
        claims = [_as_new(claim) for claim in claims] if is_new else claims
        grants = _decided(database, connection, worker.id, claims, clock, is_new=is_new)
    elif is_new:
        _take_back(connection, worker.id)
    _present(database, connection, worker, message, clock)
    wanted = connection.execute(
        select(_BUCKETS.c.limit_id).where(
            _BUCKETS.c.wanted_at > clock - WANTED_SECONDS * 1000, _BUCKETS.c.wanted_at <= clock
        )
    )
    return Exchanged(
        grants, alive + 1, is_new=is_new, epoch=_epoch(database, clock), wanted=frozenset(wanted.scalars())
    )


def set_limits(database: Database, connection: Connection, scope: Scope, limits_text: str | None) -> None:
    """Set a scope's limits, as `texts_of` writes them, and tell all workers; None for those of the settings."""
    note_change(database, connection, CHANGED)
    name = name_of(scope)
    connection.execute(delete(_LIMITS).where(_LIMITS.c.scope == name))
    if limits_text is not None:
        connection.execute(insert(_LIMITS).values(scope=name, limits=limits_text, changed_at=now()))


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
    clock: int,
    *,
    is_new: bool,
) -> dict[str, Grant]:
    by_id = {claim.limit_id: claim for claim in claims}
    ids = sorted(by_id)
    standings = _locked(database, connection, [by_id[limit_id] for limit_id in ids], clock)
    held = _held(connection, ids, worker, clock)
    if is_new:
        _take_back(connection, worker)
    grants, kept = {}, []
    for limit_id in ids:
        claim, of_it = by_id[limit_id], held.get(limit_id) or _Held()
        grants[limit_id], standing = grant(
            claim,
            standings[limit_id],
            own=of_it.own,
            others=of_it.others,
            used=0 if claim.quota is None else spent_of(connection, claim.quota),
            now=clock,
            unchanged_since=of_it.unchanged_since(standings[limit_id]),
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


class _Held(Struct):
    """What is held of a limit.

    Args:
        own: By the worker.
        others: By all others that live.
        lapsed: When those that have been silent for too long lost it, and how much.
    """

    own: int = 0
    others: int = 0
    lapsed: list[tuple[int, int]] = field(default_factory=list)

    def unchanged_since(self, standing: Standing) -> int | None:
        """Since when that, and no more, is held; None if the standing knows of something that nobody else does."""
        lapsed = [(at, held) for at, held in self.lapsed if at > standing.at]
        known = self.own + self.others + sum([held for _, held in lapsed])
        return max([at for at, _ in lapsed], default=standing.at) if known == standing.held else None


def _held(connection: Connection, limit_ids: Sequence[str], worker: str, clock: int) -> dict[str, _Held]:
    """What is held of limits. They have to be locked: who had them before is seen whole, with its lease and beat."""
    held: dict[str, _Held] = {}
    query = (
        select(_LEASES, _WORKERS.c.beat)
        .join(_WORKERS, _WORKERS.c.id == _LEASES.c.worker)
        .where(_LEASES.c.limit_id.in_(limit_ids))
    )
    for row in connection.execute(query):
        of_it = held.setdefault(row.limit_id, _Held())
        lapse = QUOTA_LAPSE_SECONDS if row.is_quota else LAPSE_SECONDS
        if not _is_alive(row.beat, clock, lapse):
            of_it.lapsed.append((row.beat + round(lapse * 1000), row.held))
        elif row.worker == worker:
            of_it.own = row.held
        else:
            of_it.others += row.held
    return held


def _count_alive(connection: Connection, worker: str, clock: int) -> int:
    """How many other workers live."""
    beats = connection.execute(select(_WORKERS.c.beat).where(_WORKERS.c.id != worker)).scalars().all()
    if any(beat > clock + LAPSE_SECONDS * 1000 for beat in beats):
        # PostgreSQL's clock was set back: nobody may seem to be dead, nor to live for as long as that.
        connection.execute(update(_WORKERS).where(_WORKERS.c.beat > clock + LAPSE_SECONDS * 1000).values(beat=clock))
        return len([beat for beat in beats if clock - beat <= LAPSE_SECONDS * 1000])
    return sum([_is_alive(beat, clock, LAPSE_SECONDS) for beat in beats])


def _take_back(connection: Connection, worker: str) -> None:
    """Forget what a worker that was taken for dead has held; it says anew what it holds."""
    connection.execute(delete(_LEASES).where(_LEASES.c.worker == worker, _LEASES.c.is_quota == 0))


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
    return Standing(row.amount, row.tokens, row.at, row.wanted_at, row.held)


def _columns(standing: Standing) -> dict[str, float]:
    return {
        "amount": standing.amount,
        "tokens": standing.tokens,
        "at": standing.at,
        "wanted_at": standing.wanted_at,
        "held": standing.held,
    }


def _is_alive(beat: int, clock: int, lapse: float) -> bool:
    # A little later than now is a message that began after this one and was faster.
    return -LAPSE_SECONDS * 1000 <= clock - beat <= lapse * 1000


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
        # Never back: what has been refilled before must not be again, and who was dead stays dead.
        newest = [connection.execute(select(func.max(at))).scalar() or 0 for at in (_BUCKETS.c.at, _WORKERS.c.beat)]
        base = max(now(), *newest) - counted
        if not connection.get_execution_options().get("reads"):
            connection.execute(insert(tables.boots).values(id=boot, base=base))
    return int(base + counted)


def _epoch(database: Database, clock: int) -> int:
    return now() if database.is_sqlite else clock
