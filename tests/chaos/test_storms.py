"""Many requests at once while the site is slow, full or down: all are answered, and the site isn't hit any harder."""

import resource
from collections.abc import Iterator

import pytest

from simulator.live import LiveSimulator
from tests.chaos.client import hear_all
from tests.chaos.conftest import Watch
from tests.chaos.rawsite import RawSite
from tests.live import WAIT_SECONDS

STORM = 50
CROWD = 500
# So that what is seen is the failure itself: the breaker has tests of its own.
NO_BREAKER = {"breaker_minimum_calls": 10_000}


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Both ends of each connection are in this process: the usual 1024 descriptors are too few for a crowd."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8 * CROWD if hard == resource.RLIM_INFINITY else min(8 * CROWD, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_latency_spike_delays_requests_and_loses_none(raw: RawSite, watch: Watch) -> None:
    """Whoever comes while no answer comes is answered after that, in both modes, the queued ones included."""
    with watch(upstream_url=raw.ajax_url) as gateway:
        raw.answers.clear()
        calls = [gateway.call(stream=number % 2 == 0) for number in range(STORM)]
        assert raw.wait_for(messages=32)
        gateway.until(lambda: gateway.gauge("queue_depth") == STORM - 32)
        assert raw.seen.messages == 32
        raw.answers.set()
        heard = hear_all(calls)
        assert {(one.status, one.code, one.complete) for one in heard} == {(200, None, True)}
        assert gateway.outcomes() == {("completed", ""): STORM}
        assert raw.seen.messages == STORM


def test_a_site_that_is_down_for_a_named_time_is_asked_once_by_each_of_a_storm(
    site: LiveSimulator, watch: Watch
) -> None:
    """Every client gets the site's own 503 with its Retry-After, and nothing is sent twice."""
    site.site.update(failure="overloaded", retry_after_s=7)
    with watch(**NO_BREAKER) as gateway:
        heard = hear_all([gateway.call(stream=number % 2 == 0) for number in range(STORM)])
        assert {(one.status, one.code, one.retry_after) for one in heard} == {(503, "upstream_unavailable", 7)}
        assert gateway.outcomes() == {("failed", "upstream_unavailable"): STORM}
        assert site.site.counters.messages == STORM


@pytest.mark.parametrize("failure", ["rate_limited", "rate_limited_json"])
def test_a_storm_of_429_is_no_outage_and_is_kept_from_the_site(site: LiveSimulator, watch: Watch, failure: str) -> None:
    """Whoever wasn't sent yet gets the site's 429 at once, with the seconds that are left; breaker and /ready stay."""
    # The plugin's own 429 names no time; the gateway then does.
    seconds = 5 if failure == "rate_limited_json" else 2
    site.site.update(failure=failure, retry_after_s=2)
    with watch() as gateway:
        heard = gateway.storm(STORM) + gateway.storm(STORM, stream=True)
        assert {(one.status, one.code) for one in heard} == {(429, "upstream_rate_limited")}
        assert {one.retry_after for one in heard} == {seconds}
        assert gateway.outcomes() == {("failed", "upstream_rate_limited"): 2 * STORM}
        # Those that were at the site already when the first refusal came.
        assert 1 <= site.site.counters.messages <= 32
        assert gateway.gauge("pause_seconds") == pytest.approx(seconds)
        status, details = gateway.readiness()
        assert (status, details["breaker"]) == (200, "closed")
        gateway.leap(seconds - 0.5)
        assert gateway.call().hear().retry_after == 1
        gateway.leap(0.5)
        assert gateway.gauge("pause_seconds") == 0


@pytest.mark.parametrize("failure", ["server_error", "reset"])
def test_retries_do_not_multiply_an_outage(site: LiveSimulator, watch: Watch, failure: str) -> None:
    """In a storm that meets a dead site the retry budget, not MAX_RETRIES times the storm, bounds what is sent."""
    site.site.update(failure=failure)
    with watch(max_retries=3, **NO_BREAKER) as gateway:
        heard = gateway.storm(STORM)
        assert {(one.status, one.code) for one in heard} == {(503, "upstream_unavailable")}
        assert gateway.outcomes() == {("failed", "upstream_unavailable"): STORM}
        # A fifth of a retry for each request, and ten to begin with.
        assert STORM <= site.site.counters.messages <= STORM + STORM / 5 + 10


@pytest.mark.parametrize("stream", [False, True])
def test_a_full_queue_is_a_503_at_once(site: LiveSimulator, watch: Watch, stream: bool) -> None:
    """While one request is served and two wait, a fourth is sent away with a Retry-After; the two are served later."""
    site.site.update(failure="hang", failure_times=1)
    with watch(upstream_concurrency=1, upstream_queue_size=2) as gateway:
        served = gateway.call(stream=stream)
        assert site.site.wait_for(lambda counters: counters.in_flight == 1)
        waiting = [gateway.call(stream=stream) for _ in range(2)]
        gateway.until(lambda: gateway.gauge("queue_depth") == 2)
        heard = gateway.call(stream=stream).hear()
        assert (heard.status, heard.code, heard.retry_after) == (503, "gateway_overloaded", 5)
        assert (gateway.gauge("queue_depth"), site.site.counters.messages) == (2, 1)
        assert gateway.outcomes() == {("failed", "gateway_overloaded"): 1}
        served.leave()
        assert [one.status for one in hear_all(waiting)] == [200, 200]
        expected = {("failed", "gateway_overloaded"): 1, ("abandoned", ""): 1, ("completed", ""): 2}
        assert gateway.outcomes_of(4) == expected


@pytest.mark.parametrize("stream", [False, True])
def test_a_wait_in_the_queue_is_bounded(site: LiveSimulator, watch: Watch, stream: bool) -> None:
    """Whoever waits for longer than UPSTREAM_QUEUE_TIMEOUT is sent away, and was never sent to the site."""
    site.site.update(failure="hang", failure_times=1)
    with watch(upstream_concurrency=1, upstream_queue_timeout=0.2) as gateway:
        served = gateway.call()
        assert site.site.wait_for(lambda counters: counters.in_flight == 1)
        heard = gateway.storm(10, stream=stream)
        assert {(one.status, one.code, one.retry_after) for one in heard} == {(503, "gateway_overloaded", 5)}
        assert gateway.outcomes() == {("failed", "gateway_overloaded"): 10}
        assert site.site.counters.messages == 1
        served.leave()


@pytest.mark.parametrize("slots", [32, CROWD])
def test_a_crowd_that_leaves_takes_everything_with_it(
    site: LiveSimulator, watch: Watch, many_descriptors: None, slots: int
) -> None:
    """500 requests wait, some at the site and the others in the queue; when all leave, nobody is served for nothing."""
    site.site.update(failure="hang")
    with watch(upstream_concurrency=slots) as gateway:
        calls = [gateway.call(stream=number % 2 == 0) for number in range(CROWD)]
        assert site.site.wait_for(lambda counters: counters.in_flight == slots, WAIT_SECONDS)
        gateway.until(lambda: gateway.gauge("queue_depth") == CROWD - slots)
        assert gateway.gauge("slots_free") == 0
        assert gateway.http.get("/v1/models").status_code == 200
        # Later the site may count more at once: it hears of those who leave after the next ones have come.
        assert site.site.counters.max_in_flight == slots
        for call in calls:
            call.leave()
        assert gateway.outcomes_of(CROWD) == {("abandoned", ""): CROWD}
        assert site.site.wait_for(lambda counters: counters.in_flight == 0)
