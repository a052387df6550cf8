"""Open connections: those in use, and those that wait for the next request."""

import asyncio
import contextlib
from collections import defaultdict

from app.providers.http.connection import Connection
from app.providers.http.connector import Connector
from app.providers.http.destination import Destination

# Less than servers usually keep an idle connection.
_IDLE_SECONDS = 15.0
_CLOSE_SECONDS = 1.0


class Pool:
    """Keeps connections for reuse, the last used first. It sets no limit to their number.

    Use it in one event loop only.

    Args:
        connector: Opens connections; closed with the pool.
    """

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._loop = asyncio.get_running_loop()
        self._open: set[Connection] = set()
        self._idle: defaultdict[Destination, list[Connection]] = defaultdict(list)
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False
        self._emptied = asyncio.Event()

    @property
    def idle(self) -> int:
        """The number of connections that wait."""
        return sum(len(waiting) for waiting in self._idle.values())

    @property
    def in_use(self) -> int:
        """The number of connections that don't."""
        return len(self._open) - self.idle

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that the connections live in."""
        return self._loop

    def take(self, destination: Destination) -> Connection | None:
        """Return a connection that is ready for use, if there is one; `give_back` it."""
        waiting = self._idle[destination]
        if not waiting:
            return None
        oldest = self._loop.time() - _IDLE_SECONDS
        while waiting:
            connection = waiting.pop()
            if connection.idle_since > oldest and connection.is_fresh:
                return connection
            connection.abort()
        return None

    async def connect(self, destination: Destination) -> Connection:
        """Open another connection; `give_back` it.

        Raises:
            ConnectError: It can't be opened.
        """
        connection = Connection(destination, self._lost)
        await self._connector.connect(connection)
        # The server may have hung up in the meantime.
        if not connection.is_lost:
            self._open.add(connection)
        if self._closed:
            connection.abort()
        return connection

    def give_back(self, connection: Connection) -> None:
        """End the exchange on a connection, be it complete or not, and keep the connection if it can be reused."""
        if connection.end_exchange():
            connection.idle_since = self._loop.time()
            self._idle[connection.destination].append(connection)
            if self._sweep is None:
                self._sweep = self._loop.call_later(_IDLE_SECONDS, self._drop_old)

    async def aclose(self) -> None:
        """Drop all connections."""
        self._closed = True
        self._connector.close()
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in self._open:
            connection.abort()
        if self._open:
            self._emptied.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._emptied.wait()

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        waiting = self._idle[connection.destination]
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
