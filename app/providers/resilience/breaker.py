"""A circuit breaker: an upstream that keeps failing is left alone for a while."""

import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

from msgspec import Struct

from app.domain.errors import BreakerOpen, UpstreamError

BreakerState = Literal["closed", "open", "half-open"]

_LONGEST_OPEN = 60.0
# A window is looked back upon in so many parts, the oldest of which is forgotten as a whole.
_SLICES = 30


class BreakerPolicy(Struct, frozen=True):
    """When a breaker opens, and for how long.

    Args:
        failure_rate: Share of failed calls within the window from which on it opens.
        minimum_calls: Fewer calls than this within the window say nothing.
        window: Seconds that are looked back upon.
        open_seconds: Pause before the first probe; doubled by each failed one, up to a minute.
        shut_out_seconds: Pause after a failure that means that nobody is let in; one is enough.
    """

    failure_rate: float = 0.5
    minimum_calls: int = 20
    window: float = 30.0
    open_seconds: float = 5.0
    shut_out_seconds: float = 60.0


class _Slice(Struct):
    """The calls that ended in one part of the window."""

    start: float
    calls: int = 0
    failures: int = 0


class CircuitBreaker:
    """Closed: calls go through. Open: none does. Half-open: one probe decides which of the two comes next."""

    def __init__(self, policy: BreakerPolicy, clock: Callable[[], float] = time.monotonic) -> None:
        self._policy = policy
        self._clock = clock
        self._slices: deque[_Slice] = deque()
        self._calls = 0
        self._failures = 0
        self._open_until: float | None = None
        self._open_seconds = policy.open_seconds
        self._probing = False
        self._opened_by: UpstreamError | None = None

    @property
    def state(self) -> BreakerState:
        """The state as the next call would find it."""
        if self._open_until is None:
            return "closed"
        return "open" if self._clock() < self._open_until else "half-open"

    def check(self) -> None:
        """Raise BreakerOpen if a call made now would not go through."""
        if self._open_until is None:
            return
        wait = self._open_until - self._clock()
        if wait > 0 or self._probing:
            raise self._refusal(max(wait, 1.0))

    def call(self) -> "BreakerCall":
        """One call to the upstream, to be made in a `with` statement; the breaker learns from how it ends.

        Raises:
            BreakerOpen: On entering: the call isn't made.
        """
        return BreakerCall(self)

    def begin(self) -> bool:
        """Is the call that begins now the probe? To be ended by `learn` or `forget`. Raises as `call`."""
        if self._open_until is None:
            return False
        self.check()
        self._probing = True
        return True

    def forget(self, *, probe: bool) -> None:
        """A call has come to no end that would say anything."""
        self._probing = self._probing and not probe

    def learn(self, failure: UpstreamError | None, *, probe: bool) -> None:
        """A call has ended: with an outage, or with an answer of whatever kind."""
        if probe:
            self._probing = False
            if failure is None:
                self._close()
            else:
                self._open_seconds = min(_LONGEST_OPEN, self._open_seconds * 2)
                self._open(failure)
            return
        if self._open_until is not None:
            return  # a call from before it opened: old news
        now = self._clock()
        self._count(now, failure is not None)
        if failure is not None and (failure.shuts_out or self._too_many_failures()):
            self._open(failure)

    def _too_many_failures(self) -> bool:
        calls = self._calls
        return calls >= self._policy.minimum_calls and self._failures >= calls * self._policy.failure_rate

    def _count(self, now: float, failed: bool) -> None:
        """Add an outcome to those of the window, and forget what is before it."""
        slices, window = self._slices, self._policy.window
        if not slices or now - slices[-1].start > window / _SLICES:
            slices.append(_Slice(now))
        slices[-1].calls += 1
        slices[-1].failures += failed
        self._calls += 1
        self._failures += failed
        while slices[0].start < now - window:
            old = slices.popleft()
            self._calls -= old.calls
            self._failures -= old.failures

    def _open(self, failure: UpstreamError) -> None:
        seconds = self._policy.shut_out_seconds if failure.shuts_out else self._open_seconds
        self._open_until = self._clock() + seconds
        self._opened_by = failure

    def _refusal(self, wait: float) -> BreakerOpen:
        if self._opened_by is not None and self._opened_by.shuts_out:
            return BreakerOpen(self._opened_by.message, code=self._opened_by.code, retry_after=wait)
        return BreakerOpen("The upstream has been failing; nothing is sent to it for a moment.", retry_after=wait)

    def _close(self) -> None:
        self._open_until = None
        self._open_seconds = self._policy.open_seconds
        self._slices.clear()
        self._calls = self._failures = 0


class BreakerCall:
    """A guarded call. A cancelled one, or a fault of our own, says nothing about the upstream."""

    __slots__ = ("_breaker", "_probe")

    def __init__(self, breaker: CircuitBreaker) -> None:
        self._breaker = breaker
        self._probe = False

    def begun(self) -> None:
        """The upstream has begun to answer: a probe has done its work, nobody needs to wait for a long answer's end."""
        if self._probe:
            self._breaker.learn(None, probe=True)
            self._probe = False

    def __enter__(self) -> Self:
        self._probe = self._breaker.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, UpstreamError):
            failure = error if error is not None and error.is_outage else None
            self._breaker.learn(failure, probe=self._probe)
        else:
            self._breaker.forget(probe=self._probe)
