"""When nothing is sent to an upstream: while it keeps failing, and while it has asked for a pause."""

import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

from msgspec import Struct

from app.domain.errors import BreakerOpen, UpstreamError, UpstreamRateLimited

BreakerState = Literal["closed", "open", "half-open"]

_LONGEST_OPEN = 60.0
# The window is divided into so many slices; the oldest is dropped as a whole.
_SLICES = 30
# An hour's `Retry-After` may have been meant for one message only: longer pauses than this are not believed.
LONGEST_PAUSE = 300.0


class BreakerPolicy(Struct, frozen=True):
    """When a breaker opens, and for how long.

    Args:
        failure_rate: The share of failed calls within the window that opens it.
        minimum_calls: With fewer calls than this within the window it stays closed.
        window: Seconds that are looked back upon.
        open_seconds: Pause before the first probe; doubled by each failed one, up to a minute.
        shut_out_seconds: Pause after a failure that concerns everybody; one such failure is enough.
    """

    failure_rate: float = 0.5
    minimum_calls: int = 20
    window: float = 30.0
    open_seconds: float = 5.0
    shut_out_seconds: float = 60.0


class _Slice(Struct):
    """The calls that ended in one slice of the window."""

    start: float
    calls: int = 0
    failures: int = 0


class CircuitBreaker:
    """Closed: calls pass. Open: none does. Half-open: one call, the probe, decides which of the two comes next.

    Args:
        policy: When it opens, and for how long.
        clock: Seconds on a monotonic clock.
        upstream: The breaker of the whole upstream, for a breaker of one of its models. It learns what concerns all
            models, and this one everything else; a call needs the consent of both.
        on_failure: Called with each failure whose reason is new since the upstream last worked.
    """

    def __init__(
        self,
        policy: BreakerPolicy,
        clock: Callable[[], float] = time.monotonic,
        upstream: "CircuitBreaker | None" = None,
        on_failure: Callable[[UpstreamError], None] = lambda _: None,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._upstream = upstream
        self._slices: deque[_Slice] = deque()
        self._calls = 0
        self.failures = 0
        # None while it is closed.
        self.open_until: float | None = None
        self._open_seconds = policy.open_seconds
        self.probing = False
        self._opened_by: UpstreamError | None = None
        self._on_failure = on_failure
        # The kinds of failures since the upstream last worked, and the reasons of those that have one; the latest last.
        self._reasons: dict[str, str] = {}

    @property
    def state(self) -> BreakerState:
        """The state that the next call would find."""
        if self.open_until is None:
            return "closed"
        return "open" if self._clock() < self.open_until else "half-open"

    @property
    def has_failures(self) -> bool:
        """Whether it would forget something if it were thrown away: it isn't closed, or calls have failed lately."""
        if self.open_until is not None:
            return True
        return self.failures > 0 and self._slices[-1].start >= self._clock() - self._policy.window

    @property
    def failure_reason(self) -> str:
        """Why the latest call failed, in a few words; empty if that isn't known, or none has failed lately."""
        return self._reasons.get(next(reversed(self._reasons), ""), "") if self.has_failures else ""

    def check(self) -> None:
        """Raise BreakerOpen if a call made now would not pass."""
        if self._upstream is not None and self._upstream.open_until is not None:
            self._upstream.check()
        if self.open_until is None:
            return
        wait = self.open_until - self._clock()
        if wait > 0 or self.probing:
            raise self._refusal(max(wait, 1.0))

    def call(self) -> "BreakerCall":
        """Begin a call, for a `with` block, from whose end the breaker learns.

        Raises:
            BreakerOpen: The call must not be made.
        """
        upstream = self._upstream
        if self.open_until is None and (upstream is None or upstream.open_until is None):
            return BreakerCall(self)
        self.check()
        probed = tuple([one for one in (upstream, self) if one is not None and one.open_until is not None])
        for breaker in probed:
            breaker.probing = True
        return BreakerCall(self, probed)

    def learn(self, error: BaseException | None, probed: "tuple[CircuitBreaker, ...]" = ()) -> None:
        """Note how a call ended. Being cancelled, or a fault of our own, says nothing about the upstream.

        Args:
            error: What the call has raised; None if it was answered.
            probed: The breakers that wait for the end of this call.
        """
        for breaker in probed:
            breaker.probing = False
        if error is not None and not isinstance(error, UpstreamError):
            return
        failure = error if error is not None and error.is_outage else None
        upstream = self._upstream
        if upstream is not None:
            if failure is not None and failure.concerns_all_models:
                upstream.note(failure, probe=upstream in probed)
                return  # the model has not been asked
            if upstream in probed:
                upstream.close()
            # From its first failure on, so that calls cost nothing more while there is none.
            elif upstream.failures:
                upstream.note(None, probe=False)
        if failure is None and not probed and self.open_until is None:
            self._count(failed=False)
        else:
            self.note(failure, probe=self in probed)

    def probe_now(self) -> None:
        """Let the next call through, as the probe: there are signs that the trouble is over."""
        if self.open_until is not None:
            self.open_until = min(self.open_until, self._clock())

    def note(self, failure: UpstreamError | None, *, probe: bool) -> None:
        """Count a call that has ended; None for one that was answered."""
        if failure is not None:
            self._note_reason(failure)
        if probe:
            self._end_probe(failure)
        elif self.open_until is None:  # a call from before it opened is old news
            self._count(failed=failure is not None)
            if failure is not None and (failure.shuts_out or self._too_many_failures()):
                self._open(failure)

    def _note_reason(self, failure: UpstreamError) -> None:
        if not self.has_failures:
            self._reasons.clear()
        kind = failure.reason or failure.code or failure.type
        is_new = self._reasons.pop(kind, None) is None
        self._reasons[kind] = failure.reason
        if is_new:
            self._on_failure(failure)

    def _end_probe(self, failure: UpstreamError | None) -> None:
        if failure is None:
            self.close()
        else:
            self._open_seconds = min(_LONGEST_OPEN, self._open_seconds * 2)
            self._open(failure)

    def _too_many_failures(self) -> bool:
        calls = self._calls
        return calls >= self._policy.minimum_calls and self.failures >= calls * self._policy.failure_rate

    def _count(self, *, failed: bool) -> None:
        """Add an outcome to the window, and drop those from before it."""
        now = self._clock()
        slices, window = self._slices, self._policy.window
        if not slices or now - slices[-1].start > window / _SLICES:
            slices.append(_Slice(now))
        slices[-1].calls += 1
        slices[-1].failures += failed
        self._calls += 1
        self.failures += failed
        while slices[0].start < now - window:
            old = slices.popleft()
            self._calls -= old.calls
            self.failures -= old.failures

    def _open(self, failure: UpstreamError) -> None:
        seconds = self._policy.shut_out_seconds if failure.shuts_out else self._open_seconds
        self.open_until = self._clock() + seconds
        self._opened_by = failure

    def _refusal(self, wait: float) -> BreakerOpen:
        if self._opened_by is not None and self._opened_by.shuts_out:
            return BreakerOpen(
                self._opened_by.message, code=self._opened_by.code, retry_after=wait, reason=self._opened_by.reason
            )
        message = "The upstream keeps failing. Nothing is sent to it for a moment."
        return BreakerOpen(message, retry_after=wait, reason=self.failure_reason)

    def close(self) -> None:
        """Let calls pass, and forget all failures."""
        self.open_until = None
        self._open_seconds = self._policy.open_seconds
        self._slices.clear()
        self._reasons.clear()
        self._calls = self.failures = 0


class BreakerCall(Struct):
    """A call through a breaker. A struct with its own `__exit__`: `@contextmanager` would take twice as long."""

    breaker: CircuitBreaker
    # The breakers that wait for the end of this call.
    probed: tuple[CircuitBreaker, ...] = ()

    def answered(self) -> None:
        """The upstream has begun to answer. That settles a probe: others need not wait for the end of a long answer."""
        if self.probed:
            self.breaker.learn(None, self.probed)
            self.probed = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.breaker.learn(error, self.probed)


class RequestedPause:
    """Applies a 429's `Retry-After` to all calls. It is no outage: the upstream works, and says what it wants.

    Every call is made in a `with` block: entering raises the refusal again while the pause lasts, and a refusal that
    leaves the block begins a pause.

    Args:
        clock: Seconds on a monotonic clock.
        longest: Seconds; no pause is longer, whatever the upstream asks for.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, longest: float = LONGEST_PAUSE) -> None:
        self._clock = clock
        self._longest = longest
        self._until = 0.0
        self._refusal: UpstreamRateLimited | None = None

    @property
    def seconds(self) -> float:
        """How much longer the pause lasts; 0 if there is none."""
        return max(0.0, self._until - self._clock())

    def note(self, refusal: UpstreamRateLimited) -> None:
        """Begin the pause that a refusal asks for, or extend the current one."""
        until = self._clock() + min(refusal.retry_after or 0.0, self._longest)
        if until > self._until:
            # Not the refusal itself: its traceback would keep the whole request in memory.
            self._until, self._refusal = until, type(refusal)(refusal.message, code=refusal.code)

    def standing_refusal(self) -> UpstreamRateLimited | None:
        """The upstream's refusal again, with the seconds that are left; None if no pause lasts."""
        if self._refusal is None or not (seconds := self.seconds):
            return None
        refusal = type(self._refusal)(self._refusal.message, code=self._refusal.code, retry_after=seconds)
        refusal.was_sent = False
        return refusal

    def check(self) -> None:
        """Raise the upstream's refusal again while the pause lasts."""
        if self._refusal is not None and (refusal := self.standing_refusal()) is not None:
            raise refusal

    def __enter__(self) -> None:
        self.check()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, UpstreamRateLimited):
            self.note(error)
