"""The circuit breaker in an outage: it opens, tries with one request at a time, and closes again."""

import pytest

from simulator.live import LiveSimulator
from tests.chaos.client import Heard
from tests.chaos.conftest import Watch
from tests.chaos.watch import Watched

FEW = 5
OPEN_SECONDS = 5
SENSITIVE = {"breaker_minimum_calls": FEW, "breaker_open_seconds": OPEN_SECONDS, "max_retries": 0}


def _open(site: LiveSimulator, gateway: Watched) -> None:
    """Let the site fail until the breaker has opened."""
    site.site.update(failure="server_error")
    for _ in range(FEW):
        assert _is_unavailable(gateway.call().hear())
    assert site.site.counters.messages == FEW


def _is_unavailable(heard: Heard) -> bool:
    return (heard.status, heard.code, heard.complete) == (503, "upstream_unavailable", False)


def _half_open(gateway: Watched) -> None:
    gateway.leap(OPEN_SECONDS)
    assert gateway.readiness()[1]["breaker"] == "half-open"


def test_an_open_breaker_answers_for_the_site(site: LiveSimulator, watch: Watch) -> None:
    """After a few failures nothing is sent: all get a 503 with Retry-After, and /ready and the metrics say so."""
    with watch(**SENSITIVE) as gateway:
        _open(site, gateway)
        heard = gateway.storm(10) + gateway.storm(10, stream=True)
        assert all(_is_unavailable(one) and one.retry_after == OPEN_SECONDS for one in heard)
        assert site.site.counters.messages == FEW
        ready, details = gateway.readiness()
        assert (ready, details["breaker"]) == (503, "open")
        assert gateway.gauge("breaker_closed") == 0
        assert gateway.gauge("ready") == 0
        assert gateway.outcomes() == {("failed", "upstream_unavailable"): FEW + 20}


@pytest.mark.parametrize(("failure", "timeout"), [("reset", 60), ("bad_gateway", 60), ("hang", 1)])
def test_a_breaker_opens_under_all_kinds_of_outage_and_a_probe_closes_it(
    site: LiveSimulator, watch: Watch, failure: str, timeout: float
) -> None:
    """The first request after the pause is a probe: if it is answered, everything goes through again."""
    site.site.update(failure=failure)
    with watch(request_timeout=timeout, **SENSITIVE) as gateway:
        codes = {one.code for one in gateway.storm(FEW)}
        assert gateway.readiness()[1]["breaker"] != "closed"
        assert len(codes) == 1
        site.site.update(failure=None)
        _half_open(gateway)
        assert gateway.gauge("breaker_closed") == 0
        assert gateway.call().hear().status == 200
        assert gateway.readiness()[1]["breaker"] == "closed"
        assert gateway.gauge("breaker_closed") == 1
        heard = gateway.storm(20)
        assert {one.status for one in heard} == {200}
        assert gateway.outcomes() == {("failed", codes.pop()): FEW, ("completed", ""): 21}


def test_answers_that_make_no_sense_are_no_outage(site: LiveSimulator, watch: Watch) -> None:
    """A site that changed its answers is reachable: the breaker stays closed, and every client sees the true error."""
    site.site.update(failure="html")
    with watch(**SENSITIVE) as gateway:
        heard = gateway.storm(20)
        assert {(one.status, one.code) for one in heard} == {(502, "site_changed")}
        assert site.site.counters.messages == 20
        assert gateway.readiness()[1]["breaker"] == "closed"
        assert gateway.outcomes() == {("failed", "site_changed"): 20}


def test_a_failed_probe_opens_the_breaker_again(site: LiveSimulator, watch: Watch) -> None:
    """As long as the outage lasts, each pause ends with one message to the site and no more."""
    with watch(**SENSITIVE) as gateway:
        _open(site, gateway)
        _half_open(gateway)
        assert _is_unavailable(gateway.call().hear())
        assert gateway.readiness() == (503, {"status": "not_ready", "nonce": "fresh", "breaker": "open"})
        assert all(_is_unavailable(one) and one.retry_after == 2 * OPEN_SECONDS for one in gateway.storm(5))
        assert site.site.counters.messages == FEW + 1
        assert gateway.outcomes() == {("failed", "upstream_unavailable"): FEW + 1 + 5}


@pytest.mark.parametrize("stream", [False, True])
def test_one_probe_at_a_time_and_one_that_leaves_decides_nothing(
    site: LiveSimulator, watch: Watch, stream: bool
) -> None:
    """While a probe is out all others are answered at once; if its client leaves, the next request is the probe."""
    with watch(**SENSITIVE) as gateway:
        _open(site, gateway)
        _half_open(gateway)
        site.site.update(failure="hang")
        probe = gateway.call(stream=stream)
        assert site.site.wait_for(lambda counters: counters.in_flight == 1)
        heard = gateway.storm(10, stream=stream)
        assert all(_is_unavailable(one) and one.retry_after == 1 for one in heard)
        assert site.site.counters.messages == FEW + 1
        probe.leave()
        assert site.site.wait_for(lambda counters: counters.abandoned == 1)
        expected = {("failed", "upstream_unavailable"): FEW + 10, ("abandoned", ""): 1}
        assert gateway.outcomes_of(FEW + 11) == expected
        assert gateway.readiness()[1]["breaker"] == "half-open"


def test_requests_that_wait_in_the_queue_when_the_breaker_opens_are_not_sent(site: LiveSimulator, watch: Watch) -> None:
    """The queue empties itself at once with typed errors instead of marching into the outage one by one."""
    site.site.update(failure="server_error", latency_s=0.1)
    with watch(upstream_concurrency=FEW, **SENSITIVE) as gateway:
        heard = gateway.storm(50)
        assert all(_is_unavailable(one) for one in heard)
        sent = site.site.counters.messages
        # All slots were taken when the first failed, and each of the first few gave its own to another.
        assert FEW <= sent < 2 * FEW
        assert sum(one.retry_after is not None for one in heard) == 50 - sent
        assert gateway.outcomes() == {("failed", "upstream_unavailable"): 50}
