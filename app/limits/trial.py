"""What limits would have refused: calls of the past are put through them in the order in which they began.

That is what the limiter does, but for three things. What a call will have used is known when it begins. All workers are
one. And who was refused doesn't come again.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from heapq import heappop, heappush, heapreplace
from typing import Protocol
from zoneinfo import ZoneInfo

from msgspec import Struct

from app.domain.limits import Limit, measured, period_at

# Refusals are counted by stretches of so many milliseconds.
STRETCH = 300_000


class TrialCall(Struct, frozen=True):
    """A call that was made.

    Args:
        at: When it began, in milliseconds since the epoch.
        milliseconds: How long it took.
        cost: In nano-dollars.
    """

    at: int
    milliseconds: int
    model: str
    tokens_in: int
    tokens_out: int
    cost: int = 0


class Trial:
    """Puts calls through limits.

    Args:
        limits: The limits.
        zone: Whose calendar quotas follow.
        begin: When the time begins in which the calls were made, in milliseconds since the epoch.
        wait: Seconds that a call waits at most for room.
        used: What was used of quotas in their periods until then.

    Attributes:
        calls: How many were counted.
        refused: How many of them would have been refused.
        by_limit: The same by the limit that had no room, or the first of several.
        by_time: The same by when the stretch begins in which they began.
    """

    def __init__(
        self,
        limits: Sequence[Limit],
        zone: ZoneInfo,
        *,
        begin: int = 0,
        wait: float = 0.0,
        used: Mapping[Limit, int] | None = None,
    ) -> None:
        self._gates: list[tuple[Limit, _Gate]] = []
        for limit in limits:
            match limit.kind:
                case "bucket":
                    self._gates.append((limit, _Bucket(limit, wait * 1000)))
                case "permits":
                    self._gates.append((limit, _Permits(limit, wait * 1000)))
                case "quota":
                    self._gates.append((limit, _Quota(limit, zone, begin, (used or {}).get(limit, 0))))
        self.calls = 0
        self.refused = 0
        self.by_limit: Counter[Limit] = Counter()
        self.by_time: Counter[int] = Counter()

    def put(self, call: TrialCall, *, counted: bool = True) -> bool:
        """Put a call through; none that began later must have come before. Whether it would have been let in.

        Args:
            counted: Whether it is one of those that were asked about, and not only one that came before them.
        """
        gates = [(limit, gate) for limit, gate in self._gates if limit.counts(call.model)]
        short = next((limit for limit, gate in gates if not gate.has_room(call)), None)
        if short is None:
            for _, gate in gates:
                gate.take(call)
        if counted:
            self.calls += 1
            if short is not None:
                self.refused += 1
                self.by_limit[short] += 1
                self.by_time[call.at - call.at % STRETCH] += 1
        return short is None


class _Gate(Protocol):
    """One limit."""

    def has_room(self, call: TrialCall) -> bool:
        """Whether a call is let in. It is asked once for each, in their order."""

    def take(self, call: TrialCall) -> None:
        """Let it in."""


class _Bucket:
    """Refills steadily, and is full at first. Times are in milliseconds."""

    def __init__(self, limit: Limit, wait: float) -> None:
        self._limit = limit
        self._rate = limit.amount / limit.seconds / 1000
        self._wait = wait
        self._free = float(limit.amount)
        self._at: int | None = None

    def has_room(self, call: TrialCall) -> bool:
        if self._at is not None:
            refilled = max(call.at - self._at, 0) * self._rate
            self._free = min(self._free + refilled, float(self._limit.amount))
        self._at = call.at
        amount = self._limit.amount
        if self._limit.measure not in ("requests", "output tokens") and call.tokens_in > amount:
            return False
        return self._free + self._wait * self._rate >= min(_use(self._limit, call), amount)

    def take(self, call: TrialCall) -> None:
        self._free -= _use(self._limit, call)


class _Quota:
    """Counts by periods of a calendar. Nobody waits for the next one."""

    def __init__(self, limit: Limit, zone: ZoneInfo, begin: int, used: int) -> None:
        self._limit = limit
        self._zone = zone
        self._used = used
        self._period = period_at(limit.window, begin, zone)

    def has_room(self, call: TrialCall) -> bool:
        if call.at >= self._period.end:
            self._used = 0
            self._period = period_at(self._limit.window, call.at, self._zone)
        return self._used + min(_use(self._limit, call), self._limit.amount) <= self._limit.amount

    def take(self, call: TrialCall) -> None:
        # A call that got no word counts for no quota.
        if call.tokens_in or call.tokens_out:
            self._used += _use(self._limit, call)


class _Permits:
    """So many at once. Who waits gets the first that comes free."""

    def __init__(self, limit: Limit, wait: float) -> None:
        self._amount = limit.amount
        self._wait = wait
        # When each that is in use comes free.
        self._ends: list[int] = []

    def has_room(self, call: TrialCall) -> bool:
        while self._ends and self._ends[0] <= call.at:
            heappop(self._ends)
        return len(self._ends) < self._amount or self._ends[0] <= call.at + self._wait

    def take(self, call: TrialCall) -> None:
        if len(self._ends) < self._amount:
            heappush(self._ends, call.at + call.milliseconds)
        else:
            heapreplace(self._ends, self._ends[0] + call.milliseconds)


def _use(limit: Limit, call: TrialCall) -> int:
    return measured(limit.measure, requests=1, tokens_in=call.tokens_in, tokens_out=call.tokens_out, cost=call.cost)
