"""The circuit breaker."""

import asyncio
import contextlib

import pytest

from app.domain.errors import BreakerOpen, CloudflareChallenge, MessageRefused, UnexpectedReply, UpstreamUnavailable
from app.providers.resilience.breaker import BreakerPolicy, CircuitBreaker
from tests.clock import Clock


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    """Opens at half of at least four calls within 30 s, for 5 s; at one challenge, for 60 s."""
    return CircuitBreaker(
        BreakerPolicy(failure_rate=0.5, minimum_calls=4, window=30, open_seconds=5, shut_out_seconds=60), clock
    )


def call(breaker: CircuitBreaker, outcome: BaseException | None = None) -> None:
    with contextlib.suppress(BaseException), breaker.call():
        if outcome is not None:
            raise outcome


def state_of(breaker: CircuitBreaker) -> str:
    return breaker.state


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        call(breaker, UpstreamUnavailable("down"))


def test_it_opens_when_enough_calls_fail_and_says_when_to_come_back(breaker: CircuitBreaker) -> None:
    """Four failures open it; the next call is refused with the seconds that are left."""
    fail(breaker, 4)
    assert state_of(breaker) == "open"
    with pytest.raises(BreakerOpen, match="keeps failing") as refusal:
        breaker.check()
    assert refusal.value.retry_after == 5


def test_a_few_failures_among_many_successes_don_t_open_it(breaker: CircuitBreaker) -> None:
    """Below the failure rate it stays closed."""
    for _ in range(5):
        call(breaker)
        fail(breaker)
        call(breaker)
    assert state_of(breaker) == "closed"


def test_failures_from_before_the_window_are_forgotten(breaker: CircuitBreaker, clock: Clock) -> None:
    """Three old failures and a new one are not four failures."""
    fail(breaker, 3)
    clock.now += 31
    fail(breaker)
    assert state_of(breaker) == "closed"


@pytest.mark.parametrize("answer", [MessageRefused("no"), UnexpectedReply("what?")])
def test_an_upstream_that_answers_is_not_out_of_order(breaker: CircuitBreaker, answer: Exception) -> None:
    """Refusals and nonsense don't open it: the upstream is there."""
    for _ in range(10):
        call(breaker, answer)
    assert state_of(breaker) == "closed"


def test_one_probe_decides_after_the_pause(breaker: CircuitBreaker, clock: Clock) -> None:
    """Half-open lets a single call through; its success closes the breaker."""
    fail(breaker, 4)
    clock.now += 5
    assert state_of(breaker) == "half-open"
    with breaker.call(), pytest.raises(BreakerOpen):
        breaker.check()
    assert state_of(breaker) == "closed"


def test_a_failed_probe_doubles_the_pause(breaker: CircuitBreaker, clock: Clock) -> None:
    """After a failed probe it stays open for twice as long."""
    fail(breaker, 4)
    clock.now += 5
    fail(breaker)
    clock.now += 9
    assert state_of(breaker) == "open"
    clock.now += 1
    assert state_of(breaker) == "half-open"


def test_one_challenge_opens_it_for_longer_and_under_its_own_name(breaker: CircuitBreaker, clock: Clock) -> None:
    """After one of them nobody is let in: the others hear of it at once, until a probe after a minute decides."""
    for _ in range(20):
        call(breaker)
    for _ in range(2):
        call(breaker, CloudflareChallenge("A browser, please."))
        clock.now += 20
        assert state_of(breaker) == "open"
        with pytest.raises(BreakerOpen, match="A browser, please") as refusal:
            breaker.check()
        assert (refusal.value.status, refusal.value.code) == (503, "cloudflare_challenge")
        assert refusal.value.retry_after == 40
        clock.now += 40
        assert state_of(breaker) == "half-open"
    call(breaker)
    assert state_of(breaker) == "closed"


def test_a_challenge_does_not_lengthen_other_pauses(breaker: CircuitBreaker, clock: Clock) -> None:
    """Once it has been passed, other failures open the breaker for as long as ever."""
    call(breaker, CloudflareChallenge("browser?"))
    clock.now += 60
    call(breaker)
    fail(breaker, 4)
    clock.now += 5
    assert state_of(breaker) == "half-open"


def test_a_cancelled_probe_leaves_room_for_the_next(breaker: CircuitBreaker, clock: Clock) -> None:
    """A client that leaves during the probe neither closes nor blocks the breaker."""
    fail(breaker, 4)
    clock.now += 5
    call(breaker, asyncio.CancelledError())
    assert state_of(breaker) == "half-open"
    call(breaker)
    assert state_of(breaker) == "closed"


def test_late_outcomes_of_earlier_calls_don_t_disturb_an_open_breaker(breaker: CircuitBreaker, clock: Clock) -> None:
    """A call that began before it opened and fails afterwards doesn't postpone the probe."""
    with contextlib.suppress(UpstreamUnavailable), breaker.call():
        fail(breaker, 4)
        clock.now += 4
        raise UpstreamUnavailable("down")
    clock.now += 1
    assert state_of(breaker) == "half-open"


def test_no_call_is_made_while_it_is_open_or_being_probed(breaker: CircuitBreaker, clock: Clock) -> None:
    """What comes without having asked before is refused all the same."""
    fail(breaker, 4)
    with pytest.raises(BreakerOpen):
        breaker.call()
    clock.now += 5
    with breaker.call(), pytest.raises(BreakerOpen):
        breaker.call()


def test_successes_from_before_the_window_are_forgotten(breaker: CircuitBreaker, clock: Clock) -> None:
    """An upstream that was well for long is found failing as soon as any other."""
    for _ in range(10):
        call(breaker)
    clock.now += 31
    fail(breaker, 4)
    assert state_of(breaker) == "open"


def test_old_failures_do_not_weigh_on_new_successes(breaker: CircuitBreaker, clock: Clock) -> None:
    """Only the failures within the window count for the rate."""
    fail(breaker, 3)
    clock.now += 31
    for _ in range(5):
        call(breaker)
    fail(breaker)
    assert state_of(breaker) == "closed"


def test_after_a_good_probe_it_starts_anew(breaker: CircuitBreaker, clock: Clock) -> None:
    """One failure doesn't open it again, and when four do the pause is the first one, however long the last was."""
    fail(breaker, 4)
    clock.now += 5
    fail(breaker)
    clock.now += 10
    call(breaker)
    fail(breaker)
    assert state_of(breaker) == "closed"
    fail(breaker, 3)
    assert state_of(breaker) == "open"
    clock.now += 5
    assert state_of(breaker) == "half-open"


def test_it_opens_at_exactly_the_failure_rate(breaker: CircuitBreaker) -> None:
    """Half is enough where half is set."""
    for _ in range(2):
        call(breaker)
    fail(breaker, 2)
    assert state_of(breaker) == "open"


def test_no_pause_is_longer_than_a_minute(breaker: CircuitBreaker, clock: Clock) -> None:
    """However many probes fail, the next one comes."""
    fail(breaker, 4)
    for _ in range(10):
        clock.now += 60
        fail(breaker)
    clock.now += 60
    assert state_of(breaker) == "half-open"


def test_who_meets_a_probe_is_told_to_wait_for_a_second(breaker: CircuitBreaker, clock: Clock) -> None:
    """Nobody is told to come back at once, or in the past."""
    fail(breaker, 4)
    clock.now += 20
    with breaker.call(), pytest.raises(BreakerOpen) as refusal:
        breaker.check()
    assert refusal.value.retry_after == 1


def test_a_probe_that_has_answered_may_break_off(breaker: CircuitBreaker, clock: Clock) -> None:
    """From its first part on it is a call like any other: one failure doesn't open a closed breaker."""
    fail(breaker, 4)
    clock.now += 5
    with contextlib.suppress(UpstreamUnavailable), breaker.call() as probe:
        probe.answered()
        raise UpstreamUnavailable("broke off")
    assert state_of(breaker) == "closed"
