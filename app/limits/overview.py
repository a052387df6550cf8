"""How limits stand: for operators, and for the holder of a key."""

import time
from collections.abc import Iterable, Sequence
from zoneinfo import ZoneInfo

from msgspec import Struct
from msgspec.structs import replace

from app.domain.caller import Caller
from app.domain.granting import Holding, LimitState, Scope, ScopedLimit, scoped
from app.domain.limits import NANO, Limit, Measure
from app.limits.allowance import Allowance
from app.limits.book import LimitBook
from app.limits.leases import Leases


class LimitUse(Struct, frozen=True):
    """How much of a limit is used.

    Args:
        used: Of a bucket: what hasn't refilled yet; of permits: what workers have taken.
        held: What workers have leased and not used yet.
        free: What nobody has leased.
        reset: Seconds until all of it is free again; None if no time brings that about.
    """

    scope: Scope
    limit: Limit
    used: int
    held: int
    free: int
    reset: float | None

    @property
    def remaining(self) -> int:
        """What can still be used."""
        return max(self.limit.amount - self.used, 0)


def use_of(one: ScopedLimit, state: LimitState, epoch: float) -> LimitUse:
    """How much of a limit is used.

    Args:
        epoch: The store's time of day, in seconds since the epoch.
    """
    limit = one.limit
    held = sum([holding.held for holding in state.holdings])
    free = max(int(state.left), 0)
    if limit.kind == "permits":
        return LimitUse(one.scope, limit, held, 0, free, None)
    if limit.kind == "quota":
        reset = None if limit.window == "total" else max(one.ends_at - epoch, 0.0)
        return LimitUse(one.scope, limit, state.used, held, free, reset)
    # Debts, too: they have to be paid before anything is free.
    missing = max(limit.amount - held - state.left, 0.0)
    used = max(limit.amount - held - free, 0)
    return LimitUse(one.scope, limit, used, held, free, missing * limit.seconds / limit.amount)


def figure(amount: int, measure: Measure) -> int | float:
    """An amount for machines that don't know of nano-dollars."""
    return amount / NANO if measure == "dollars" else amount


def limits_of(book: LimitBook, scopes: Iterable[Scope], epoch: float, zone: ZoneInfo) -> list[ScopedLimit]:
    """The limits of scopes at a time of day, in seconds since the epoch."""
    return [scoped(scope, limit, round(epoch * 1000), zone) for scope in scopes for limit in book.of(scope)]


class Overview:
    """Says how a caller of this worker stands.

    Args:
        book: Which limits there are.
        leases: What this worker has leased.
        zone: Whose calendar quotas follow.
        worker: How the store calls this worker.
    """

    def __init__(self, book: LimitBook, leases: Leases, zone: ZoneInfo, worker: str = "") -> None:
        self._book = book
        self._leases = leases
        self._zone = zone
        self._worker = worker

    def limits_of(self, caller: Caller) -> list[ScopedLimit]:
        """All limits that hold for a caller's calls, of some or of all models."""
        scopes = (Scope("key", caller.id), Scope("project", caller.project), Scope("gateway"))
        return limits_of(self._book, scopes, self._epoch(), self._zone)

    def uses(self, limits: Sequence[ScopedLimit], states: Sequence[LimitState]) -> list[LimitUse]:
        """How much of limits is used, as the store knows it, and as this worker knows it better."""
        epoch = self._epoch()
        return [
            use_of(one, self._corrected(state, self._leases.known(one.limit_id)), epoch)
            for one, state in zip(limits, states, strict=True)
        ]

    def _corrected(self, state: LimitState, own: Allowance | None) -> LimitState:
        """The state with what this worker has done since it last told the store."""
        if own is None:
            return state
        others = [holding for holding in state.holdings if holding.worker != self._worker]
        unused = max(own.free, 0)
        if own.kind == "permits":
            mine = Holding(self._worker, "", own.in_use)
            return replace(state, left=state.left + unused, holdings=(*others, mine))
        mine = Holding(self._worker, "", unused)
        if own.kind == "quota":
            return replace(state, used=state.used + own.in_use, holdings=(*others, mine))
        return replace(state, left=state.left + min(own.free, 0), holdings=(*others, mine))

    def _epoch(self) -> float:
        return time.time() + self._leases.clock_offset
