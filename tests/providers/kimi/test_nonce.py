"""One page fetch for everybody. A scripted page stands in for the network."""

import asyncio
import contextlib
from itertools import count

import pytest

from app.domain.errors import (
    CloudflareChallenge,
    NonceMissing,
    NonceRejected,
    SiteChanged,
    UpstreamBlocked,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.providers.kimi.nonce import NoncePolicy, NonceSource
from app.providers.kimi.page import Clearance
from tests.clock import Clock

REFUSAL = NonceRejected("no")


class Page:
    """Answers fetches with nonce-1, nonce-2 … when it is opened, or fails."""

    def __init__(self, clock: Clock) -> None:
        self.fetches = 0
        self.new_visitors = 0
        self.failure: Exception | None = None
        self.opened = asyncio.Event()
        self.opened.set()
        self._clock = clock
        self._numbers = count(1)

    async def __call__(self, *, new_visitor: bool = False) -> Clearance:
        self.fetches += 1
        self.new_visitors += new_visitor
        await self.opened.wait()
        if self.failure is not None:
            raise self.failure
        return Clearance(f"nonce-{next(self._numbers)}", "http://site/ajax", "http://site/", fetched_at=self._clock.now)


@pytest.fixture
def page(clock: Clock) -> Page:
    """The chat page."""
    return Page(clock)


@pytest.fixture
def nonces(page: Page, clock: Clock) -> NonceSource:
    """The source under test: first pause 1 s, longest 60 s."""
    return NonceSource(page, NoncePolicy(renew_after=3600, first_pause=1, longest_pause=60), clock=clock)


def state_of(nonces: NonceSource) -> str:
    return nonces.state


async def test_any_number_of_requests_cause_one_fetch(nonces: NonceSource, page: Page) -> None:
    """Two hundred requests that need a nonce at once get the same one from one page fetch."""
    page.opened.clear()
    requests = [asyncio.create_task(nonces.current()) for _ in range(200)]
    await asyncio.sleep(0)
    page.opened.set()
    assert {clearance.nonce for clearance in await asyncio.gather(*requests)} == {"nonce-1"}
    assert page.fetches == 1


async def test_a_refused_nonce_is_replaced_once_for_all(nonces: NonceSource, page: Page) -> None:
    """Everybody whose nonce was refused gets the same new one; late comers find that it has changed already."""
    old = await nonces.current()
    replaced = await asyncio.gather(*(nonces.replace(old, REFUSAL) for _ in range(200)))
    late = await nonces.replace(old, REFUSAL)
    assert {clearance.nonce for clearance in [*replaced, late]} == {"nonce-2"}
    assert page.fetches == 2


async def test_one_who_stops_waiting_doesn_t_take_the_fetch_away_from_the_others(
    nonces: NonceSource, page: Page
) -> None:
    """A client that leaves during the fetch leaves it running for those who still wait."""
    page.opened.clear()
    leaving, staying = asyncio.create_task(nonces.current()), asyncio.create_task(nonces.current())
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    page.opened.set()
    assert (await staying).nonce == "nonce-1"
    assert page.fetches == 1


async def test_a_failed_fetch_is_not_repeated_by_every_request(nonces: NonceSource, page: Page, clock: Clock) -> None:
    """Until the pause is over everybody gets the same error without a fetch; then one fetch is tried."""
    page.failure = NonceMissing("gone")
    for _ in range(50):
        with pytest.raises(NonceMissing) as failure:
            await nonces.current()
    assert page.fetches == 1
    assert failure.value.retry_after == pytest.approx(1, abs=0.3)
    assert state_of(nonces) == "failing"
    clock.now += 1.5
    page.failure = None
    assert (await nonces.current()).nonce == "nonce-1"
    assert state_of(nonces) == "fresh"


@pytest.mark.parametrize(
    ("failure", "longest"),
    [
        (UpstreamUnavailable("maintenance", retry_after=600), 5),
        (UpstreamUnavailable("down"), 5),
        (UpstreamTimeout("gateway time-out"), 5),
        (NonceMissing("a page about the maintenance"), 5),
        (SiteChanged("404"), 5),
        (CloudflareChallenge("browser?"), 80),
        (UpstreamBlocked("firewall"), 80),
        (UpstreamRateLimited("slower", retry_after=600), 80),
    ],
)
async def test_without_a_nonce_the_page_is_looked_at_every_few_seconds(
    nonces: NonceSource, page: Page, clock: Clock, failure: UpstreamError, longest: float
) -> None:
    """However long the site is down, it isn't noticed late that it's back; where asking does harm, pauses grow."""
    page.failure = failure
    pauses = []
    for _ in range(12):
        with pytest.raises(type(failure)):
            await nonces.current()
        with pytest.raises(type(failure)) as refusal:
            await nonces.current()
        pauses.append(refusal.value.retry_after or 0)
        clock.now += 100
    assert page.fetches == 12
    assert max(pauses) <= longest
    assert max(pauses) > longest / 2


async def test_a_nonce_that_can_not_be_renewed_is_no_hurry(nonces: NonceSource, page: Page, clock: Clock) -> None:
    """As long as there is an old one, failed renewals come at growing pauses."""
    await nonces.current()
    page.failure = UpstreamUnavailable("maintenance")
    for _ in range(8):
        clock.now += 4000
        with contextlib.suppress(UpstreamUnavailable):
            await nonces._fetched(new_visitor=False)
    assert nonces._retry_at - clock.now > 40


async def test_a_fresh_nonce_that_is_refused_too_stops_the_fetching(
    nonces: NonceSource, page: Page, clock: Clock
) -> None:
    """Pauses grow while the site refuses what it has just handed out, and an accepted message ends that."""
    pauses = []
    for _ in range(4):
        fresh = await nonces.current()
        nonces.condemn(fresh, REFUSAL)
        with pytest.raises(NonceRejected) as refusal:
            await nonces.current()
        pauses.append(refusal.value.retry_after or 0)
        clock.now += 100
    assert page.fetches == 4
    assert pauses[3] > pauses[1]
    good = await nonces.current()
    nonces.approve(good)
    nonces.condemn(good, REFUSAL)
    with pytest.raises(NonceRejected) as refusal:
        await nonces.current()
    assert refusal.value.retry_after == pytest.approx(1, abs=0.3)


async def test_a_nonce_after_a_refused_one_is_untried_until_a_message_is_taken(
    nonces: NonceSource, clock: Clock
) -> None:
    """While the page loads and messages are refused, no new nonce counts as a good one; an answer ends that."""
    for _ in range(3):
        nonces.condemn(await nonces.current(), REFUSAL)
        assert state_of(nonces) == "failing"
        clock.now += 10
        fetched = await nonces.current()
        assert state_of(nonces) == "untried"
    nonces.approve(fetched)
    assert state_of(nonces) == "fresh"
    await nonces.replace(fetched, REFUSAL)
    assert state_of(nonces) == "fresh"


async def test_an_untried_nonce_that_nobody_tries_is_given_a_chance(nonces: NonceSource, clock: Clock) -> None:
    """Without messages, which go to other workers meanwhile, it is taken for good after a pause that grows."""
    for waited in (1, 2, 4):
        nonces.condemn(await nonces.current(), REFUSAL)
        clock.now += 10
        await nonces.current()
        clock.now += waited - 0.1
        assert state_of(nonces) == "untried"
        clock.now += 0.1
        assert state_of(nonces) == "fresh"


async def test_a_nonce_after_a_failed_fetch_is_as_good_as_any(nonces: NonceSource, page: Page, clock: Clock) -> None:
    """A page that couldn't be had says nothing about the nonce that it brings later."""
    page.failure = NonceMissing("gone")
    with pytest.raises(NonceMissing):
        await nonces.current()
    page.failure = None
    clock.now += 10
    await nonces.current()
    assert state_of(nonces) == "fresh"


async def test_a_nonce_that_was_replaced_meanwhile_can_t_be_condemned(nonces: NonceSource) -> None:
    """A late refusal of an old nonce says nothing about the new one."""
    old = await nonces.current()
    new = await nonces.replace(old, REFUSAL)
    nonces.condemn(old, REFUSAL)
    assert await nonces.current() is new


@pytest.mark.parametrize(("refusal", "expected"), [(REFUSAL, 0), (CloudflareChallenge("browser?"), 1)])
async def test_only_a_challenge_is_met_as_a_new_visitor(
    nonces: NonceSource, page: Page, refusal: UpstreamError, expected: int
) -> None:
    """A stale nonce is replaced with the same cookies; a challenge needs a clearance of its own."""
    await nonces.replace(await nonces.current(), refusal)
    assert page.new_visitors == expected


async def test_a_failed_renewal_keeps_the_old_nonce(nonces: NonceSource, page: Page, clock: Clock) -> None:
    """When the page can't be had at renewal time, requests go on with what is there."""
    old = await nonces.current()
    renewed = asyncio.Event()

    async def failing(*, new_visitor: bool = False) -> Clearance:
        renewed.set()
        raise NonceMissing("gone")

    nonces._fetch = failing
    clock.now += 4000
    renewal = asyncio.create_task(nonces.keep_fresh())
    await renewed.wait()
    await asyncio.sleep(0)
    assert await nonces.current() is old
    assert nonces.failure is not None
    renewal.cancel()
    await asyncio.wait([renewal])


async def test_a_fault_of_our_own_in_a_fetch_is_a_failed_fetch_like_any_other(
    nonces: NonceSource, page: Page, clock: Clock
) -> None:
    """Requests get a typed error that says nothing of it, with a pause after it, and the background tries again."""
    page.failure = RuntimeError("secret")
    seen: asyncio.Queue[str] = asyncio.Queue()
    nonces._on_new = lambda clearance: seen.put_nowait(clearance.nonce)
    nonces._policy = NoncePolicy(first_pause=0.01, longest_pause=0.01)
    renewal = asyncio.create_task(nonces.keep_fresh())
    with pytest.raises(UpstreamUnavailable) as failure:
        await nonces.current()
    assert "secret" not in failure.value.message
    assert (state_of(nonces), nonces.failure) == ("failing", failure.value)
    page.failure = None
    clock.now += 1
    assert await seen.get() == "nonce-1"
    assert not renewal.done()
    renewal.cancel()
    await asyncio.wait([renewal])


async def test_the_background_renewal_fetches_at_the_start_and_ahead_of_age(
    nonces: NonceSource, page: Page, clock: Clock
) -> None:
    """The first nonce is there before any request, and an ageing one is replaced without one."""
    seen: asyncio.Queue[str] = asyncio.Queue()
    nonces._on_new = lambda clearance: seen.put_nowait(clearance.nonce)
    renewal = asyncio.create_task(nonces.keep_fresh())
    assert await seen.get() == "nonce-1"
    renewal.cancel()
    await asyncio.wait([renewal])
    clock.now += 3601
    renewal = asyncio.create_task(nonces.keep_fresh())
    assert await seen.get() == "nonce-2"
    renewal.cancel()
    await asyncio.wait([renewal])


async def test_a_worker_without_a_nonce_gets_one_again_without_a_request(
    nonces: NonceSource, page: Page, clock: Clock
) -> None:
    """After a condemned nonce the background fetches the next one, so that a worker taken out of service comes back."""
    seen: asyncio.Queue[str] = asyncio.Queue()
    nonces._on_new = lambda clearance: seen.put_nowait(clearance.nonce)
    renewal = asyncio.create_task(nonces.keep_fresh())
    await seen.get()
    nonces._policy = NoncePolicy(first_pause=0.0)
    nonces.condemn(await nonces.current(), REFUSAL)
    assert await seen.get() == "nonce-2"
    await nonces.current()
    assert state_of(nonces) == "fresh"
    renewal.cancel()
    await asyncio.wait([renewal])


def test_a_clearance_doesn_t_show_its_secrets() -> None:
    """Neither nonce nor cookies are in the text of a clearance, where a log might pick them up."""
    assert "s3cret" not in repr(Clearance("s3cret", "http://site/ajax", "http://site/"))
