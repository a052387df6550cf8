"""How late the event loop wakes up: the earliest sign of something that blocks it."""

import asyncio
from collections.abc import Callable

_EVERY = 0.5


async def watch(report: Callable[[float], None]) -> None:
    """Report the lag, in seconds, twice a second until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _EVERY
        await asyncio.sleep(_EVERY)
        report(max(0.0, loop.time() - due))
