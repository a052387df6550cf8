"""The nonce: shared by all requests, and fetched as rarely as possible."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from typing import Literal, Protocol

import structlog
from msgspec import Struct

from app.domain.errors import (
    CloudflareChallenge,
    NonceRejected,
    UpstreamBlocked,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamUnavailable,
)
from app.domain.spans import Trace, no_trace
from app.domain.waits import OnWait, Waiting
from app.providers.kimi.page import Clearance

# untried: fetched after the site rejected a fresh one, and not proven by a message yet.
NonceState = Literal["pending", "fresh", "untried", "failing"]

# While these last, each fetch may prolong them, or is bound to be for nothing.
_BETTER_LEFT_ALONE = (CloudflareChallenge, UpstreamBlocked, UpstreamRateLimited, NonceRejected)
_MOST_DOUBLINGS = 30


class FetchPage(Protocol):
    """Fetches the chat page."""

    async def __call__(self, *, new_visitor: bool = False) -> Clearance:
        """The page's clearance. As a `new_visitor`, send no earlier cookies."""
        ...


class NoncePolicy(Struct, frozen=True):
    """When to fetch the page again.

    Args:
        renew_after: Seconds after which a nonce is renewed in the background.
        first_pause: Seconds without a fetch after the first failure; doubled by each further one.
        longest_pause: No pause is longer.
        longest_probe_pause: The same while there is no nonce because the site is down, in maintenance for instance.
            Nothing can be answered until the page is back, and asking for it doesn't make anything worse.
    """

    renew_after: float = 6 * 3600.0
    first_pause: float = 1.0
    longest_pause: float = 60.0
    longest_probe_pause: float = 4.0


class NonceSource:
    """Shares one clearance among all requests. However many want a new one, it is fetched once.

    After a failed fetch, or a fresh nonce that the site rejects, nothing is fetched for a pause that grows with every
    failure. Until it is over, all requests get the same error at once.

    Args:
        fetch: Fetches the page.
        policy: When to fetch it again.
        on_new: Called with each new clearance.
        trace: Opens a span around each fetch.
        clock: Replaced by tests that let time pass.
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
        self._last_rejected = False
        self._trusted_from = 0.0
        self.fetches = 0
        self._failed = asyncio.Event()

    @property
    def state(self) -> NonceState:
        """Whether there is a nonce to work with.

        An untried one becomes fresh when the site accepts a message, or after as much time without a rejection as the
        last pause took: a worker that gets no messages because of it would never find out.
        """
        if self._clearance is not None:
            return "fresh" if not self._last_rejected or self._clock() >= self._trusted_from else "untried"
        return "pending" if self._failure is None else "failing"

    @property
    def age(self) -> float:
        """Seconds since the nonce was fetched; 0 if there is none."""
        return 0.0 if self._clearance is None else self._clock() - self._clearance.fetched_at

    @property
    def failure(self) -> UpstreamError | None:
        """Why there is no nonce, or why the last renewal failed."""
        return self._failure

    async def current(self, on_wait: OnWait | None = None) -> Clearance:
        """The clearance to use now.

        Args:
            on_wait: Told how long it had to be waited for.

        Raises:
            UpstreamError: There is none, and fetching one has failed now or within the pause.
        """
        return self._clearance or await self._fetched(new_visitor=False, on_wait=on_wait)

    async def replace(self, rejected: Clearance, rejection: UpstreamError, on_wait: OnWait | None = None) -> Clearance:
        """Another clearance than the rejected one: the one that was fetched since, or a new one.

        Args:
            rejected: The one that is of no use.
            rejection: Why it isn't.
            on_wait: As `current`.

        Raises:
            UpstreamError: As `current`.
        """
        if self._clearance is not None and self._clearance is not rejected:
            return self._clearance
        self._clearance = None
        return await self._fetched(new_visitor=isinstance(rejection, CloudflareChallenge), on_wait=on_wait)

    def condemn(self, rejected: Clearance, rejection: UpstreamError) -> None:
        """Drop a fresh clearance that was rejected too, and fetch no other for a while."""
        if self._clearance is rejected:
            self._clearance = None
            self._last_rejected = True
            self._note_failure(rejection)

    def approve(self, clearance: Clearance) -> None:
        """Forget earlier failures: the site has accepted a message with this clearance."""
        if self._failures and self._clearance is clearance:
            self._failures, self._failure, self._retry_at, self._last_rejected = 0, None, 0.0, False

    async def keep_fresh(self) -> None:
        """Fetch the first nonce, then renew it ahead of its age, until cancelled.

        A failed renewal keeps the old nonce. A missing one is fetched even if no request asks for it, so that a worker
        that was taken out of service comes back.
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
        """Abandon a fetch that is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    def _seconds_until_due(self) -> float:
        due = self._clearance.fetched_at + self._policy.renew_after if self._clearance else 0.0
        return max(due, self._retry_at) - self._clock()

    async def _fetched(self, *, new_visitor: bool, on_wait: OnWait | None = None) -> Clearance:
        if self._fetching is None:
            self._raise_if_too_early()
            self._fetching = asyncio.create_task(self._fetch_once(new_visitor))
            # If all requests that wait for it leave, nobody retrieves its exception, which `failure` keeps anyway.
            self._fetching.add_done_callback(lambda task: task.cancelled() or task.exception())
        with Waiting("nonce", on_wait):
            # A request that is cancelled must not cancel the fetch for the others.
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
            # Whatever it is, requests get a typed error, and the background task must go on trying.
            self._log.exception("page_fetch_failed")
            failure = UpstreamUnavailable("The Kimi site's chat page can't be read. See the gateway's log.")
            self._note_failure(failure)
            raise failure from error
        finally:
            self._fetching = None
        self._clearance = clearance
        self._trusted_from = self._clock() + self._last_pause
        return clearance

    def _note_failure(self, error: UpstreamError) -> None:
        self._failures += 1
        self._warn_once(error)
        longest = self._policy.longest_pause
        if self._clearance is None and not isinstance(error, _BETTER_LEFT_ALONE):
            longest = min(longest, self._policy.longest_probe_pause)
        pause = min(longest, self._policy.first_pause * 2 ** min(self._failures - 1, _MOST_DOUBLINGS))
        self._last_pause = pause
        pause *= random.uniform(0.8, 1.2)  # noqa: S311 - spreads the fetches of several workers
        self._failure = error
        self._retry_at = self._clock() + max(pause, min(error.retry_after or 0.0, longest))
        self._failed.set()

    def _raise_if_too_early(self) -> None:
        wait = self._retry_at - self._clock()
        if wait > 0 and self._failure is not None:
            raise type(self._failure)(
                self._failure.message,
                code=self._failure.code,
                retry_after=max(1.0, wait),
                reason=self._failure.reason,
                server=self._failure.server,
            )

    def _warn_once(self, error: UpstreamError) -> None:
        """Log a failure, unless the one before it was the same."""
        before = self._failure if self._failures > 1 else None
        if before is None or (before.code, before.reason) != (error.code, error.reason):
            self._log.warning(
                "page.failing", error=error.code, reason=error.reason or None, server=error.server or None
            )
