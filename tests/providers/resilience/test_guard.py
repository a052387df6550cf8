"""Retries and the deadline."""

import asyncio
import contextlib
import time
import weakref
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import pytest

from app.domain.errors import (
    BreakerOpen,
    CloudflareChallenge,
    GatewayError,
    MessageRefused,
    UpstreamBlocked,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreachable,
)
from app.providers.resilience.breaker import BreakerPolicy, RequestedPause
from app.providers.resilience.guard import Guard
from app.providers.resilience.limits import Bulkhead, RetryBudget, RetryPolicy
from tests.clock import Clock
from tests.loops import in_leaping_time


def guard(
    *,
    retries: int = 3,
    timeout: float = 30.0,
    idle_timeout: float = 30.0,
    breaker: BreakerPolicy | None = None,
    longest_pause: float = 300.0,
    clock: Callable[[], float] = time.monotonic,
) -> Guard:
    return Guard(
        bulkhead=Bulkhead(slots=1, queue_size=1, queue_timeout=30),
        breaker=breaker or BreakerPolicy(),
        retry=RetryPolicy(retries=retries, first_pause=0.0),
        budget=RetryBudget(fraction=0.2, reserve=10),
        timeout=timeout,
        idle_timeout=idle_timeout,
        longest_pause=longest_pause,
        clock=clock,
    )


class Upstream:
    """Fails in the given ways, one after the other, and then answers."""

    def __init__(self, failures: Sequence[Exception]) -> None:
        self._failures = list(failures)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self._failures:
            raise self._failures.pop(0)
        return "answer"


async def test_a_passing_trouble_is_not_seen_by_the_caller() -> None:
    """Transient failures are tried again until the answer comes."""
    upstream = Upstream([UpstreamUnavailable("down")] * 3)
    assert await guard(retries=3).run(upstream, caller_id="alice") == "answer"
    assert upstream.calls == 4


async def test_the_last_failure_is_raised_when_the_tries_are_used_up() -> None:
    """MAX_RETRIES further tries, and no more."""
    upstream = Upstream([UpstreamUnavailable("down")] * 9)
    with pytest.raises(UpstreamUnavailable):
        await guard(retries=2).run(upstream, caller_id="alice")
    assert upstream.calls == 3


async def test_nothing_is_tried_again_where_another_upstream_stands_by() -> None:
    """Without retries the first failure is the last."""
    upstream = Upstream([UpstreamUnavailable("down")])
    with pytest.raises(UpstreamUnavailable):
        await guard(retries=3).run(upstream, caller_id="alice", retries=False)
    assert upstream.calls == 1


@pytest.mark.parametrize(
    "failure",
    [
        MessageRefused("no"),
        CloudflareChallenge("browser?"),
        UpstreamRateLimited("slower", retry_after=1),
        UpstreamUnavailable("maintenance", retry_after=600),
    ],
)
async def test_what_another_try_won_t_mend_is_passed_on_at_once(failure: GatewayError) -> None:
    """Refusals are final, and a Retry-After is the client's to honour."""
    upstream = Upstream([failure])
    with pytest.raises(type(failure)):
        await guard().run(upstream, caller_id="alice")
    assert upstream.calls == 1


async def test_the_deadline_ends_a_call_that_hangs_and_frees_its_slot() -> None:
    """An upstream that never answers gives a timeout error, and the next request gets the slot."""
    guarded = guard(timeout=0.01)

    async def hang() -> str:
        await asyncio.Event().wait()
        return "never"

    with pytest.raises(UpstreamTimeout):
        await guarded.run(hang, caller_id="alice")
    assert await guarded.run(Upstream([]), caller_id="alice") == "answer"


async def test_no_try_begins_that_could_only_end_after_the_deadline() -> None:
    """When the pause would reach beyond the deadline, the failure itself is told, at once."""
    guarded = Guard(
        bulkhead=Bulkhead(slots=1, queue_size=1, queue_timeout=30),
        breaker=BreakerPolicy(),
        retry=RetryPolicy(retries=3, first_pause=3600, longest_pause=3600),
        budget=RetryBudget(fraction=0.2, reserve=10),
        timeout=5,
    )
    upstream = Upstream([UpstreamUnavailable("down")])
    with pytest.raises(UpstreamUnavailable):
        await guarded.run(upstream, caller_id="alice")
    assert upstream.calls == 1


async def test_a_429_holds_for_everybody_as_long_as_it_says(clock: Clock) -> None:
    """Meanwhile all get it at once, with the seconds that are left, in the queue too; then it is asked."""
    guarded = guard(clock=clock)
    upstream = Upstream([UpstreamRateLimited("slower", retry_after=7)])
    calls = [guarded.run(upstream, caller_id=name) for name in ("alice", "bob")]
    refusals = await asyncio.gather(*calls, return_exceptions=True)
    assert [(type(one), getattr(one, "retry_after", None)) for one in refusals] == [(UpstreamRateLimited, 7)] * 2
    clock.now += 5
    with pytest.raises(UpstreamRateLimited, match="slower") as refusal:
        await guarded.run(upstream, caller_id="alice")
    assert (refusal.value.retry_after, upstream.calls) == (2, 1)
    clock.now += 2
    assert await guarded.run(upstream, caller_id="alice") == "answer"


async def test_a_429_holds_for_those_who_wait_in_the_queue() -> None:
    """Whoever gets the slot of a call that was refused isn't sent to be refused as well."""
    guarded, queued = guard(), asyncio.Event()

    async def refuse() -> str:
        await queued.wait()
        raise UpstreamRateLimited("slower", retry_after=60)

    first = asyncio.create_task(guarded.run(refuse, caller_id="alice"))
    await asyncio.sleep(0)
    upstream = Upstream([])
    second = asyncio.create_task(guarded.run(upstream, caller_id="bob"))
    await asyncio.sleep(0)
    assert guarded.bulkhead.queued == 1
    queued.set()
    await asyncio.wait([first, second])
    assert [type(task.exception()) for task in (first, second)] == [UpstreamRateLimited] * 2
    assert upstream.calls == 0


@pytest.mark.parametrize(("asked", "kept"), [(None, 0), (0, 0), (3600, 300)])
def test_a_429_is_believed_within_bounds(clock: Clock, asked: float | None, kept: float) -> None:
    """Without a time there is no pause, and after five minutes it is seen whether an hour was really meant."""
    pause = RequestedPause(clock)
    pause.note(UpstreamRateLimited("slower", retry_after=asked))
    assert pause.seconds == kept
    clock.now += 1000
    assert pause.seconds == 0


def test_a_later_shorter_wish_does_not_end_a_longer_one(clock: Clock) -> None:
    """Answers that were under way at the same time may name different seconds: the latest end counts."""
    pause = RequestedPause(clock)
    pause.note(UpstreamRateLimited("slower", retry_after=20))
    pause.note(UpstreamRateLimited("slower", retry_after=5))
    assert pause.seconds == 20


async def test_a_429_holds_for_its_model_only(clock: Clock) -> None:
    """Another model of the same upstream is asked meanwhile; the limited one isn't before its time."""
    guarded = guard(clock=clock)
    big, small = Upstream([UpstreamRateLimited("slower", retry_after=7)]), Upstream([])
    with pytest.raises(UpstreamRateLimited):
        await guarded.run(big, caller_id="alice", model="big")
    assert await guarded.run(small, caller_id="alice", model="small") == "answer"
    with pytest.raises(UpstreamRateLimited):
        await guarded.run(big, caller_id="bob", model="big")
    assert (big.calls, guarded.pauses()) == (1, [7])
    clock.now += 7
    assert await guarded.run(big, caller_id="alice", model="big") == "answer"


async def test_a_pause_is_as_long_as_the_operator_lets_it_be(clock: Clock) -> None:
    """An upstream that asks for an hour is asked again after the longest pause."""
    guarded = guard(clock=clock, longest_pause=20)
    upstream = Upstream([UpstreamRateLimited("slower", retry_after=3600)])
    with pytest.raises(UpstreamRateLimited):
        await guarded.run(upstream, caller_id="alice", model="big")
    assert guarded.pauses() == [20]
    clock.now += 20
    assert await guarded.run(upstream, caller_id="alice", model="big") == "answer"


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_model_that_fails_stops_no_other(streaming: bool) -> None:
    """Errors and timeouts of one model open its own breaker; the upstream's stays closed."""
    guarded = guard(retries=0)
    for _ in range(BreakerPolicy().minimum_calls):
        failure = UpstreamUnavailable("down")
        asked = guarded.run(Upstream([failure]), caller_id="alice", model="big")
        with pytest.raises(UpstreamUnavailable):
            await (read(guarded, Stream([failure]), "big") if streaming else asked)
        asked.close()
    with pytest.raises(BreakerOpen):
        await guarded.run(Upstream([]), caller_id="alice", model="big")
    assert (guarded.stopped_models(), guarded.all_closed()) == (frozenset({"big"}), False)
    assert guarded.breaker.state == "closed"
    assert await guarded.run(Upstream([]), caller_id="alice", model="small") == "answer"


@pytest.mark.parametrize(
    ("failure", "needed"),
    [
        (UpstreamUnreachable("no connection"), BreakerPolicy().minimum_calls),
        (UpstreamBlocked("firewall"), BreakerPolicy().minimum_calls),
        (CloudflareChallenge("browser?"), 1),
    ],
)
async def test_what_concerns_all_models_stops_all(clock: Clock, failure: UpstreamError, needed: int) -> None:
    """However many models meet it, it counts for the upstream; one probe, of any model, ends it for all."""
    guarded = guard(retries=0, clock=clock)
    for number in range(needed):
        with pytest.raises(type(failure)):
            await guarded.run(Upstream([failure]), caller_id="alice", model=f"model-{number}")
    with pytest.raises(BreakerOpen):
        await guarded.run(Upstream([]), caller_id="alice", model="another")
    assert (guarded.breaker.state, guarded.stopped_models()) == ("open", frozenset())
    clock.now += 60
    with pytest.raises(type(failure)):
        await guarded.run(Upstream([failure]), caller_id="alice", model="another")
    with pytest.raises(BreakerOpen):
        await guarded.run(Upstream([]), caller_id="alice", model="one more")
    clock.now += 60
    assert await guarded.run(Upstream([]), caller_id="alice", model="another") == "answer"
    assert guarded.all_closed()


async def test_a_few_lost_connections_among_many_calls_stop_nothing() -> None:
    """The upstream's breaker looks at the share of failed calls of all models, as every breaker does."""
    guarded = guard(retries=0)
    for number in range(BreakerPolicy().minimum_calls * 2):
        with contextlib.suppress(UpstreamUnreachable):
            failures = [UpstreamUnreachable("no connection")] if number % 3 == 0 else []
            await guarded.run(Upstream(failures), caller_id="alice", model=f"model-{number % 4}")
    assert guarded.breaker.state == "closed"


async def test_names_that_clients_make_up_take_no_memory() -> None:
    """Beyond a bound models are forgotten, those with nothing to remember first."""
    guarded = guard(retries=0)
    with pytest.raises(UpstreamRateLimited):
        await guarded.run(Upstream([UpstreamRateLimited("slower", retry_after=60)]), caller_id="alice", model="big")
    for number in range(1000):
        await guarded.run(Upstream([]), caller_id="mallory", model=f"made-up-{number}")
    assert len(guarded._lanes) < 300
    with pytest.raises(UpstreamRateLimited):
        await guarded.run(Upstream([]), caller_id="alice", model="big")
    for number in range(1000):
        failures = [UpstreamRateLimited("slower", retry_after=60)]
        with pytest.raises(UpstreamRateLimited):
            await guarded.run(Upstream(failures), caller_id="mallory", model=f"limited-{number}")
    assert len(guarded._lanes) < 300


async def test_429s_do_not_open_the_breaker() -> None:
    """An upstream that says what it wants is no upstream in trouble, however often it says so."""
    guarded = guard()
    for _ in range(BreakerPolicy().minimum_calls):
        with pytest.raises(UpstreamRateLimited):
            await guarded.run(Upstream([UpstreamRateLimited("slower")]), caller_id="alice")
    assert guarded.breaker.state == "closed"


def test_timeouts_open_the_breaker() -> None:
    """An upstream that hangs counts as failing: after enough timeouts nothing is sent any more."""

    async def hang() -> str:
        await asyncio.Event().wait()
        return "never"

    async def work() -> None:
        guarded = guard(timeout=60)
        for _ in range(BreakerPolicy().minimum_calls):
            with pytest.raises(UpstreamTimeout):
                await guarded.run(hang, caller_id="alice")
        assert guarded.breaker.state == "open"

    in_leaping_time(work())


@pytest.mark.parametrize("tries", range(1, 8))
def test_pauses_grow_and_are_bounded(tries: int) -> None:
    """Each pause lies between half and all of a doubling value with a ceiling."""
    policy = RetryPolicy(retries=10, first_pause=0.5, longest_pause=8)
    pause = policy.pause(UpstreamUnavailable("down"), tries)
    longest = min(8, 0.5 * 2 ** (tries - 1))
    assert pause is not None
    assert longest / 2 <= pause <= longest


async def test_an_outage_is_not_multiplied_by_retries() -> None:
    """Of a hundred requests that all fail, the retries are those saved up and a fifth of the requests."""
    upstream = Upstream([UpstreamUnavailable("down")] * 1000)
    guarded = Guard(
        bulkhead=Bulkhead(slots=1, queue_size=1, queue_timeout=30),
        breaker=BreakerPolicy(minimum_calls=10_000),
        retry=RetryPolicy(retries=3, first_pause=0.0),
        budget=RetryBudget(fraction=0.2, reserve=10),
        timeout=30,
    )
    for _ in range(100):
        with pytest.raises(UpstreamUnavailable):
            await guarded.run(upstream, caller_id="alice")
    assert 100 + 10 + 15 <= upstream.calls <= 100 + 10 + 20


def test_quiet_times_save_up_no_more_than_the_reserve() -> None:
    """After any number of good requests an outage gets as many retries as at the start."""
    budget = RetryBudget(fraction=0.5, reserve=3)
    for _ in range(100):
        budget.pay_in()
    assert [budget.take_out() for _ in range(4)] == [True, True, True, False]
    budget.pay_in()
    assert not budget.take_out()
    budget.pay_in()
    assert budget.take_out()


@pytest.mark.parametrize("streaming", [False, True])
def test_pauses_pass_between_tries(streaming: bool) -> None:
    """An upstream in trouble is not asked again at once."""

    async def work() -> None:
        loop = asyncio.get_running_loop()
        asked: list[float] = []
        guarded = Guard(
            bulkhead=Bulkhead(slots=1, queue_size=1, queue_timeout=30),
            breaker=BreakerPolicy(),
            retry=RetryPolicy(retries=2, first_pause=4),
            budget=RetryBudget(fraction=0.2, reserve=10),
            timeout=120,
        )

        async def fail() -> str:
            asked.append(loop.time())
            raise UpstreamUnavailable("down")

        async def fail_to_stream() -> AsyncGenerator[str, None]:
            yield await fail()

        stream = guarded.stream(fail_to_stream, caller_id="alice")
        answer = anext(stream) if streaming else guarded.run(fail, caller_id="alice")
        with pytest.raises(UpstreamUnavailable):
            await answer
        first, second, third = asked
        assert 2 <= second - first <= 4
        assert 4 <= third - second <= 8

    in_leaping_time(work())


@pytest.mark.parametrize("why", ["open breaker", "pause"])
async def test_what_would_be_refused_does_not_queue(why: str) -> None:
    """While nothing is sent to the upstream a call is told so at once, though another one still holds the only slot."""
    guarded = guard()
    await guarded.bulkhead.acquire("bob", at_most=30)
    if why == "pause":
        guarded.pause.note(UpstreamRateLimited("slower", retry_after=60))
    else:
        with pytest.raises(CloudflareChallenge), guarded.breaker.call():
            raise CloudflareChallenge("browser?")
    with pytest.raises(UpstreamRateLimited if why == "pause" else BreakerOpen):
        await asyncio.wait_for(guarded.run(Upstream([]), caller_id="alice"), 10)


class Stream:
    """Gives the parts of each try in turn; an exception among them is raised, and `...` waits for ever."""

    def __init__(self, *tries: Sequence[object]) -> None:
        self._tries = list(tries)
        self.calls = 0
        self.closed = 0

    async def __call__(self) -> AsyncGenerator[str, None]:
        self.calls += 1
        try:
            for part in self._tries.pop(0):
                if isinstance(part, Exception):
                    raise part
                if part is ...:
                    await asyncio.Event().wait()
                yield str(part)
        finally:
            self.closed += 1


async def read(guarded: Guard, stream: Stream, model: str = "") -> list[str]:
    async with aclosing(guarded.stream(stream, caller_id="alice", model=model)) as parts:
        return [part async for part in parts]


async def test_a_stream_is_tried_again_until_its_first_part() -> None:
    """Failures before the first part are not seen; each failed try is closed before the next begins."""
    stream = Stream([UpstreamUnavailable("down")], [UpstreamUnavailable("down")], ["a", "b"])
    assert await read(guard(), stream) == ["a", "b"]
    assert (stream.calls, stream.closed) == (3, 3)


async def test_a_stream_without_parts_ends_at_once() -> None:
    """It is no failure, and nobody gets a part that the upstream has not sent."""
    stream, guarded = Stream([]), guard()
    assert await read(guarded, stream) == []
    assert (stream.calls, stream.closed, guarded.bulkhead.free) == (1, 1, 1)


@pytest.mark.parametrize("parts", [[], ["a"]], ids=["before the first part", "between two"])
async def test_a_stream_s_429_holds_for_everybody(parts: list[object]) -> None:
    """Whenever it comes, other calls get it too, without asking the upstream."""
    guarded = guard()
    with pytest.raises(UpstreamRateLimited):
        await read(guarded, Stream([*parts, UpstreamRateLimited("slower", retry_after=60)]))
    second = Stream(["b"])
    with pytest.raises(UpstreamRateLimited):
        await read(guarded, second)
    assert second.calls == 0


async def test_a_stream_that_breaks_off_is_not_begun_again() -> None:
    """Once a part has gone out, its failure is the stream's."""
    stream = Stream(["a", UpstreamUnavailable("broke off")], ["b"])
    guarded = guard()
    parts = guarded.stream(stream, caller_id="alice")
    assert await anext(parts) == "a"
    with pytest.raises(UpstreamUnavailable):
        await anext(parts)
    assert (stream.calls, stream.closed, guarded.bulkhead.free) == (1, 1, 1)


async def test_a_stream_holds_its_slot_until_it_is_closed() -> None:
    """The next request waits for the last part, or for a client that leaves; then everything is free."""
    guarded, stream = guard(), Stream(["a", ...])
    parts = guarded.stream(stream, caller_id="alice")
    assert await anext(parts) == "a"
    assert guarded.bulkhead.free == 0
    await parts.aclose()
    assert (stream.closed, guarded.bulkhead.free) == (1, 1)


async def test_a_silent_stream_ends_with_a_timeout() -> None:
    """The first part has to come by the deadline, and each further one within the idle time."""
    for guarded, stream in (
        (guard(timeout=0.01), Stream([...])),
        (guard(idle_timeout=0.01), Stream(["a", ...])),
    ):
        with pytest.raises(UpstreamTimeout):
            await read(guarded, stream)
        assert (stream.closed, guarded.bulkhead.free) == (1, 1)


def test_a_slow_reader_does_not_make_an_upstream_silent() -> None:
    """Only the time in which somebody waits for the next part counts; a silence after that is noticed all the same."""

    async def work() -> None:
        parts = guard(idle_timeout=1).stream(Stream(["a", "b", ...]), caller_id="alice")
        assert await anext(parts) == "a"
        await asyncio.sleep(10)
        assert await anext(parts) == "b"
        await asyncio.sleep(10)
        with pytest.raises(UpstreamTimeout):
            await anext(parts)

    in_leaping_time(work())


@pytest.mark.parametrize("parts", [[], ["a"]], ids=["before the first part", "between two"])
async def test_a_provider_s_own_timeout_is_the_upstream_s(parts: list[str]) -> None:
    """A TimeoutError that a provider lets through is told as what it is, and counts as a failure of the upstream."""
    guarded = guard(retries=0)

    async def late() -> AsyncGenerator[str, None]:
        for part in parts:
            yield part
        raise TimeoutError

    with pytest.raises(UpstreamTimeout):
        async for _ in guarded.stream(late, caller_id="alice"):
            pass


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_request_s_own_deadline_counts_if_it_is_earlier(streaming: bool) -> None:
    """Whoever has less time than the guard gives waits no longer than that."""
    guarded = guard(timeout=3600)

    async def hang() -> str:
        await asyncio.Event().wait()
        return "never"

    deadline = asyncio.get_running_loop().time() + 0.01
    stream = guarded.stream(Stream([...]), caller_id="alice", deadline=deadline)
    answer = anext(stream) if streaming else guarded.run(hang, caller_id="alice", deadline=deadline)
    with pytest.raises(UpstreamTimeout):
        await answer


async def test_streams_that_break_off_open_the_breaker() -> None:
    """An upstream that begins every answer and ends none is failing."""
    guarded = guard()
    for _ in range(BreakerPolicy().minimum_calls):
        with pytest.raises(UpstreamUnavailable):
            await read(guarded, Stream(["a", UpstreamUnavailable("broke off")]))
    assert guarded.breaker.state == "open"


async def test_a_probe_that_begins_to_answer_closes_the_breaker(clock: Clock) -> None:
    """Others need not wait for the end of a long answer; streams that are left say nothing."""
    guarded = guard(retries=0, breaker=BreakerPolicy(minimum_calls=1), clock=clock)
    breaker = guarded.breaker
    with pytest.raises(UpstreamUnavailable):
        await read(guarded, Stream([UpstreamUnavailable("down")]))
    clock.now += BreakerPolicy().open_seconds
    parts = guarded.stream(Stream(["a", ...]), caller_id="alice")
    assert await anext(parts) == "a"
    breaker.check()
    await parts.aclose()
    assert breaker.state == "closed"


async def test_a_later_deadline_gives_no_more_time() -> None:
    """A request's own deadline can only shorten what the guard allows."""

    async def hang() -> str:
        await asyncio.Event().wait()
        return ""

    async with asyncio.timeout(5):
        with pytest.raises(UpstreamTimeout):
            await guard(timeout=0.01, retries=0).run(
                hang, caller_id="alice", deadline=asyncio.get_running_loop().time() + 600
            )


async def test_slots_are_shared_among_callers() -> None:
    """Who has sent much waits for who has sent little: each request waits in its own caller's row."""
    bulkhead = Bulkhead(slots=1, queue_size=9, queue_timeout=30)
    guarded = Guard(
        bulkhead=bulkhead,
        breaker=BreakerPolicy(),
        retry=RetryPolicy(retries=0),
        budget=RetryBudget(fraction=0.2, reserve=10),
        timeout=30,
    )
    served: list[str] = []

    async def ask(caller: str) -> None:
        async def answer() -> None:
            served.append(caller)

        await guarded.run(answer, caller_id=caller)

    await bulkhead.acquire("somebody", at_most=30)
    waiting = [asyncio.create_task(ask(caller)) for caller in ("busy", "busy", "busy", "quiet")]
    while bulkhead.queued < len(waiting):  # noqa: ASYNC110 - every turn of the loop lets them come further
        await asyncio.sleep(0)
    bulkhead.release()
    await asyncio.gather(*waiting)
    assert served == ["busy", "quiet", "busy", "busy"]


def test_a_pause_keeps_nothing_of_the_call_in_memory(clock: Clock) -> None:
    """The error that began it leads to its frames, and so to the whole request."""
    pause = RequestedPause(clock)
    error = UpstreamRateLimited("Slow down.", retry_after=5)
    alive = weakref.ref(error)
    pause.note(error)
    del error
    assert alive() is None
    refusal = pause.standing_refusal()
    assert refusal is not None
    assert refusal.message == "Slow down."
