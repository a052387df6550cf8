"""An upstream that asks for fewer requests gets none for as long as it says."""

import time
from collections.abc import Callable
from types import TracebackType

from app.domain.errors import UpstreamRateLimited

# An hour's `Retry-After`, which may have been meant for one message only, is not believed for longer than this.
_LONGEST = 300.0


class RequestedPause:
    """Remembers a 429's `Retry-After` for everybody. It is no outage: the upstream is there, and says what it wants.

    Every call is made in a `with` statement: it isn't while a pause lasts, and may begin one.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = 0.0
        self._refusal: UpstreamRateLimited | None = None

    @property
    def seconds(self) -> float:
        """How much longer it lasts; 0 if there is none."""
        return max(0.0, self._until - self._clock())

    def note(self, refusal: UpstreamRateLimited) -> None:
        """The upstream has refused a call."""
        until = self._clock() + min(refusal.retry_after or 0.0, _LONGEST)
        if until > self._until:
            self._until, self._refusal = until, refusal

    def check(self) -> None:
        """Raise the upstream's refusal again, with the seconds that are left, if it holds for a call made now."""
        if self._refusal is not None and self.seconds > 0:
            raise type(self._refusal)(self._refusal.message, code=self._refusal.code, retry_after=self.seconds)

    def __enter__(self) -> None:
        self.check()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, UpstreamRateLimited):
            self.note(error)
