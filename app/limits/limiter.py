"""Lets calls in, as far as their limits allow: all limits of a call, or none.

In steady use that is arithmetic in memory: what a call takes was leased before. Only a call that finds too little asks
the store and waits for it, and if nothing comes free in a short while, it is refused.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Literal
from zoneinfo import ZoneInfo

from msgspec import Struct, field
from msgspec.structs import replace

from app.domain.caller import Caller
from app.domain.chat import ChatCall, Usage
from app.domain.errors import GatewayOverloaded, LimitReached, LimitsUnavailable, QuotaSpent
from app.domain.granting import Scope, scoped
from app.domain.limits import MEASURES, Headroom, Limit, Measure, all_measured
from app.domain.relay import RelayCall
from app.domain.tokens import estimate
from app.domain.waits import OnWait, Waiting
from app.limits.allowance import PERMIT, REQUEST, SIZED, Allowance
from app.limits.book import LimitBook
from app.limits.leases import Leases
from app.limits.refusals import no_room, quota_spent, too_large

_MOST_PLANS = 20_000
# Calls that may wait for a limit at a time: so many, or as many as it lets in within the longest wait, up to a bound.
_MOST_WAITING, _MOST_WAITING_AT_LARGE_LIMITS = 16, 1000
# What an answer is taken to need before there was one, and how much the newest one counts for the next.
_FIRST_OUTPUT = 256.0
_NEWEST_PART = 0.2
_LOOK_AGAIN_SECONDS = 0.1
# However long a call may wait, it notices within that time that its limits have changed.
_LOOK_AT_LIMITS_SECONDS = 0.5
# What headers say may be so old, if calls since then used at most this part of each limit that they tell of.
_TOLD_SECONDS, _TOLD_PARTS = 0.1, 10_000
_TOLD_MEASURES: frozenset[Measure] = frozenset({"requests", "tokens", "input tokens", "output tokens"})
# What every call takes of each measure, whatever its size.
_ONE_EACH = all_measured(1, 0, 0, 0, at_once=1)
_NOTHING = all_measured(0, 0, 0, 0)
_NO_TOKENS = Usage(0, 0)

Without = Literal["share", "refuse"]
# Nano-dollars of tokens read, written, and read from a cache.
Cost = Callable[[str, str, Usage], int]
# Finds the tightest limit of some measures.
Tightest = Callable[[frozenset[Measure]], Headroom | None]
Headers = list[tuple[bytes, bytes]]


class LimiterPolicy(Struct, frozen=True):
    """How limits are applied.

    Args:
        wait: Seconds that a call waits at most for something to come free.
        zone: Whose calendar quotas follow.
        without_store: What holds while the store is away: a fair share of each limit, or nothing is let in.
    """

    wait: float = 1.0
    zone: ZoneInfo = ZoneInfo("UTC")
    without_store: Without = "share"


class _Plan(Struct):
    """The limits of a caller's calls to a model.

    Args:
        owners: Whose limit each is, and how messages call it.
        model: That model.
        ones: What a call takes of each, if that is one each; None if it depends on the call.
        permits: Those of them that running calls hold.
        requests: The places and allowances of those that a call takes one of, whatever it uses.
        sized: The places and allowances of those that a call takes as much of as it uses.
        of_each: Takes what each limit counts out of what `all_measured` gives.
        costs: Whether one of them counts dollars.
        least: The fewest tokens that one of them allows at all; 0 if one counts dollars.
        until: When a quota's period ends, in the loop's time.
        version: Of what it was made from.
        period: What the periods of its quotas have in common, in seconds since the epoch; None if it has none.
        output: The usual number of tokens in an answer.
        by_measures: The allowances of some measures, as far as they were asked for.
        is_large: Whether headers needn't be exact to the last call.
        told: What they said, as written by `told_by`; it may be said again until `told_until`, so many times.
    """

    allowances: tuple[Allowance, ...]
    owners: tuple[tuple[Scope, str], ...]
    model: str
    permits: tuple[Allowance, ...]
    requests: tuple[tuple[int, Allowance], ...]
    sized: tuple[tuple[int, Allowance], ...]
    of_each: Callable[[tuple[int, ...]], tuple[int, ...]]
    costs: bool
    least: float
    ones: tuple[int, ...] | None
    until: float
    version: int
    period: tuple[float, float] | None = None
    output: float = _FIRST_OUTPUT
    by_measures: dict[frozenset[Measure], tuple[Allowance, ...]] = field(default_factory=dict)
    is_large: bool = False
    told: Headers = field(default_factory=list)
    told_by: Callable[[Tightest], Headers] | None = None
    told_until: float = 0.0
    told_again: int = 0


class _Wish(Struct, frozen=True):
    """A call that waits to be let in, whatever its limits become in the meantime.

    Args:
        provider: Whose prices count.
        model: Its model.
        new_plan: Makes a plan of its limits as they are now.
        deadline: Until when it waits at most, in the loop's time.
        most_waiting: How many may wait for a limit with it.
    """

    call: ChatCall | RelayCall
    provider: str
    model: str
    new_plan: Callable[[], _Plan]
    deadline: float
    most_waiting: int = _MOST_WAITING


class Admission(Struct, eq=False):
    """A call that has been let in. `settle` must follow, however it ends.

    Attributes:
        at: When it counts, in seconds of the store's time since the epoch; 0 if it has no quotas. The ledger has to
            count it in the periods that it was let in for, however close to midnight that was, and whatever this
            machine's clock says.
    """

    _limiter: "Limiter"
    _plan: _Plan
    _reserved: Sequence[int]
    at: float = 0.0

    @property
    def model(self) -> str:
        """The model that the call was let in for."""
        return self._plan.model

    def settle(
        self,
        charged: Usage | None,
        *,
        counts: bool,
        was_answered: bool = False,
        provider: str = "",
        model: str = "",
    ) -> None:
        """Give back what the call didn't use, and take what it used beyond its reservation.

        Args:
            charged: The tokens that its caller pays.
            counts: Whether it was a request.
            was_answered: Whether an answer came, or began to: it counts for a quota of requests, even without tokens.
            provider: Who answered, and with which model: their prices count, and limits for other models count nothing
                of it.
        """
        limiter, plan = self._limiter, self._plan
        is_other = model not in (plan.model, "")
        if charged is not None and plan.ones is None and not is_other:
            plan.output += (charged.completion_tokens - plan.output) * _NEWEST_PART
        for allowance in plan.permits:
            allowance.release()
            if allowance.wanted:
                limiter.leases.note(allowance)
        settled = plan.sized if counts else (*plan.sized, *plan.requests)
        if not settled:
            return  # requests are used up as they are taken
        used_of = limiter.measured(plan, charged or (_NO_TOKENS if was_answered and counts else None), provider, model)
        reserved, used_of_each = self._reserved, plan.of_each(used_of)
        for place, allowance in settled:
            amount, used = reserved[place], used_of_each[place]
            if is_other and not allowance.limit.counts(model):
                used = 0
            if allowance.is_given_back:
                allowance.settle_quota(amount, used, limiter.line())
            elif used != amount:
                allowance.settle_bucket(amount, used)

    def headers(self, write: Callable[[Tightest], Headers]) -> Headers:
        """The headers that tell what limits leave.

        Large limits are not looked at for each call: then headers are up to 0.1 s and 0.01 % of the limit behind.

        Args:
            write: Writes them.
        """
        plan, now = self._plan, self._limiter.now()
        if plan.told_again > 0 and now < plan.told_until and plan.told_by is write:
            plan.told_again -= 1
            return plan.told
        headers = write(self.tightest)
        if plan.is_large:
            plan.told, plan.told_by, plan.told_until = headers, write, now + _TOLD_SECONDS
            plan.told_again = min(
                [
                    one.limit.amount // (max(amount, 1) * _TOLD_PARTS)
                    for one, amount in zip(plan.allowances, self._reserved, strict=True)
                    if one.limit.measure in _TOLD_MEASURES
                ]
            )
        return headers

    def tightest(self, measures: frozenset[Measure]) -> Headroom | None:
        """What the tightest limit of one of these measures leaves, for the headers of the answer."""
        plan = self._plan
        of_these = plan.by_measures.get(measures)
        if of_these is None:
            of_these = tuple([one for one in plan.allowances if one.limit.measure in measures])
            plan.by_measures[measures] = of_these
        if not of_these:
            return None
        now = self._limiter.now()
        tightest = of_these[0]
        least = tightest.remaining(now)
        for place in range(1, len(of_these)):
            remaining = of_these[place].remaining(now)
            if remaining < least:
                tightest, least = of_these[place], remaining
        limit = tightest.limit
        if tightest.seconds_each:
            return Headroom(limit, least, (limit.amount - least) * tightest.seconds_each)
        return Headroom(limit, least, self._limiter.reset(tightest, least))


class Limiter:
    """Knows which limits a call has, and lets it in or not.

    Args:
        book: Which limits there are.
        leases: What this worker may use of them.
        policy: How they are applied.
        cost: What tokens cost, by provider and model.
        line: The newest line of this worker's journal.
        on_refusal: Told of each refusal: the kind of scope that has the limit, and what it counts.
    """

    def __init__(
        self,
        book: LimitBook,
        leases: Leases,
        policy: LimiterPolicy,
        *,
        cost: Cost | None = None,
        line: Callable[[], int] = lambda: 0,
        on_refusal: Callable[[str, str], None] | None = None,
    ) -> None:
        self._book = book
        self.leases = leases
        self._policy = policy
        self._cost = cost
        self.line = line
        self._on_refusal = on_refusal
        self._plans: OrderedDict[tuple[str, str, str], _Plan] = OrderedDict()
        # The loop's time; a loop is there from the first call on.
        self.now: Callable[[], float] = self._first_now

    @property
    def limits_upstreams(self) -> bool:
        """Whether calls have to ask for `at_upstream`."""
        return self._book.limits_upstreams

    @property
    def limits_calls(self) -> bool:
        """Whether calls have to ask for `admit`; most gateways limit nobody, and save its microseconds."""
        return self._book.limits_calls

    async def admit(
        self, call: ChatCall | RelayCall, caller: Caller, provider: str, model: str, on_wait: OnWait | None = None
    ) -> Admission | None:
        """Let a caller's call in; None if nothing limits it.

        Args:
            provider: The provider that is asked first, whose prices count.
            model: Its model.
            on_wait: Told how long it had to wait.

        Raises:
            LimitReached: A limit leaves no room for it, nor will in a moment.
            QuotaSpent: A quota is used up.
            LimitsUnavailable: The store is away, and nothing is to be let in without it.
        """
        now = self.now()
        plan = self._plans.get((caller.id, model, caller.project))
        if plan is None or now >= plan.until or plan.version != self._book.version + self.leases.version:
            plan = self._new_plan(caller, model)
        if not plan.allowances:
            return None
        reserved: Sequence[int] = plan.ones or self._reservation(plan, call, provider, model)
        admission = self._taken(plan, reserved, now)
        if admission is None:
            new_plan = partial(self._new_plan, caller, model)
            wish = _Wish(call, provider, model, new_plan, now + self._policy.wait)
            with Waiting("limits", on_wait):
                admission = await self._taken_later(plan, reserved, wish)
        return admission

    async def at_upstream(
        self,
        call: ChatCall | RelayCall,
        provider: str,
        model: str,
        seconds: float,
        on_wait: OnWait | None = None,
    ) -> Admission | None:
        """Let a call to an upstream through; None if nothing limits it.

        Args:
            seconds: To wait at most.
            on_wait: Told how long it had to wait.

        Raises:
            GatewayOverloaded: The upstream's limit leaves no room for it.
        """
        now, plan = self.now(), self._plans.get(_upstream_key(provider, model))
        if plan is None or self._is_old(plan, now):
            plan = self._new_upstream_plan(provider, model)
        wish = _Wish(
            call, provider, model, partial(self._new_upstream_plan, provider, model), now + seconds, _MOST_WAITING * 64
        )
        return await self._passed(plan, wish, on_wait)

    async def at_fallback(
        self,
        call: ChatCall | RelayCall,
        caller: Caller,
        target: tuple[str, str],
        instead_of: tuple[str, ...],
        seconds: float,
        on_wait: OnWait | None = None,
    ) -> Admission | None:
        """Let a call that is in already go to another model; None if that one has no limits of its own.

        Args:
            target: The provider that is about to be asked, and its model.
            instead_of: The models that it was let in for: what counts one of them, too, was taken with it.
            seconds: To wait at most, if that is less than other calls wait.
            on_wait: Told how long it had to wait.

        Raises:
            GatewayOverloaded: The caller's limits for that model leave no room for it.
        """
        now, (provider, model) = self.now(), target
        plan = self._plans.get(_fallback_key(caller, model, instead_of))
        if plan is None or self._is_old(plan, now):
            plan = self._new_fallback_plan(caller, model, instead_of)
        new_plan = partial(self._new_fallback_plan, caller, model, instead_of)
        deadline = now + min(seconds, self._policy.wait)
        return await self._passed(plan, _Wish(call, provider, model, new_plan, deadline), on_wait)

    async def _passed(self, plan: _Plan, wish: _Wish, on_wait: OnWait | None) -> Admission | None:
        """Let a call through to an upstream, or have the next one asked."""
        if not plan.allowances:
            return None
        try:
            reserved: Sequence[int] = plan.ones or self._reservation(plan, wish.call, wish.provider, wish.model)
            admission = self._taken(plan, reserved, self.now())
            if admission is None:
                with Waiting("limits", on_wait):
                    admission = await self._taken_later(plan, reserved, wish)
        except (LimitReached, QuotaSpent, LimitsUnavailable) as refusal:
            overloaded = GatewayOverloaded(refusal.message, retry_after=refusal.retry_after)
            overloaded.should_retry = refusal.should_retry
            raise overloaded from None
        return admission

    def measured(
        self, plan: _Plan, usage: Usage | None, provider: str, model: str, at_once: int = 0
    ) -> tuple[int, ...]:
        """What a call has used of all that limits count. Without an answer, nothing: so the ledger has it."""
        if usage is None:
            return _NOTHING
        cost = self._cost(provider, model, usage) if plan.costs and self._cost is not None else 0
        return all_measured(1, usage.prompt_tokens, usage.completion_tokens, cost, at_once)

    def _taken(self, plan: _Plan, reserved: Sequence[int], now: float) -> Admission | None:
        """Take all of it, or nothing: None."""
        if now >= self.leases.valid_until:
            self.leases.expire(now)
        # One loop that checks and takes, without a method for each limit: two would take half as long again.
        for allowance, amount in zip(plan.allowances, reserved):  # noqa: B905 - `strict` takes as long as two limits
            free = allowance.free - amount
            if free < 0:
                self._untake(plan, reserved, allowance)
                return None
            allowance.free = free
            if allowance.is_given_back:
                allowance.in_use += amount
            allowance.taken += amount
            if free < allowance.low and allowance.answer is None and now >= allowance.dry_until:
                self.leases.note(allowance)
        if plan.period is None:
            return Admission(self, plan, reserved)
        at, (start, end) = self._time(), plan.period
        return Admission(self, plan, reserved, at if start <= at < end else start if at < start else end - 0.001)

    def _untake(self, plan: _Plan, reserved: Sequence[int], short: Allowance) -> None:
        """Put back what was taken of the limits before the one that had too little."""
        for allowance, amount in zip(plan.allowances, reserved, strict=True):
            if allowance is short:
                return
            allowance.free += amount
            if allowance.is_given_back:
                allowance.in_use -= amount
            allowance.taken -= amount

    def _first_now(self) -> float:
        self.now = asyncio.get_running_loop().time
        return self.now()

    def _is_old(self, plan: _Plan, now: float) -> bool:
        """Whether limits have changed since a plan was made, or a period is over."""
        return now >= plan.until or plan.version != self._book.version + self.leases.version

    async def _taken_later(self, plan: _Plan, reserved: Sequence[int], wish: _Wish) -> Admission | None:
        """Wait until all of it can be taken, by the limits as they are then; None if nothing limits it any more."""
        while True:
            reserved = await self._wait(plan, reserved, wish)
            if self._is_old(plan, self.now()):
                plan = wish.new_plan()
                if not plan.allowances:
                    return None
                reserved = plan.ones or self._reservation(plan, wish.call, wish.provider, wish.model)
            admission = self._taken(plan, reserved, self.now())
            if admission is not None:
                return admission

    async def _wait(self, plan: _Plan, reserved: Sequence[int], wish: _Wish) -> Sequence[int]:
        """Wait until everything is free at once, or limits have changed.

        Returns:
            What is reserved: less of a quota than asked for, if what is left is enough for what is certain of the call.
        """
        now = self.now
        while True:
            self.leases.expire(now())
            places = [place for place, one in enumerate(plan.allowances) if one.free < reserved[place]]
            if not places or self._is_old(plan, now()):
                return reserved
            needs = [self._need(plan, place, reserved, wish) for place in places]
            short, (allowance, amount, least) = places[0], needs[0]
            if self.leases.is_away:
                self._share(allowance, now())
            elif not allowance.is_dry(least, now()):
                # All in one message: one after the other, each would be a way to the store and back.
                answers = [self.leases.ask(*need) for need in needs if not need[0].is_dry(need[2], now())]
                await asyncio.shield(answers[0])
                if self.leases.is_away:
                    continue  # nobody answered, perhaps for longer than calls wait: this worker's share counts
            if allowance.free >= least:
                reserved = [*reserved[:short], min(allowance.free, amount), *reserved[short + 1 :]]
                continue
            pause = allowance.ready_in(amount, now())
            pause = max(_LOOK_AGAIN_SECONDS if pause is None else pause, 0.001)
            if allowance.is_dry(least, now()):
                pause = max(pause, allowance.dry_until - now())
            # Not in this period any more, whatever is given back of what is in use.
            is_spent = allowance.kind == "quota" and allowance.used + least > allowance.limit.amount
            most_waiting = max(wish.most_waiting, self._let_in(allowance))
            if is_spent or now() + pause > wish.deadline or allowance.waiting >= most_waiting:
                raise self._refusal(plan, short, least, now())
            await self._until_freed(plan, allowance, now() + pause)

    async def _until_freed(self, plan: _Plan, allowance: Allowance, end: float) -> None:
        """Wait until something has become free, limits have changed, or it is time."""
        while (left := end - self.now()) > 0 and not self._is_old(plan, self.now()):
            if await _freed(allowance, min(left, _LOOK_AT_LIMITS_SECONDS)):
                return

    def _need(self, plan: _Plan, place: int, reserved: Sequence[int], wish: _Wish) -> tuple[Allowance, int, int]:
        """An allowance that has too little, what the call has to have of it, and what would do: of a quota, what is
        certain of the call."""
        allowance, amount = plan.allowances[place], reserved[place]
        if allowance.kind != "quota":
            return allowance, amount, amount
        certain = self.measured(plan, Usage(_prompt_tokens(wish.call), 0), wish.provider, wish.model)
        return allowance, amount, max(plan.of_each(certain)[place], 1)

    def _let_in(self, allowance: Allowance) -> float:
        """How many calls a limit lets in within the longest wait, as far as that matters."""
        if not allowance.seconds_each or allowance.unit != REQUEST:
            return 0
        return min(self._policy.wait / allowance.seconds_each, _MOST_WAITING_AT_LARGE_LIMITS)

    def _share(self, allowance: Allowance, now: float) -> None:
        if self._policy.without_store == "refuse":
            raise LimitsUnavailable("Limits can't be checked at the moment; try again soon.", retry_after=2)
        self.leases.stand_alone(allowance, now)

    def _reservation(self, plan: _Plan, call: ChatCall | RelayCall, provider: str, model: str) -> Sequence[int]:
        """What a call is taken to need of each limit: its prompt, and an answer as long as usual."""
        prompt = _prompt_tokens(call)
        output = int(plan.output) * call.n
        if call.max_tokens is not None:
            output = min(output, call.max_tokens)
        if plan.costs:
            used = Usage(prompt, output)
            if isinstance(call, RelayCall) and call.unit is not None:
                # At least one of them: else a quota that is spent would let in what has no price but by the piece.
                used = replace(used, unit=call.unit, amount=call.amount or 1)
            usual = self.measured(plan, used, provider, model, at_once=1)
        else:
            usual = all_measured(1, prompt, output, 0, 1)
        reserved = plan.of_each(usual)
        if prompt + output <= plan.least:
            return reserved
        certain = plan.of_each(self.measured(plan, Usage(prompt, 0), provider, model))
        for allowance, owner, amount in zip(plan.allowances, plan.owners, certain, strict=True):
            if amount > allowance.limit.amount:
                self._count(owner[0], allowance.limit)
                raise too_large(owner[1], allowance.limit, prompt)
        # Never more than there is: the answer's length is only a guess.
        return [min(amount, one.limit.amount) for one, amount in zip(plan.allowances, reserved, strict=True)]

    def _new_plan(self, caller: Caller, model: str) -> _Plan:
        return self._planned((caller.id, model, caller.project), model, _whose(caller))

    def _new_fallback_plan(self, caller: Caller, model: str, instead_of: tuple[str, ...]) -> _Plan:
        return self._planned(_fallback_key(caller, model, instead_of), model, _whose(caller), instead_of)

    def _new_upstream_plan(self, provider: str, model: str) -> _Plan:
        owner = (Scope("upstream", provider), f"The upstream {provider}")
        return self._planned(_upstream_key(provider, model), model, (owner,))

    def _planned(
        self,
        key: tuple[str, str, str],
        model: str,
        whose: Sequence[tuple[Scope, str]],
        instead_of: tuple[str, ...] = (),
    ) -> _Plan:
        """Make and keep a plan of the limits that count a model, but don't count one that it stands in for."""
        moment = self._time()
        start, end = 0.0, math.inf
        allowances, owners = [], []
        for scope, owner in whose:
            for limit in self._book.of(scope):
                if not limit.counts(model) or any(limit.counts(other) for other in instead_of):
                    continue
                one = scoped(scope, limit, round(moment * 1000), self._policy.zone)
                allowance = self.leases.allowance(one.limit_id, limit, one.quota, one.ends_at)
                allowances.append(allowance)
                owners.append((scope, owner))
                if one.quota is not None:
                    start, end = max(start, one.quota.start / 1000), min(end, one.ends_at)
        places = tuple([MEASURES.index(allowance.limit.measure) for allowance in allowances])
        costs = any(allowance.limit.measure == "dollars" for allowance in allowances)
        sized = [one.limit.amount for one, place in zip(allowances, places, strict=True) if not _ONE_EACH[place]]
        told = [one.limit.amount for one in allowances if one.limit.measure in _TOLD_MEASURES]
        old = self._plans.get(key)
        plan = self._plans[key] = _Plan(
            allowances=tuple(allowances),
            owners=tuple(owners),
            model=model,
            permits=tuple([one for one in allowances if one.unit == PERMIT]),
            requests=tuple([(place, one) for place, one in enumerate(allowances) if one.unit == REQUEST]),
            sized=tuple([(place, one) for place, one in enumerate(allowances) if one.unit == SIZED]),
            of_each=_of_each(places),
            costs=costs,
            least=0 if costs else min(sized, default=math.inf),
            ones=None if sized else (1,) * len(allowances),
            until=self.now() + end - moment,
            version=self._book.version + self.leases.version,
            period=(start, end) if end < math.inf else None,
            output=_FIRST_OUTPUT if old is None else old.output,
            is_large=min(told, default=0) >= 2 * _TOLD_PARTS,
        )
        while len(self._plans) > _MOST_PLANS:
            self._plans.popitem(last=False)
        return plan

    def _time(self) -> float:
        """The store's time of day, in seconds since the epoch."""
        return time.time() + self.leases.clock_offset

    def reset(self, allowance: Allowance, remaining: int) -> float:
        """Seconds until all of a limit is free again."""
        if allowance.limit.window == "total":
            return math.inf
        if allowance.kind == "quota":
            return max(allowance.ends_at - self._time(), 0.0)
        if allowance.kind == "permits":
            return 0.0
        return (allowance.limit.amount - remaining) * allowance.seconds_each

    def _refusal(self, plan: _Plan, place: int, amount: int, now: float) -> LimitReached | QuotaSpent:
        allowance, (scope, owner) = plan.allowances[place], plan.owners[place]
        self._count(scope, allowance.limit)
        headroom = [
            Headroom(one.limit, one.remaining(now), self.reset(one, one.remaining(now))) for one in plan.allowances
        ]
        if allowance.kind == "quota":
            return quota_spent(owner, allowance, self.reset(allowance, 0), headroom)
        return no_room(owner, allowance, amount, now, headroom)

    def _count(self, scope: Scope, limit: Limit) -> None:
        if self._on_refusal is not None:
            self._on_refusal(scope.kind, limit.measure)


def _of_each(places: Sequence[int]) -> Callable[[tuple[int, ...]], tuple[int, ...]]:
    """Takes what is at these places out of a tuple."""
    # Of a single place it would give no tuple.
    return itemgetter(*places) if len(places) > 1 else lambda measured: tuple([measured[place] for place in places])


def _prompt_tokens(call: ChatCall | RelayCall) -> int:
    if isinstance(call, RelayCall):
        return call.prompt_tokens
    tokens = 0
    # A loop, because most calls have one message: a list of one to add up takes twice as long.
    for message in call.messages:
        tokens += estimate(message.text)
    return tokens


def _whose(caller: Caller) -> tuple[tuple[Scope, str], ...]:
    """Whose limits count a caller's calls, and how messages call each."""
    return (
        (Scope("key", caller.id), f"Key '{caller.name or caller.id}'"),
        (Scope("project", caller.project), f"Project '{caller.project}'"),
        (Scope("gateway"), "This gateway"),
    )


def _fallback_key(caller: Caller, model: str, instead_of: tuple[str, ...]) -> tuple[str, str, str]:
    return f"{caller.id} instead of {' '.join(instead_of)}", model, caller.project


def _upstream_key(provider: str, model: str) -> tuple[str, str, str]:
    return f"upstream {provider}", model, ""


async def _freed(allowance: Allowance, seconds: float) -> bool:
    """Wait until something has become free, or the time is over; whether something has."""
    if allowance.freed is None:
        allowance.freed = asyncio.get_running_loop().create_future()
    allowance.waiting += 1
    try:
        # Not `wait_for`: others wait for the same future, and it must not be cancelled.
        done, _ = await asyncio.wait((allowance.freed,), timeout=seconds)
    finally:
        allowance.waiting -= 1
    return bool(done)
