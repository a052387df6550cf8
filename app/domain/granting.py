"""How a store divides a limit among workers. Pure: a store brings what it has kept, and keeps what comes back.

A worker takes tokens, permits or a part of a quota in advance, as a lease, and counts in memory what it uses of it.
What matters is that the sum holds: what is in the store, and what workers hold unused, is never more than the limit.
So whatever the store doesn't know yet (a worker has used something, was killed, or never got an answer) leads it to
believe that more is held than is, and to give less. A bucket refills only as far as what is held leaves room: else what
a worker has used a moment ago would have been refilled before it was used.
"""

from collections.abc import Sequence
from typing import Literal
from zoneinfo import ZoneInfo

from msgspec import Struct
from msgspec.structs import replace

from app.domain.limits import Kind, Limit, Measure, period_at

# A worker that has been silent for so long has lost what it held of buckets and permits; it knows that earlier, by its
# own clock. Quotas are kept for it for longer: what it has used may be still on its way into the ledger.
LAPSE_SECONDS = 8.0
QUOTA_LAPSE_SECONDS = 30.0
# For so long after somebody had to go without, nobody keeps permits in reserve.
WANTED_SECONDS = 3.0
# A clock that went back further, in milliseconds, was set anew: then what it said before doesn't count any more.
_LARGEST_STEP = 10_000


class Scope(Struct, frozen=True):
    """Whose use a quota counts.

    Args:
        kind: A key, a project, an upstream, or the whole gateway.
        name: Its id or name; empty for the gateway.
    """

    kind: Literal["key", "project", "upstream", "gateway"]
    name: str = ""

    @property
    def text(self) -> str:
        """The scope as people and the log of changes have it, such as `key:k_9fJ3kQ2mXb` or `gateway`."""
        return f"{self.kind}:{self.name}" if self.name else self.kind


class Quota(Struct, frozen=True):
    """What the ledger is asked for a quota: the use by a scope from `start` on, before `end` (ms since the epoch)."""

    scope: Scope
    measure: Measure
    pattern: str
    start: int
    end: int


class ScopedLimit(Struct, frozen=True):
    """A scope's limit, as stores know it.

    Args:
        limit_id: Of a quota together with its period.
        quota: Of a quota: what the ledger is asked.
    """

    scope: Scope
    limit: Limit
    limit_id: str
    quota: Quota | None = None

    @property
    def ends_at(self) -> float:
        """Of a quota: when its period ends, in seconds since the epoch; else 0."""
        return 0.0 if self.quota is None else self.quota.end / 1000


class Claim(Struct, frozen=True):
    """What a worker says and wants of one limit.

    Args:
        limit_id: The limit; of a quota together with its period.
        amount: How much the limit allows.
        held: What the worker holds after this message, as far as it knows: unused tokens; permits; of a quota what is
            unused, in flight, or used and not in the ledger yet.
        need: What it needs now.
        want: What it would like to have, at least `need`.
        least: Less than this is of no use to it now: part of what a large call needs would only be kept from others.
        back: Unused tokens of those that it held; negative if more was used than it held.
        returned: Tokens that calls have not used after all. They had counted as used: there may be no room for them.
        seconds: In which a bucket fills up.
        quota: What the ledger is to be asked.
    """

    limit_id: str
    kind: Kind
    amount: int
    held: int
    need: int = 0
    want: int = 0
    least: int = 0
    back: int = 0
    returned: int = 0
    seconds: int = 0
    quota: Quota | None = None


class Holding(Struct, frozen=True):
    """How much of a limit a worker holds."""

    worker: str
    machine: str
    held: int


class LimitState(Struct, frozen=True):
    """What a store knows of a limit at a moment.

    Args:
        left: What nobody holds; of a bucket with what has refilled. Negative if more was used than was free.
        used: Of a quota: what the ledger knows of.
        holdings: What workers that live hold, as far as they have said.
    """

    left: float
    used: int
    holdings: tuple[Holding, ...]


class Standing(Struct, frozen=True):
    """What a store keeps of a limit.

    Args:
        amount: What the limit allowed when this was written.
        tokens: Of a bucket: those that nobody holds.
        at: When, in milliseconds of the store's clock.
        wanted_at: When somebody last had to go without.
        held: Of a bucket: what workers held when this was written.
    """

    amount: int
    tokens: float
    at: int
    wanted_at: int = 0
    held: int = 0


class Grant(Struct, frozen=True):
    """What a worker gets.

    Args:
        granted: So much more.
        left: What nobody holds now; of a bucket with the fraction that has refilled. Negative if more is held than
            there is, because the limit was lowered, or the worker was taken for dead.
        wanted: Whether somebody had to go without a short while ago.
        used: Of a quota: what the ledger knows of.
    """

    granted: int
    left: float
    wanted: bool = False
    used: int = 0


class Exchanged(Struct, frozen=True):
    """A store's answer to a worker's claims.

    Args:
        grants: By limit.
        workers: How many live.
        is_new: The store did not know the worker, or took it for dead: whatever else it holds is void.
        epoch: The store's time, in milliseconds since the epoch.
        wanted: The limits of which somebody had to go without a short while ago.
    """

    grants: dict[str, Grant]
    workers: int
    is_new: bool
    epoch: int
    wanted: frozenset[str] = frozenset()


def grant(
    claim: Claim,
    standing: Standing | None,
    *,
    own: int,
    others: int,
    used: int,
    now: int,
    unchanged_since: int | None = None,
) -> tuple[Grant, Standing]:
    """Decide on a claim.

    Args:
        standing: What the store has kept of the limit; None for a new one.
        own: What the store believes that the worker holds.
        others: What it believes that all other living workers hold.
        used: Of a quota: what the ledger knows of.
        now: Milliseconds of the store's clock.
        unchanged_since: Since when they have held that, and not what the standing says; None if that isn't known.
    """
    old = standing or Standing(claim.amount, float(claim.amount), now)
    if claim.kind == "bucket" and claim.amount < old.amount:
        return _granted_of_lowered(claim, old, own, others, now, unchanged_since)
    tokens, at, held = 0.0, now, 0
    if claim.kind == "bucket":
        since = now if unchanged_since is None else min(max(unchanged_since, old.at), now)
        tokens = _refilled(old, claim, own + others, since, now) + claim.returned
        tokens = min(tokens, float(claim.amount - own - others)) + claim.back
        left = tokens = min(tokens, float(claim.amount - others - claim.held))
        if old.at - now < _LARGEST_STEP:
            at = max(now, old.at)
    else:
        left = float(claim.amount - used - others - claim.held)
    granted = max(0, min(claim.want, int(left // 1)))
    if granted < claim.least:
        granted = 0
    wanted_at = now if granted < claim.need else old.wanted_at
    if claim.kind == "bucket":
        tokens, held = tokens - granted, others + claim.held + granted
    given = Grant(granted, left - granted, is_wanted(wanted_at, now), used)
    return given, Standing(claim.amount, tokens, at, wanted_at, held)


def _granted_of_lowered(
    claim: Claim, old: Standing, own: int, others: int, now: int, unchanged_since: int | None
) -> tuple[Grant, Standing]:
    """Decide on a claim to a bucket that is smaller than it was.

    What was used before counts on, until it would have been refilled at the pace that it was allowed at: else a bucket
    that is much smaller now would let nothing through for hours.
    """
    asked = replace(claim, amount=old.amount, need=0, want=0, least=0)
    _, standing = grant(asked, old, own=own, others=others, used=0, now=now, unchanged_since=unchanged_since)
    tokens = standing.tokens - (old.amount - claim.amount)
    if tokens < 0:
        wanted_at = now if claim.need else standing.wanted_at
        # As much of the new limit as it takes as long to refill.
        left = tokens * claim.amount / old.amount
        return Grant(0, left, is_wanted(wanted_at, now)), replace(standing, wanted_at=wanted_at)
    # What was given back counts already.
    asked = replace(claim, back=0, returned=0)
    lowered = replace(standing, amount=claim.amount, tokens=tokens)
    return grant(asked, lowered, own=claim.held, others=others, used=0, now=now, unchanged_since=now)


def is_wanted(wanted_at: int, now: int) -> bool:
    """Whether somebody had to go without a short while ago."""
    return wanted_at > 0 and 0 <= now - wanted_at < WANTED_SECONDS * 1000


def _refilled(old: Standing, claim: Claim, held: int, since: int, now: int) -> float:
    """What nobody holds of a bucket now. At no time was it more than what workers held left room for."""
    # A change counts from now on; what was used counts on after it.
    each = old.amount / claim.seconds / 1000
    tokens = old.tokens + (claim.amount - old.amount)
    tokens = min(tokens + max(since - old.at, 0) * each, float(claim.amount - old.held))
    return min(tokens + max(now - max(since, old.at), 0) * each, float(claim.amount - held))


def scoped(scope: Scope, limit: Limit, milliseconds: int, zone: ZoneInfo) -> ScopedLimit:
    """A scope's limit at a time of day, in milliseconds since the epoch."""
    limit_id = f"{scope.kind}:{scope.name}|{limit.name}"
    if limit.kind != "quota":
        return ScopedLimit(scope, limit, limit_id)
    period = period_at(limit.window, milliseconds, zone)
    quota = Quota(scope, limit.measure, limit.pattern, period.start, period.end)
    return ScopedLimit(scope, limit, f"{limit_id}|{period.name}", quota)


def state_of(
    one: ScopedLimit, standing: Standing | None, holdings: Sequence[Holding], *, used: int, now: int
) -> LimitState:
    """What somebody would find who claims nothing. The arguments are those of `grant`."""
    limit = one.limit
    seconds = limit.seconds if limit.kind == "bucket" else 0
    nothing = Claim(one.limit_id, limit.kind, limit.amount, held=0, seconds=seconds, quota=one.quota)
    held = sum([holding.held for holding in holdings])
    since = None if standing is None else standing.at
    given, _ = grant(nothing, standing, own=0, others=held, used=used, now=now, unchanged_since=since)
    return LimitState(given.left, used, tuple(holdings))
