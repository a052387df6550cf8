"""An event loop whose time passes by itself: nothing is waited for, and yet every pause has its length."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class _LeapingSelector(selectors.DefaultSelector):
    """Instead of waiting it lets the time pass."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        self.now += timeout or 0.0
        return super().select(0)


class LeapingLoop(asyncio.SelectorEventLoop):
    """For work that waits for timers only; `clock.now` may be moved."""

    def __init__(self) -> None:
        self.clock = _LeapingSelector()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


def in_leaping_time(work: Coroutine[Any, Any, None]) -> None:
    """Run it in a loop of its own."""
    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        runner.run(work)
