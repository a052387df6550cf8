"""Event loop lag: how late the loop wakes up, the earliest sign that something blocks it."""

import asyncio
from collections.abc import Callable

_EVERY = 0.5


class LoopLag:
    """Measures the lag twice a second; `latest` is the last measurement, in seconds.

    Args:
        report: Called with every measurement, in seconds.
    """

    def __init__(self, report: Callable[[float], None]) -> None:
        self._report = report
        self.latest = 0.0

    async def watch(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _EVERY
            await asyncio.sleep(_EVERY)
            self.latest = max(0.0, loop.time() - due)
            self._report(self.latest)
