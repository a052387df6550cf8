"""What the visitor of a demo may let its simulated upstreams do wrong."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any, Final

from simulator.site import Site

_SLOW_SECONDS: Final = 6.0
# By fault, the simulator's knobs: of the site, and of the API that stands beside it. What the gateway gets over by
# itself happens once, so that it does.
_KNOBS: Final[Mapping[str, Mapping[str, Any]]] = {
    "slow": {"latency_s": _SLOW_SECONDS, "api_latency_s": _SLOW_SECONDS},
    "stale_nonce": {},
    "challenge": {"failure": "challenge", "failure_times": 1},
    "one_error": {"failure": "server_error", "failure_times": 1, "api_failure": "openai_error", "api_failure_times": 1},
    "errors": {"failure": "server_error", "api_failure": "openai_error"},
    "rate_limit": {"failure": "rate_limited", "api_failure": "openai_rate"},
    "cut_off": {"failure": "reset_mid_body", "api_failure": "cut_mid_answer"},
    "empty": {"failure": "empty_message", "api_failure": "empty_answer"},
}


class SimulatedFaults:
    """Lets a simulator misbehave while a request is answered.

    Args:
        site: The simulator. What it does now is what it goes back to.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._usual = site.behaviour
        self._lock = Lock()
        self._lasting: list[str] = []

    @property
    def names(self) -> Sequence[str]:
        """The faults there are."""
        return tuple(_KNOBS)

    @contextmanager
    def during(self, name: str) -> Iterator[None]:
        """Let a fault happen to whoever asks within the block. The newest of several counts."""
        with self._lock:
            # Not once more for the second of two models side by side: what happens once would hit the first one twice.
            if name not in self._lasting:
                self._site.behaviour = self._usual
                self._site.merge(_KNOBS[name])
                if name == "stale_nonce":
                    self._site.rotate()
            self._lasting.append(name)
        try:
            yield
        finally:
            with self._lock:
                self._lasting.remove(name)
                if not self._lasting:
                    self._site.behaviour = self._usual
