"""What the simulated OpenAI API was asked, and what became of it. No HTTP."""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

_KEPT_REQUESTS: Final = 1000


@dataclass(frozen=True, slots=True)
class ApiCounters:
    """What happened since the start or the last reset; `abandoned` are those whose client left before the end."""

    requests: int = 0
    answered: int = 0
    abandoned: int = 0
    in_flight: int = 0
    max_in_flight: int = 0


class ApiDesk:
    """Keeps the counters and the last requests. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._counters = ApiCounters()
        self._requests: deque[Mapping[str, Any]] = deque(maxlen=_KEPT_REQUESTS)

    @property
    def counters(self) -> ApiCounters:
        """A snapshot."""
        with self._changed:
            return self._counters

    @property
    def requests(self) -> tuple[Mapping[str, Any], ...]:
        """The bodies of the last requests, oldest first."""
        with self._changed:
            return tuple(self._requests)

    def begin(self, body: Mapping[str, Any]) -> None:
        """A request has come."""
        with self._changed:
            self._requests.append(body)
            under_way = self._counters.in_flight + 1
            most = max(under_way, self._counters.max_in_flight)
            self._set(requests=self._counters.requests + 1, in_flight=under_way, max_in_flight=most)

    def end(self, *, abandoned: bool) -> None:
        """It is over: answered in whatever way, or left by its client."""
        with self._changed:
            now = self._counters
            more = {"abandoned": now.abandoned + 1} if abandoned else {"answered": now.answered + 1}
            self._set(in_flight=now.in_flight - 1, **more)

    def reset(self) -> None:
        """Forget everything but what is under way."""
        with self._changed:
            self._counters = ApiCounters(in_flight=self._counters.in_flight)
            self._requests.clear()

    def wait_for(self, condition: Callable[[ApiCounters], bool], timeout_s: float = 10.0) -> bool:
        """Block until the counters meet `condition`; False if they didn't in time. Not for event loops."""
        with self._changed:
            return self._changed.wait_for(lambda: condition(self._counters), timeout_s)

    def _set(self, **values: int) -> None:
        self._counters = replace(self._counters, **values)
        self._changed.notify_all()
