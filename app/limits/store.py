"""Where limits are shared."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Protocol
from zoneinfo import ZoneInfo

from app.domain.chat import Usage
from app.domain.granting import (
    Claim,
    Exchanged,
    Holding,
    LimitState,
    Quota,
    Scope,
    ScopedLimit,
    Standing,
    grant,
    state_of,
)
from app.domain.limits import Limit, Period, measured, period_at
from app.domain.usage import CallRecord

# Longer than a month, in milliseconds: what was used before counts for no period that has an end.
_DAYS_APART = 40 * 86_400_000
# Of models, as clients may call those that no upstream lists what they like.
_MOST_NAMES = 5000
_NO_TOKENS = Usage(0, 0)


class StoreAway(Exception):
    """The store can't be reached, or takes too long."""


class LimitStore(Protocol):
    """Divides limits among workers. One worker's messages come one after the other."""

    async def exchange(self, claims: Sequence[Claim]) -> Exchanged:
        """Tell that the worker lives, and make its claims, all or none.

        Raises:
            StoreAway: Nobody knows whether it was done.
        """


class MemoryStore:
    """For a gateway of one process without a database. What was used is forgotten when it ends.

    Args:
        zone: Whose calendar counts.
        clock: Seconds that pass.
    """

    def __init__(self, zone: ZoneInfo, clock: Callable[[], float] = time.monotonic) -> None:
        self._zone = zone
        self._clock = clock
        self._standings: dict[str, Standing] = {}
        self._held: dict[str, int] = {}
        # By scope, then by day and model: requests, tokens in, tokens out.
        self._used: defaultdict[Scope, defaultdict[tuple[int, str], list[int]]] = defaultdict(_no_use)
        self._newest_day = Period("", 0, 0)
        self._names: set[str] = set()

    async def exchange(self, claims: Sequence[Claim]) -> Exchanged:
        """See `LimitStore`."""
        now = round(self._clock() * 1000)
        grants = {}
        for claim in claims:
            given, self._standings[claim.limit_id] = grant(
                claim,
                self._standings.get(claim.limit_id),
                own=self._held.get(claim.limit_id, 0),
                others=0,
                used=0 if claim.quota is None else self._used_of(claim.quota),
                now=now,
            )
            self._held[claim.limit_id] = claim.held + given.granted
            grants[claim.limit_id] = given
        return Exchanged(grants, 1, is_new=False, epoch=time.time_ns() // 1_000_000)

    def states_of(self, limits: Sequence[ScopedLimit]) -> list[LimitState]:
        """What is left of limits, and what the worker holds of them."""
        now = round(self._clock() * 1000)
        return [
            state_of(
                one,
                self._standings.get(one.limit_id),
                [Holding("", "", self._held.get(one.limit_id, 0))],
                used=0 if one.quota is None else self._used_of(one.quota),
                now=now,
            )
            for one in limits
        ]

    def call_ended(self, record: CallRecord) -> None:
        """Count what a call has used: this store's ledger."""
        charged = record.charged or _NO_TOKENS
        if record.charged is None and record.upstream_seconds is None:
            return  # no answer came: that counts for no quota
        began = int((record.began or time.time() - record.seconds) * 1000)
        day, name = self._day_of(began), self._name_of(record)
        for scope in (
            Scope("key", record.caller_id),
            Scope("project", record.project),
            Scope("upstream", record.provider),
            Scope("gateway"),
        ):
            used = self._used[scope][day, name]
            used[0] += 1
            used[1] += charged.prompt_tokens
            used[2] += charged.completion_tokens

    def _day_of(self, began: int) -> int:
        """When the day began in which this time lies."""
        newest = self._newest_day
        if newest.start <= began < newest.end:
            return newest.start
        day = period_at("day", began, self._zone)
        if day.start > newest.start:
            self._newest_day = day
            self._fold(day.start - _DAYS_APART)
        return day.start

    def _name_of(self, record: CallRecord) -> str:
        """Under which model's name a call is counted: its own, unless there are too many names already."""
        name = record.served_model
        if name not in self._names:
            if len(self._names) >= _MOST_NAMES:
                return record.model
            self._names.add(name)
        return name

    def _fold(self, before: int) -> None:
        """Keep what was used before a time as one sum: no period but the one without an end is as long."""
        for days in self._used.values():
            for day, model in [of for of in days if 0 < of[0] < before]:
                for place, amount in enumerate(days.pop((day, model))):
                    days[0, model][place] += amount

    def _used_of(self, quota: Quota) -> int:
        counted = Limit(1, "requests", "day", quota.pattern)
        return sum(
            measured(quota.measure, requests=used[0], tokens_in=used[1], tokens_out=used[2], cost=0)
            for (day, model), used in self._used[quota.scope].items()
            if quota.start <= day < quota.end and counted.counts(model)
        )


def _no_use() -> defaultdict[tuple[int, str], list[int]]:
    return defaultdict(lambda: [0, 0, 0])
