"""An unreliable way to a server."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit

from tests.redis_server import PASSWORD, RedisServer


class Wire:
    """A way to the server that loses replies, or holds requests back, as a test wants it."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._lines: set[asyncio.Task[None]] = set()
        self._cuts = 0
        self._broken = False
        self.broken = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.held_back = asyncio.Event()
        self.url = ""

    def cut(self) -> None:
        """Swallow the next reply and break its connection."""
        self._cuts += 1

    def break_down(self) -> None:
        """Break all connections, and every further one as soon as something is sent."""
        self._broken = True
        for line in self._lines:
            line.cancel()

    def mend(self) -> None:
        """Carry again."""
        self._broken = False

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Let the next request wait until the end of the context; those after it pass."""
        self._flowing.clear()
        self.held_back.clear()
        try:
            yield
        finally:
            self._flowing.set()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator["Wire", None]:
        """Carries as long as the context lasts."""
        async with await asyncio.start_server(self._carry, "127.0.0.1", 0) as proxy:
            port = proxy.sockets[0].getsockname()[1]
            self.url = urlsplit(self._server.url)._replace(netloc=f":{PASSWORD}@127.0.0.1:{port}").geturl()
            yield self
            for line in self._lines:
                line.cancel()
            await asyncio.gather(*self._lines, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._lines.add(task)
        upstream, downstream = await asyncio.open_connection("127.0.0.1", self._server.port)
        try:
            while request := await reader.read(1 << 20):
                if self._broken:
                    self.broken += 1
                    break
                if not self._flowing.is_set() and not self.held_back.is_set():
                    self.held_back.set()
                    await self._flowing.wait()
                downstream.write(request)
                reply = await upstream.read(1 << 20)
                if self._cuts:
                    self._cuts -= 1
                    break
                writer.write(reply)
        finally:
            downstream.close()
            writer.close()
            self._lines.discard(task)
