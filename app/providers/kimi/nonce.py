"""The nonce, and how the whole gateway gets by with as few page fetches as possible."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from typing import Literal, Protocol

import structlog
from msgspec import Struct

from app.domain.errors import CloudflareChallenge, UpstreamError, UpstreamUnavailable
from app.domain.spans import Trace, no_trace
from app.providers.kimi.page import Clearance

# untried: fetched after the site had refused a fresh one, and not seen to be any better yet.
NonceState = Literal["pending", "fresh", "untried", "failing"]


class FetchPage(Protocol):
    """Fetches the chat page."""

    async def __call__(self, *, new_visitor: bool = False) -> Clearance:
        """The page's clearance; `new_visitor` comes without earlier cookies."""
        ...


class NoncePolicy(Struct, frozen=True):
    """When to fetch the page again.

    Args:
        renew_after: Seconds after which a nonce is renewed in the background.
        first_pause: Seconds without a fetch after the first failed one; doubled by each further failure.
        longest_pause: No pause is longer.
    """

    renew_after: float = 6 * 3600.0
    first_pause: float = 1.0
    longest_pause: float = 60.0


class NonceSource:
    """Hands out one clearance to everybody, and fetches a new one once, however many ask for it.

    After a failed fetch, or a fresh nonce that the site refuses, nothing is fetched for a while that grows with every
    failure: until then everybody gets the same error at once.
    """

    def __init__(
        self,
        fetch: FetchPage,
        policy: NoncePolicy,
        *,
        on_new: Callable[[Clearance], None] = lambda _: None,
        trace: Trace = no_trace,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._policy = policy
        self._on_new = on_new
        self._trace = trace
        self._clock = clock
        self._log = structlog.get_logger("kimi.nonce")
        self._clearance: Clearance | None = None
        self._fetching: asyncio.Task[Clearance] | None = None
        self._failure: UpstreamError | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._last_pause = 0.0
        self._refused = False
        self._trusted_from = 0.0
        self.fetches = 0
        self._failed = asyncio.Event()

    @property
    def state(self) -> NonceState:
        """Is there one to work with?

        An untried one is as good as any other once a message was taken, or after as long without a refusal as the
        gateway had paused: a worker that gets no messages because of it would never find out.
        """
        if self._clearance is not None:
            return "fresh" if not self._refused or self._clock() >= self._trusted_from else "untried"
        return "pending" if self._failure is None else "failing"

    @property
    def age(self) -> float:
        """Seconds since the nonce was fetched; 0 if there is none."""
        return 0.0 if self._clearance is None else self._clock() - self._clearance.fetched_at

    @property
    def failure(self) -> UpstreamError | None:
        """Why there is none, or why the last renewal failed."""
        return self._failure

    async def current(self) -> Clearance:
        """The clearance to use now.

        Raises:
            UpstreamError: There is none, and fetching one failed now or a moment ago.
        """
        return self._clearance or await self._fetched(new_visitor=False)

    async def replace(self, refused: Clearance, refusal: UpstreamError) -> Clearance:
        """Another clearance than the refused one: what somebody else has fetched since, or a new one.

        Raises:
            UpstreamError: As `current`.
        """
        if self._clearance is not None and self._clearance is not refused:
            return self._clearance
        self._clearance = None
        return await self._fetched(new_visitor=isinstance(refusal, CloudflareChallenge))

    def condemn(self, refused: Clearance, refusal: UpstreamError) -> None:
        """Even this new clearance was refused: don't fetch further ones for a while."""
        if self._clearance is refused:
            self._clearance = None
            self._refused = True
            self._note_failure(refusal)

    def approve(self, clearance: Clearance) -> None:
        """The site took a message with this clearance: earlier failures are over."""
        if self._failures and self._clearance is clearance:
            self._failures, self._failure, self._retry_at, self._refused = 0, None, 0.0, False

    async def keep_fresh(self) -> None:
        """Fetch the first nonce, then renew it ahead of its age, until cancelled.

        A failed renewal keeps the old one. Where there is none, it is fetched even if no request asks for it, so that
        a worker that was taken out of service comes back.
        """
        while True:
            self._failed.clear()
            wait = self._seconds_until_due()
            if wait > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._failed.wait()
            else:
                with contextlib.suppress(UpstreamError):
                    await self._fetched(new_visitor=False)

    async def aclose(self) -> None:
        """Give up a fetch that is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    def _seconds_until_due(self) -> float:
        due = self._clearance.fetched_at + self._policy.renew_after if self._clearance else 0.0
        return max(due, self._retry_at) - self._clock()

    async def _fetched(self, *, new_visitor: bool) -> Clearance:
        if self._fetching is None:
            self._raise_if_too_early()
            self._fetching = asyncio.create_task(self._fetch_once(new_visitor))
            # Everybody who waits for it may leave: then nobody asks for its exception, which `failure` keeps anyway.
            self._fetching.add_done_callback(lambda task: task.cancelled() or task.exception())
        # One who gives up waiting must not take the fetch away from the others.
        return await asyncio.shield(self._fetching)

    async def _fetch_once(self, new_visitor: bool) -> Clearance:
        self.fetches += 1
        try:
            with self._trace("nonce"):
                clearance = await self._fetch(new_visitor=new_visitor)
            self._on_new(clearance)
        except UpstreamError as error:
            self._note_failure(error)
            raise
        except Exception as error:
            # Whatever it is, requests get a typed error, and the background must go on trying.
            self._log.exception("page_fetch_failed")
            failure = UpstreamUnavailable("The Kimi site's chat page can't be read; the gateway's log says more.")
            self._note_failure(failure)
            raise failure from error
        finally:
            self._fetching = None
        self._clearance = clearance
        self._trusted_from = self._clock() + self._last_pause
        return clearance

    def _note_failure(self, error: UpstreamError) -> None:
        self._failures += 1
        pause = min(self._policy.longest_pause, self._policy.first_pause * 2 ** (self._failures - 1))
        self._last_pause = pause
        pause *= random.uniform(0.8, 1.2)  # noqa: S311 - keeps several workers from fetching in step
        self._failure = error
        self._retry_at = self._clock() + max(pause, min(error.retry_after or 0.0, self._policy.longest_pause))
        self._failed.set()

    def _raise_if_too_early(self) -> None:
        wait = self._retry_at - self._clock()
        if wait > 0 and self._failure is not None:
            raise type(self._failure)(self._failure.message, code=self._failure.code, retry_after=max(1.0, wait))
