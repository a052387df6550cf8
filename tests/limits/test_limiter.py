"""Calls are let in by all of their limits or by none, wait a short while, and are told why if not."""

import asyncio
import re
from collections.abc import Coroutine, Sequence
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from app.domain.caller import Caller
from app.domain.chat import ChatCall, Message, Usage
from app.domain.errors import GatewayError, GatewayOverloaded, LimitReached, QuotaSpent
from app.domain.granting import Claim, Exchanged, Grant, Scope
from app.domain.limits import read_limit, read_limits
from app.domain.usage import CallRecord
from app.limits.allowance import Allowance
from app.limits.book import LimitBook
from app.limits.leases import Leases
from app.limits.limiter import Admission, Limiter, LimiterPolicy
from app.limits.store import MemoryStore, StoreAway
from tests.loops import in_leaping_time

UTC = ZoneInfo("UTC")
ADA = Caller("k_ada", "ada", "lab")
CALL = ChatCall("kimi", (Message("user", "x" * 40),))


class Gateway:
    """A limiter of one worker, its store in memory."""

    def __init__(self, limits: str, wait: float = 1.0, **scopes: str) -> None:
        fixed = {
            Scope(kind, {"gateway": "", "project": "lab", "upstream": "up"}[kind]): read_limits(text)  # type: ignore[arg-type]
            for kind, text in scopes.items()
        }
        self.book = LimitBook(read_limits(limits), fixed)
        self.store = MemoryStore(UTC, asyncio.get_running_loop().time)
        self.leases = Leases(self.store)
        self.limiter = Limiter(self.book, self.leases, LimiterPolicy(wait=wait))

    async def admit(self, call: ChatCall = CALL, caller: Caller = ADA) -> Admission:
        """Let a call in."""
        admission = await self.limiter.admit(call, caller, "up", "kimi")
        assert admission is not None
        return admission

    async def count(self, calls: int, call: ChatCall = CALL) -> int:
        """How many of so many calls are let in, all at the same time."""
        done = await asyncio.gather(*[self.admit(call) for _ in range(calls)], return_exceptions=True)
        assert all(isinstance(one, Admission | GatewayError) for one in done), done
        return sum(isinstance(one, Admission) for one in done)

    def end(self, admission: Admission, usage: Usage | None) -> None:
        """End a call, as the log of calls does."""
        self.store.call_ended(
            CallRecord(
                "k_ada",
                "kimi",
                "up",
                "completed",
                None,
                None,
                None,
                None,
                usage,
                0.0,
                None,
                project="lab",
                charged=usage,
                began=admission.at,
            )
        )
        admission.settle(usage, counts=True)


def leaping(work: Coroutine[Any, Any, None]) -> None:
    """Run a test whose time passes by itself."""
    in_leaping_time(work)


def test_all_limits_or_none() -> None:
    """A call that one limit has no room for uses nothing of the others."""

    async def work() -> None:
        gateway = Gateway("100 requests/minute, 100 requests/day, 2 at once", 0, gateway="1000 tokens/minute")
        running = [await gateway.admit() for _ in range(2)]
        assert await gateway.count(50) == 0
        for admission in running:
            gateway.end(admission, Usage(10, 10))
        let_in = 0
        for _ in range(200):
            try:
                gateway.end(await gateway.admit(ChatCall("kimi", (), max_tokens=1)), Usage(0, 1))
            except LimitReached:
                break
            let_in += 1
        assert let_in == 98
        await gateway.leases.aclose()

    leaping(work())


@pytest.mark.parametrize(
    ("limits", "message", "seconds"),
    [
        ("1 request/minute", r"may use 1 request/minute, and has; the next request is possible in 60 s\.", 60),
        ("1 at once", r"may have 1 call at once, and has; the next is possible when one has ended\.", 1),
        ("300 tokens/hour", r"may use 300 tokens/hour, and has; the next request of 266 tokens is possible .*", 2784),
    ],
)
def test_a_refusal_says_whose_limit_it_is_and_when_to_come_again(limits: str, message: str, seconds: float) -> None:
    """The key's name, the limit as its owner wrote it, and the time that a bucket needs."""

    async def work() -> None:
        gateway = Gateway(limits, 0)
        await gateway.admit()
        with pytest.raises(LimitReached) as refusal:
            await gateway.admit()
        assert re.fullmatch(f"Key 'ada' {message}", refusal.value.message), refusal.value.message
        assert refusal.value.retry_after == pytest.approx(seconds, rel=0.01)
        await gateway.leases.aclose()

    leaping(work())


def test_a_spent_quota_says_so() -> None:
    """And that trying again is of no use."""

    async def work() -> None:
        gateway = Gateway("2 requests in total")
        for _ in range(2):
            gateway.end(await gateway.admit(), Usage(1, 1))
        with pytest.raises(QuotaSpent) as refusal:
            await gateway.admit()
        assert refusal.value.message == "Key 'ada' may use 2 requests in total, and has used 2 requests."
        assert (refusal.value.retry_after, refusal.value.should_retry) == (None, False)
        await gateway.leases.aclose()

    leaping(work())


def test_a_request_that_no_wait_would_let_in_is_told_so() -> None:
    """Its prompt alone is larger than the whole limit, of a bucket or of a quota."""

    async def work() -> None:
        for limits in ("5 tokens/minute", "5 tokens/day", "5 input tokens/hour"):
            gateway = Gateway(limits)
            with pytest.raises(LimitReached, match=r"too large, now and later") as refusal:
                await gateway.admit()
            assert refusal.value.should_retry is False
            await gateway.leases.aclose()

    leaping(work())


@pytest.mark.parametrize("limits", ["100 tokens/minute", "100 tokens/day", "40 output tokens/minute"])
def test_a_guess_never_refuses_the_first_request(limits: str) -> None:
    """How long an answer gets nobody knows: a limit that is smaller than the guess lets it in."""

    async def work() -> None:
        gateway = Gateway(limits, 0)
        gateway.end(await gateway.admit(), Usage(10, 5))
        await gateway.leases.aclose()

    leaping(work())


def test_the_last_part_of_a_quota_can_be_used() -> None:
    """A call whose prompt fits into what is left is let in, although its answer may be longer than that."""

    async def work() -> None:
        gateway = Gateway("1000 tokens/day", 0)
        gateway.end(await gateway.admit(), Usage(10, 940))
        gateway.end(await gateway.admit(), Usage(10, 20))
        gateway.end(await gateway.admit(), Usage(10, 20))
        with pytest.raises(QuotaSpent):
            await gateway.admit()
        await gateway.leases.aclose()

    leaping(work())


def test_what_was_not_used_comes_back_and_what_was_overdrawn_drains() -> None:
    """Of tokens a minute: a short answer leaves room for the next one; a long one makes a debt that time pays."""

    async def work() -> None:
        loop = asyncio.get_running_loop()
        gateway = Gateway("600 tokens/minute", 0)
        first = await gateway.admit(ChatCall("kimi", (), max_tokens=500))
        gateway.end(first, Usage(0, 10))
        second = await gateway.admit(ChatCall("kimi", (), max_tokens=500))
        gateway.end(second, Usage(0, 1190))
        began = loop.time()
        for _ in range(100):
            if await gateway.count(1, ChatCall("kimi", (), max_tokens=1)):
                break
            await asyncio.sleep(1)
        assert 59 <= loop.time() - began <= 63
        await gateway.leases.aclose()

    leaping(work())


def test_a_refund_never_makes_more_than_there_is() -> None:
    """A call that gives back what has been refilled meanwhile fills the bucket at most."""

    async def work() -> None:
        gateway = Gateway("100 tokens/minute", 0)
        one = ChatCall("kimi", (), max_tokens=1)
        slow = await gateway.admit(ChatCall("kimi", (), max_tokens=100))
        await asyncio.sleep(120)
        assert await gateway.count(10, one) == 10
        gateway.end(slow, None)
        assert await gateway.count(300, one) <= 100
        await gateway.leases.aclose()

    leaping(work())


def test_calls_wait_a_short_while() -> None:
    """Until a bucket has refilled, or a call has ended; no longer than LIMIT_WAIT, and not many of them."""

    async def work() -> None:
        gateway = Gateway("10 requests/second")
        assert await gateway.count(40) in range(17, 22)
        await gateway.leases.aclose()

        gateway = Gateway("1 at once")
        loop = asyncio.get_running_loop()
        running, waiting = await gateway.admit(), asyncio.create_task(gateway.admit())
        loop.call_later(0.7, gateway.end, running, Usage(1, 1))
        began = loop.time()
        await waiting
        assert 0.7 <= loop.time() - began < 0.9
        refused = [asyncio.create_task(gateway.admit()) for _ in range(30)]
        done, _ = await asyncio.wait(refused, timeout=0.3)
        assert len(done) == 14, "16 wait, no more"
        await asyncio.wait(refused)
        assert loop.time() - began < 2.1
        await gateway.leases.aclose()

    leaping(work())


def test_a_small_request_does_not_wait_for_what_a_large_one_lacks() -> None:
    """A large one is refused; what is left lets small ones in at once."""

    async def work() -> None:
        gateway = Gateway("1000 tokens/minute", 0)
        gateway.end(await gateway.admit(ChatCall("kimi", (), max_tokens=1)), Usage(0, 500))
        assert await gateway.count(1, ChatCall("kimi", (Message("user", "x" * 3600),))) == 0
        assert await gateway.count(1, ChatCall("kimi", (), max_tokens=50)) == 1
        await gateway.leases.aclose()

    leaping(work())


def test_calls_that_are_cancelled_anywhere_leave_nothing_behind() -> None:
    """While they wait for the store, for room, or while they run."""

    async def work() -> None:
        gateway = Gateway("3 at once, 1000 requests/day")

        async def run(seconds: float) -> None:
            admission = await gateway.admit()
            try:
                await asyncio.sleep(seconds)
            finally:
                gateway.end(admission, None)

        for turn in range(40):
            tasks = [asyncio.create_task(run(0.1 * number)) for number in range(8)]
            await asyncio.sleep(0.003 * turn)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(1.5)
        assert await gateway.count(10) == 3
        await gateway.leases.aclose()

    leaping(work())


def test_an_upstreams_limit_makes_a_call_wait_or_go_elsewhere() -> None:
    """Passed over at once where another upstream may be asked, else queued until there is room."""

    async def work() -> None:
        gateway = Gateway("", upstream="1 at once")
        loop = asyncio.get_running_loop()
        passage = await gateway.limiter.at_upstream(CALL, "up", "kimi", 0)
        assert passage is not None
        with pytest.raises(GatewayOverloaded, match="upstream up"):
            await gateway.limiter.at_upstream(CALL, "up", "kimi", 0)
        loop.call_later(20, lambda: passage.settle(None, counts=True))
        began = loop.time()
        assert await gateway.limiter.at_upstream(CALL, "up", "kimi", 60) is not None
        assert 20 <= loop.time() - began <= 21
        assert await gateway.limiter.at_upstream(CALL, "other", "kimi", 0) is None
        await gateway.leases.aclose()

    leaping(work())


def test_another_amount_holds_at_once() -> None:
    """Also for calls at once that are lent already: of five that may run, two may after that."""

    async def work() -> None:
        gateway = Gateway("5 at once", 0.3)
        running = [await gateway.admit() for _ in range(5)]
        gateway.book.set_stored({Scope("key", "k_ada"): "2 at once"})
        assert await gateway.count(3) == 0
        for admission in running[:3]:
            gateway.end(admission, Usage(1, 1))
        assert await gateway.count(3) == 0
        gateway.end(running[3], Usage(1, 1))
        assert await gateway.count(3) == 1
        await gateway.leases.aclose()

    leaping(work())


def test_a_smaller_window_takes_back_what_was_leased_of_the_larger_one() -> None:
    """From the next message on, a worker keeps what it would of the smaller one, at most half of it."""

    async def work() -> None:
        gateway = Gateway("1000 requests/minute", 0)
        for _ in range(40):
            await gateway.count(10)
            await asyncio.sleep(0.1)
        gateway.book.set_stored({Scope("key", "k_ada"): "10 requests/minute"})
        await gateway.count(1)
        await asyncio.sleep(0.1)
        assert await gateway.count(100) <= 5
        await gateway.leases.aclose()

    leaping(work())


def test_a_new_period_begins_with_a_whole_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    """At midnight of the zone, also where the time of day is set anew while the process runs."""

    async def work() -> None:
        at = 1_800_000_000.0 - 1_800_000_000 % 86_400 + 86_395
        loop = asyncio.get_running_loop()
        start = loop.time()
        ahead = [0.0]
        monkeypatch.setattr("time.time", lambda: at + loop.time() - start + ahead[0])
        monkeypatch.setattr("time.time_ns", lambda: round((at + loop.time() - start + ahead[0]) * 1e9))
        gateway = Gateway("3 requests/day", 0)

        async def use_up() -> int:
            count = 0
            for _ in range(5):
                try:
                    gateway.end(await gateway.admit(), Usage(1, 1))
                except QuotaSpent:
                    break
                count += 1
            return count

        assert await use_up() == 3
        await asyncio.sleep(4.5)
        assert await use_up() == 0
        await asyncio.sleep(1)
        assert await use_up() == 3
        ahead[0] = 86_400.0  # the machine slept
        await asyncio.sleep(2)
        assert await use_up() == 3
        await gateway.leases.aclose()

    leaping(work())


def test_days_are_exact_over_midnight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls press against a quota while the day ends, and their worker's clock drifts: each day has its own, no more.

    A call counts in the day that it was let in for, also if it began before midnight, waited, or ended long after.
    """

    async def work() -> None:
        midnight = 1_800_057_600.0
        loop = asyncio.get_running_loop()
        start = loop.time()

        def time_of_day() -> float:
            return midnight - 3 + (loop.time() - start) * 0.97  # slower than the loop's

        monkeypatch.setattr("time.time", time_of_day)
        monkeypatch.setattr("time.time_ns", lambda: round(time_of_day() * 1e9))
        gateway = Gateway("20 requests/day, 8 requests/second", 0.3)
        days: dict[int, int] = {}

        async def call(seconds: float) -> None:
            try:
                admission = await gateway.admit()
            except LimitReached:
                return
            await asyncio.sleep(seconds)
            gateway.end(admission, Usage(1, 1))
            day = int(admission.at * 1000) // 86_400_000
            days[day] = days.get(day, 0) + 1

        tasks = []
        for number in range(900):
            tasks.append(asyncio.create_task(call(0.01 * (number % 50))))
            await asyncio.sleep(0.01)
        await asyncio.gather(*tasks)
        day = int(midnight) // 86_400
        assert days == {day - 1: 20, day: 20}
        await gateway.leases.aclose()

    leaping(work())


@pytest.mark.parametrize("delay", [0.0, 0.3])
def test_nobody_is_refused_while_there_is_plenty(delay: float) -> None:
    """Many calls that come before the store's first answer, or while it is slow, all get in."""

    async def work() -> None:
        gateway = Gateway("1M requests/minute, 5000 at once, 1000M tokens/day")
        exchange = gateway.store.exchange

        async def slowly(claims: Sequence[Claim]) -> Exchanged:
            await asyncio.sleep(delay)
            return await exchange(claims)

        gateway.store.exchange = slowly  # type: ignore[method-assign]
        first = asyncio.create_task(gateway.count(100))
        await asyncio.sleep(delay / 2)
        assert await gateway.count(100) == 100
        assert await first == 100

    leaping(work())


def test_a_call_asks_for_all_that_it_lacks_at_once() -> None:
    """The first call of a key with several limits takes one way to the store and back, not one for each."""

    async def work() -> None:
        gateway, asked = Gateway("60 requests/minute, 100k tokens/minute, 5 at once, 1M tokens/day"), []
        exchange = gateway.store.exchange

        async def counted(claims: Sequence[Claim]) -> Exchanged:
            asked.append(len(claims))
            return await exchange(claims)

        gateway.store.exchange = counted  # type: ignore[method-assign]
        await gateway.admit()
        assert asked == [4]

    leaping(work())


def test_what_calls_need_is_asked_for_once() -> None:
    """Calls that come while a message is on its way don't ask again for what they asked for: others could need it."""

    async def work() -> None:
        gateway = Gateway("1000 requests/minute")
        exchange, needs = gateway.store.exchange, []

        async def slowly(claims: Sequence[Claim]) -> Exchanged:
            needs.extend([claim.need for claim in claims])
            await asyncio.sleep(0.3)
            return await exchange(claims)

        gateway.store.exchange = slowly  # type: ignore[method-assign]
        first = asyncio.create_task(gateway.count(1))
        await asyncio.sleep(0.15)
        assert await gateway.count(100) == 100
        assert await first == 1
        assert sum(needs) <= 101

    leaping(work())


def test_who_waits_as_long_as_told_gets_in() -> None:
    """Also where a worker has most of what the call needs already, and others went without a moment ago."""

    async def work() -> None:
        gateway = Gateway("100 tokens/minute", 0)
        small, larger = [ChatCall("kimi", CALL.messages, max_tokens=tokens) for tokens in (15, 16)]
        assert await gateway.count(3, small) == 3
        for _ in range(5):
            while await gateway.count(1, small):
                pass
            with pytest.raises(LimitReached) as refused:
                await gateway.admit(larger)
            assert refused.value.retry_after is not None
            await asyncio.sleep(refused.value.retry_after + 0.001)
            await gateway.admit(larger)
        await gateway.leases.aclose()

    leaping(work())


def test_a_part_of_what_a_call_needs_goes_back_for_all_of_it() -> None:
    """Where others went without, too: a worker that gave back its part, and asked for the rest only, never had all."""
    allowance = Allowance("key:ada|tokens/minute", read_limit("100 tokens/minute"))
    allowance.granted(Grant(27, 0.0, wanted=True), 27, 0.0)
    allowance.need(28, 1.0)
    claim = allowance.claim(1.0, 1)
    assert (claim.held, claim.back, claim.need, claim.least) == (0, 27, 28, 28)


def test_a_spent_quota_tells_what_the_ledger_does_not_know_yet() -> None:
    """What was used a moment ago is told as used."""

    async def work() -> None:
        gateway = Gateway("3 requests/day")
        gateway.leases._written = lambda: -1
        for _ in range(3):
            (await gateway.admit()).settle(Usage(1, 1), counts=True)
        with pytest.raises(QuotaSpent, match="has used 3 requests; it begins anew"):
            await gateway.admit()
        await gateway.leases.aclose()

    leaping(work())


def test_a_store_that_comes_and_goes_takes_no_share_of_a_quota() -> None:
    """A store that answers looks but no claims, as one whose disk is full, leaves each worker the rest of its share."""

    async def work() -> None:
        gateway = Gateway("100 requests/day")
        exchange = gateway.store.exchange

        async def looked_at(claims: Sequence[Claim]) -> Exchanged:
            if claims:
                raise StoreAway("its disk is full")
            return await exchange(claims)

        gateway.store.exchange = looked_at  # type: ignore[method-assign]
        let_in = 0
        for _ in range(10):
            let_in += await gateway.count(20)
            await asyncio.sleep(2)
        assert let_in == 100

    leaping(work())


@pytest.mark.parametrize("limit", ["100 requests/day", "20 at once", "600 requests/hour"])
def test_who_learns_that_the_store_is_away_gets_a_share(limit: str) -> None:
    """Also those who waited for its answer for longer than calls wait for room."""

    async def work() -> None:
        gateway = Gateway(limit)
        assert await gateway.count(1) == 1

        async def silent(claims: Sequence[Claim]) -> Exchanged:
            await asyncio.sleep(2.0)
            raise StoreAway("it took longer than 2 s")

        gateway.store.exchange = silent  # type: ignore[method-assign]
        assert await gateway.count(10) == 10
        await gateway.leases.aclose()

    leaping(work())


def test_calls_of_a_large_limit_wait_for_a_moment_however_many_they_are() -> None:
    """A limit that lets in hundreds within a second doesn't refuse the hundredth call for want of a place to wait."""

    async def work() -> None:
        gateway = Gateway("100k requests/minute")

        async def away(claims: Sequence[Claim]) -> Exchanged:
            raise StoreAway(f"it is away, with {len(claims)} claims")

        # The worker's share refills from nothing.
        gateway.store.exchange = away  # type: ignore[method-assign]
        assert await gateway.count(200) == 200

    leaping(work())


@pytest.mark.parametrize("limits", ["1 request/minute", "1 at once", "1 request/hour, 1 at once"])
@pytest.mark.parametrize("new", ["none", "100 requests/minute, 100 at once, 100 requests/hour"])
def test_who_waits_follows_what_is_set(limits: str, new: str) -> None:
    """However long calls wait, for a key's limit or an upstream's, they go on within a second of its change."""

    async def work() -> None:
        loop = asyncio.get_running_loop()
        gateway = Gateway(limits, 4000, upstream=limits)
        await gateway.admit()
        await gateway.limiter.at_upstream(CALL, "up", "kimi", 4000)
        waiting = [
            gateway.limiter.admit(CALL, ADA, "up", "kimi"),
            gateway.limiter.at_upstream(CALL, "up", "kimi", 4000),
        ]
        changed = loop.time() + 7.0
        loop.call_at(changed, gateway.book.set_stored, {Scope("key", "k_ada"): new, Scope("upstream", "up"): new})
        admissions = await asyncio.gather(*waiting)
        assert 0 <= loop.time() - changed < 1
        assert [one is None for one in admissions] == 2 * [new == "none"]
        await gateway.leases.aclose()

    leaping(work())


def test_who_waits_is_let_in_by_the_new_limit_only() -> None:
    """A limit that is set while a call waits for another one counts for that call, too."""

    async def work() -> None:
        gateway = Gateway("1 at once", 60)
        running, waiting = await gateway.admit(), asyncio.create_task(gateway.admit())
        await asyncio.sleep(5)
        gateway.book.set_stored({Scope("key", "k_ada"): "1 at once, 1 request/day"})
        gateway.end(running, Usage(1, 1))
        with pytest.raises(QuotaSpent):
            await waiting
        await gateway.leases.aclose()

    leaping(work())


@pytest.mark.parametrize(
    ("before", "after", "let_in"),
    [
        ("1000 requests/day", "80 requests/day", 10),
        ("1000 requests/minute", "980 requests/minute", 60),
        ("1000 requests/minute", "2 requests/minute", 0),
        ("1000k tokens/hour", "3 tokens/hour", 0),
        ("50 at once", "1 at once", 1),
        ("50 at once, 1000 requests/day", "10 at once, 75 requests/day", 5),
    ],
)
def test_what_was_leased_of_a_larger_limit_lets_nobody_in(before: str, after: str, let_in: int) -> None:
    """A limit is made smaller while much of it lies ready: a crowd that comes next gets what is left of the new one."""

    async def work() -> None:
        gateway = Gateway(before, 0)
        for _ in range(70):
            gateway.end(await gateway.admit(), Usage(1, 1))
            await asyncio.sleep(0.01)
        crowd = [await gateway.admit() for _ in range(40)] if "at once" in before else []
        for admission in crowd:
            admission.settle(None, counts=False)
        gateway.book.set_stored({Scope("key", "k_ada"): after})
        assert await gateway.count(60) == let_in
        await gateway.leases.aclose()

    leaping(work())


@pytest.mark.parametrize(
    "limit", ["300 tokens/hour", "300 tokens/day", "250 output tokens/week", "90 input tokens in total"]
)
def test_an_upstreams_limits_of_tokens_hold(limit: str) -> None:
    """What is used up lets no further call through to that upstream; nor is there ever room for one that is larger."""

    async def work() -> None:
        gateway = Gateway("", upstream=limit)
        let_through = 0

        async def use() -> None:
            nonlocal let_through
            while let_through < 9:
                passage = await gateway.limiter.at_upstream(CALL, "up", "kimi", 0)
                assert passage is not None
                gateway.end(passage, Usage(30, 100))
                let_through += 1

        with pytest.raises(GatewayOverloaded, match="The upstream up may use"):
            await use()
        assert 0 < let_through <= 3
        long = ChatCall("kimi", (Message("user", "word " * 900),))
        if "output" not in limit:
            with pytest.raises(GatewayOverloaded, match="it is too large"):
                await gateway.limiter.at_upstream(long, "up", "kimi", 0)
        await gateway.leases.aclose()

    leaping(work())


@pytest.mark.parametrize("used", [1000, 900])
def test_nobody_waits_for_a_quota_that_will_not_suffice(used: int) -> None:
    """Where a period has less left than a request needs for certain, it is refused at once, by an upstream, too."""

    async def work() -> None:
        gateway = Gateway("1000 tokens/day", 50, upstream="1000 tokens/day")
        gateway.end(await gateway.admit(), Usage(used, 0))
        loop, long = asyncio.get_running_loop(), ChatCall("kimi", (Message("user", "word " * 200),))
        began = loop.time()
        with pytest.raises(QuotaSpent):
            await gateway.admit(long)
        with pytest.raises(GatewayOverloaded):
            await gateway.limiter.at_upstream(long, "up", "kimi", 50)
        assert loop.time() - began < 0.5
        await gateway.leases.aclose()

    leaping(work())
