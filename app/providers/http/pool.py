"""Open connections: those in use, and those that wait for the next request."""

import asyncio
import contextlib

from app.providers.http.connection import Connection
from app.providers.http.route import Route

# Less than any server of today keeps an idle connection.
_IDLE_SECONDS = 15.0
_CLOSE_SECONDS = 1.0


class Pool:
    """Keeps connections for reuse, the last used first. How many there are is not its business.

    Use it in one event loop only.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._open: set[Connection] = set()
        self._idle: dict[Route, list[Connection]] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._emptied = asyncio.Event()

    @property
    def idle(self) -> int:
        """How many connections wait."""
        return sum(len(waiting) for waiting in self._idle.values())

    @property
    def in_use(self) -> int:
        """How many don't."""
        return len(self._open) - self.idle

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Where its connections live."""
        return self._loop

    def take(self, route: Route) -> Connection | None:
        """A connection that can be used at once, if there is one; `give_back` it."""
        waiting = self._idle.get(route)
        oldest = self._loop.time() - _IDLE_SECONDS
        while waiting:
            connection = waiting.pop()
            if connection.idle_since > oldest and connection.is_fresh:
                return connection
            connection.abort()
        return None

    def give_back(self, connection: Connection) -> None:
        """An exchange has ended, well or not."""
        if connection.free():
            connection.idle_since = self._loop.time()
            self._idle.setdefault(connection.route, []).append(connection)
            if self._sweep is None:
                self._sweep = self._loop.call_later(_IDLE_SECONDS, self._drop_old)

    async def aclose(self) -> None:
        """Drop all connections."""
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in self._open:
            connection.abort()
        if self._open:
            self._emptied.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._emptied.wait()

    def opened(self, connection: Connection) -> None:
        """A connection is there, in use."""
        self._open.add(connection)

    def lost(self, connection: Connection) -> None:
        """A connection is no more."""
        self._open.discard(connection)
        waiting = self._idle.get(connection.route, [])
        if connection in waiting:
            waiting.remove(connection)
        if not self._open:
            self._emptied.set()

    def _drop_old(self) -> None:
        oldest = self._loop.time() - _IDLE_SECONDS
        for waiting in self._idle.values():
            # The last used are at the end.
            while waiting and waiting[0].idle_since <= oldest:
                waiting.pop(0).abort()
        since = min((waiting[0].idle_since for waiting in self._idle.values() if waiting), default=None)
        self._sweep = None if since is None else self._loop.call_at(since + _IDLE_SECONDS, self._drop_old)
