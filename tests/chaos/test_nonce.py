"""Trouble with the nonce and with Cloudflare: every message depends on a page that is fetched once for all."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from simulator.live import LiveSimulator
from tests.chaos.conftest import Watch
from tests.chaos.watch import Watched

# So that what is seen is the failure itself: the breaker has tests of its own.
NO_BREAKER = {"breaker_minimum_calls": 10_000}
CLIENTS = 8
EACH = 40
EVERY = 3 * CLIENTS

Answers = Counter[tuple[int, str | None]]


def test_nonces_that_change_all_the_time_are_hardly_noticed(site: LiveSimulator, watch: Watch) -> None:
    """With another nonce after every 24 messages nearly all of 320 requests are answered, for one page each."""
    rotation = Rotation(site)
    site.site.play(rotation.answer)
    with watch(**NO_BREAKER) as gateway, ThreadPoolExecutor(CLIENTS) as pool:
        heard = sum(pool.map(_talk, [gateway] * CLIENTS), Answers())
        changes = rotation.changes
        assert heard.keys() <= {(200, None), (503, "nonce_rejected")}
        answered, refused = heard[200, None], heard[503, "nonce_rejected"]
        assert answered >= 0.9 * CLIENTS * EACH
        assert changes >= answered // EVERY
        outcomes = gateway.outcomes()
        assert outcomes.pop(("failed", "nonce_rejected"), 0) == refused
        assert outcomes == {("completed", ""): answered}
        # A request that meets two changes in a row condemns the nonce between them, which costs a page more.
        assert site.site.counters.pages <= 1 + changes + refused


class Rotation:
    """Makes the nonce stale after every so many messages that the site has read."""

    def __init__(self, site: LiveSimulator) -> None:
        self._site = site
        self._read = 0
        self.changes = 0

    def answer(self, prompt: str) -> str:
        self._read += 1
        if self._read % EVERY == 0:
            self.changes += 1
            self._site.site.rotate()
        return f"Yes, {prompt}"


def _talk(gateway: Watched) -> Answers:
    """What one client hears that asks one thing after the other, and comes back later when it is told to."""
    answers = Answers()
    for number in range(EACH):
        heard = gateway.call(stream=number % 2 == 0).hear()
        answers[heard.status, heard.code] += 1
        if heard.status != 200:
            gateway.until_ready()
    return answers


def test_nonces_that_are_never_valid_cost_the_site_next_to_nothing(site: LiveSimulator, watch: Watch) -> None:
    """When even fresh nonces are refused all get a typed 503, for two messages each at most and hardly any page."""
    with watch(**NO_BREAKER) as gateway:
        gateway.until(lambda: gateway.readiness()[1]["nonce"] == "fresh")
        site.site.update(nonces_never_valid=True)
        heard = gateway.storm(20) + gateway.storm(20, stream=True)
        assert {(one.status, one.code) for one in heard} == {(503, "nonce_rejected")}
        assert gateway.outcomes() == {("failed", "nonce_rejected"): 40}
        assert site.site.counters.messages <= 2 * 40
        # One is in vain, and a few more if requests with the new nonce overtake the one that finds this out.
        assert 2 <= site.site.counters.pages <= 5
        assert gateway.readiness()[1]["nonce_failure"] == "nonce_rejected"
        # The page goes on loading, but as long as messages are refused /ready is not taken in by that.
        gateway.leap(10)
        gateway.until(lambda: _status_and_nonce(gateway) == (503, "untried"))


def _status_and_nonce(gateway: Watched) -> tuple[int, str]:
    status, details = gateway.readiness()
    return status, details["nonce"]


@pytest.mark.parametrize("page_failure", [None, "challenge"], ids=["of messages", "of everything"])
def test_a_challenge_is_told_until_it_is_cleared(site: LiveSimulator, watch: Watch, page_failure: str | None) -> None:
    """Cloudflare in front of messages, or of all: typed 503s with Retry-After, one page, and peace until it's over."""
    with watch(**NO_BREAKER) as gateway:
        gateway.until(lambda: gateway.readiness()[1]["nonce"] == "fresh")
        site.site.update(failure="challenge", page_failure=page_failure)
        heard = gateway.storm(10)
        sent, pages = site.site.counters.messages, site.site.counters.pages
        heard += gateway.storm(10, stream=True)
        assert {(one.status, one.code) for one in heard} == {(503, "cloudflare_challenge")}
        assert all(one.retry_after for one in heard)
        assert gateway.outcomes() == {("failed", "cloudflare_challenge"): 20}
        assert (site.site.counters.messages, site.site.counters.pages) == (sent, pages)
        # One is in vain, and one more if a request with the new nonce overtakes the one that finds this out.
        assert pages in (2, 3)
        # Each sends once, and those who get a fresh nonce in time once more.
        assert sent <= 10 * (2 if page_failure is None else 1)
        ready, details = gateway.readiness()
        assert (ready, details["nonce"], details["nonce_failure"]) == (503, "failing", "cloudflare_challenge")
        assert details["breaker"] == "open"


@pytest.mark.parametrize("failure", ["challenge", "challenge_202", "just_a_moment"])
def test_a_challenge_that_a_new_page_clears_is_seen_by_nobody(site: LiveSimulator, watch: Watch, failure: str) -> None:
    """Where the page's new cookies let messages pass, one page is fetched for all, and everybody is answered."""
    with watch() as gateway:
        gateway.until(lambda: gateway.readiness()[1]["nonce"] == "fresh")
        site.site.update(failure=failure, challenge_cleared_by_page=True)
        heard = gateway.storm(10) + gateway.storm(10, stream=True)
        assert {(one.status, one.code) for one in heard} == {(200, None)}
        assert gateway.outcomes() == {("completed", ""): 20}
        # One is in vain, and a few more if requests with the new nonce overtake the one that finds this out.
        assert 2 <= site.site.counters.pages <= 5
        assert 20 < site.site.counters.messages <= 30


@pytest.mark.parametrize("page_failure", ["challenge", "no_nonce", "reset", "hang"])
def test_a_page_that_fails_while_the_nonce_is_good_is_noticed_by_nobody(
    site: LiveSimulator, watch: Watch, page_failure: str
) -> None:
    """The page is needed for a new nonce only: as long as the old one is taken, nothing is fetched and all is well."""
    with watch() as gateway:
        gateway.until(lambda: gateway.readiness()[1]["nonce"] == "fresh")
        site.site.update(page_failure=page_failure)
        heard = gateway.storm(10) + gateway.storm(10, stream=True)
        assert {(one.status, one.code) for one in heard} == {(200, None)}
        assert gateway.outcomes() == {("completed", ""): 20}
        assert site.site.counters.pages == 1


def test_pages_that_drip_do_not_keep_the_gateway_from_fetching_a_good_one(site: LiveSimulator, watch: Watch) -> None:
    """PAGE_TIMEOUT ends fetches, threads included: after two endless pages the third one, which is good, is fetched."""
    site.site.update(page_failure="slow_drip", drip_s=0.1)
    with watch(page_timeout=0.3, max_retries=0) as gateway:
        gateway.until(lambda: gateway.readiness()[1]["nonce"] == "failing")
        gateway.leap(2)
        assert site.site.wait_for(lambda counters: counters.pages == 2)
        heard = gateway.storm(5)
        assert {(one.status, one.code) for one in heard} == {(503, "upstream_unavailable")}
        assert gateway.outcomes() == {("failed", "upstream_unavailable"): 5}
        site.site.update(page_failure=None)
        gateway.leap(3)
        assert site.site.wait_for(lambda counters: counters.pages == 3)
        gateway.until(lambda: gateway.readiness()[1]["nonce"] == "fresh")


def test_a_gateway_that_starts_during_maintenance_serves_seconds_after_it(site: LiveSimulator, watch: Watch) -> None:
    """Neither the length of the maintenance nor the requests that fail in it, which open the breaker, delay that."""
    site.site.update(failure="maintenance", page_failure="maintenance")
    with watch(breaker_minimum_calls=5, max_retries=0) as gateway:
        for _ in range(6):
            gateway.leap(70)
            gateway.until(lambda: gateway.readiness()[1]["nonce"] == "failing")
            heard = gateway.storm(8)
            assert {(one.status, one.code) for one in heard} == {(503, "upstream_unavailable")}
        assert gateway.readiness()[1]["breaker"] == "open"
        site.site.update(failure=None, page_failure=None)
        gateway.leap(5)
        gateway.until(lambda: gateway.readiness()[0] == 200)
        assert gateway.call().hear().status == 200
        assert gateway.readiness()[1]["breaker"] == "closed"
