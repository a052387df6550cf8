"""What a call waits for before its upstream is asked, and how whoever makes it wait says so."""

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Literal, get_args

# In the order of a call's time line: room within a limit, its session, a slot in an upstream's queue, the Kimi site's
# page with its nonce.
WaitStep = Literal["limits", "session", "queue", "nonce"]
STEPS: tuple[WaitStep, ...] = get_args(WaitStep)
# Takes a step and the seconds that it took. Called only if there was something to wait for, perhaps several times.
OnWait = Callable[[WaitStep, float], None]

# Shorter waits are none.
_SHORTEST = 0.001


class Waiting:
    """Times a wait, for a `with` block around it, and tells it however it ends.

    Args:
        step: What is waited for.
        on_wait: Takes the time; None if nobody wants to know.
    """

    __slots__ = ("_began", "_on_wait", "_step")

    def __init__(self, step: WaitStep, on_wait: OnWait | None) -> None:
        self._step = step
        self._on_wait = on_wait

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._began
        if seconds >= _SHORTEST and self._on_wait is not None:
            self._on_wait(self._step, seconds)


def packed(waits: Mapping[WaitStep, float]) -> str:
    """Waits in seconds as the ledger keeps them: as `step=milliseconds`, separated by commas."""
    return ",".join([f"{step}={int(waits[step] * 1000)}" for step in STEPS if step in waits])


def unpacked(text: str | None) -> dict[WaitStep, int]:
    """The milliseconds of each step that the ledger has kept, in the order of the time line."""
    kept = dict([part.partition("=")[::2] for part in (text or "").split(",")])
    return {step: int(kept[step]) for step in STEPS if step in kept}
