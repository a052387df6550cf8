"""uvicorn, ending without losing a request."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from types import FrameType

import structlog
import uvicorn

from app.api.ops import Drain
from app.cli.connections import HttpProtocol

try:
    import resource
except ImportError:  # Windows, which sets no such limits
    resource = None  # type: ignore[assignment]

# So many new objects are made before the young ones are looked through. A request makes hundreds, all short-lived, and
# few of them in cycles: Python's own figure, made for scripts, has them looked through at every other request.
_YOUNG_OBJECTS = 10_000
# How long a connection that was just accepted may take to send its request.
_LAST_REQUEST_SECONDS = 0.3
# Files that are open besides connections: logs, libraries, a session store, a database.
_OTHER_FILES = 256
_FEWEST_CONNECTIONS = 64
_MANY_FILES = 1_048_576
_CHECK_SECONDS = 1.0
_CROWD_WARNING_SECONDS = 60.0


def allow_open_files() -> int:
    """Raise the number of open files to what the process may have, and return it. The usual soft limit is 1024."""
    if resource is None:
        return _MANY_FILES
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems promise more than they give
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MANY_FILES if allowed == resource.RLIM_INFINITY else allowed


def most_connections(files: int) -> int:
    """How many connections clients may have, given a number of open files: calls take others, upstream."""
    return max((files - _OTHER_FILES) * 3 // 4, _FEWEST_CONNECTIONS)


class GracefulServer(uvicorn.Server):
    """On SIGTERM `/ready` says so for a while, still serving; then the door is closed.

    uvicorn by itself would hang up on connections that the kernel has taken but nobody has accepted yet, and on those
    whose request has not been read. A proxy in front has sent its request by then, and may not send a POST again.

    SIGHUP does the same, but leaves the door to the process that comes next, if new settings are right.

    Args:
        drain: Read by `/ready`.
        seconds: How long it says 503 before the door is closed.
        most: How many connections there may be.
        settings_fault: Says what would be wrong with the settings of a process that started now; None if SIGHUP is to
            be left alone.

    Attributes:
        kept: The listening socket for the process that comes next; None if none does.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        drain: Drain,
        seconds: float,
        most: int,
        settings_fault: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        super().__init__(config)
        self.kept: socket.socket | None = None
        self._settings_fault = settings_fault
        self._reloading: asyncio.Task[None] | None = None
        self._hung_up_meanwhile = False
        self._had_terminal = False
        self._most = most
        self._watch: asyncio.Task[None] | None = None
        self._drain = drain
        self._seconds = seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM begins the drain; a second one, and any other signal, ends the server at once."""
        self.kept = None
        if sig != signal.SIGTERM or self._drain.active:
            super().handle_exit(sig, frame)
            return
        self._drain.active = True
        threading.Timer(self._seconds, super().handle_exit, (sig, frame)).start()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the door. What has been made by now stays: the garbage collector need not look through it again."""
        await super().startup(sockets)
        self._watch = asyncio.create_task(self._watch_connections())
        if self._settings_fault is not None and hasattr(signal, "SIGHUP"):
            self._had_terminal = _has_terminal()
            reload = partial(asyncio.get_running_loop().call_soon_threadsafe, self._reload, self._settings_fault)
            # Not by the loop's `add_signal_handler`: a loop that is closed lets the next SIGHUP end the process.
            signal.signal(signal.SIGHUP, partial(self._hang_up, reload))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGHUP,))
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the door, serve who is inside, end."""
        if self._drain.active:
            await self._serve_the_last()
        # However it ends: what would go on for ever ends now.
        self._drain.active = True
        try:
            await super().shutdown(sockets)
        finally:
            if self._watch is not None:
                self._watch.cancel()

    def _hang_up(self, reload: Callable[[], object], _number: int, _frame: FrameType | None) -> None:
        # Once the socket is kept, the process that comes next reads the settings in any case.
        if self.kept is None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the server ends
                reload()

    def _reload(self, settings_fault: Callable[[], Awaitable[str]]) -> None:
        if self._had_terminal and not _has_terminal():
            self.should_exit = True  # that is what the signal was about: its window was closed
        elif self._reloading is not None and not self._reloading.done():
            self._hung_up_meanwhile = True
        elif not self._drain.active:
            self._reloading = asyncio.create_task(self._give_way(settings_fault))

    async def _give_way(self, settings_fault: Callable[[], Awaitable[str]]) -> None:
        """End as SIGTERM would, for a process that reads the settings anew, unless something is wrong with these."""
        log = structlog.get_logger("kimi.server")
        while fault := await settings_fault():
            log.error("settings_refused", reason=fault, meaning="the old ones hold on")
            if not self._hung_up_meanwhile:
                return
            self._hung_up_meanwhile = False  # they may have been mended while they were checked
        if self._drain.active:
            return
        log.info("reloading", meaning="a new process reads the settings")
        listener = next(listener for server in self.servers for listener in server.sockets)
        # As a copy it outlives the server; whoever connects meanwhile waits in it.
        self.kept = socket.socket(fileno=os.dup(listener.fileno()))
        self._drain.active = True
        await asyncio.sleep(self._seconds)
        self.should_exit = True

    async def _watch_connections(self) -> None:
        """End connections whose clients keep the gateway waiting."""
        loop = asyncio.get_running_loop()
        warned = -_CROWD_WARNING_SECONDS
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            now = loop.time()
            for connection in tuple(self.server_state.connections):
                if isinstance(connection, HttpProtocol):
                    connection.check(now)
            if len(self.server_state.connections) >= self._most and now - warned > _CROWD_WARNING_SECONDS:
                warned = now
                structlog.get_logger("kimi.server").warning(
                    "too_many_connections",
                    most=self._most,
                    meaning="new ones are closed; raise the limit of open files",
                )

    async def _serve_the_last(self) -> None:
        loop = asyncio.get_running_loop()
        waiting: list[socket.socket] = []
        for server in self.servers:
            # A copy keeps the socket open for a moment after the server has let go of it.
            copies = [socket.socket(fileno=os.dup(listener.fileno())) for listener in server.sockets]
            server.close()
            for copy in copies:
                waiting.extend(_accept_all(copy))
                copy.close()
        for connection in waiting:
            await loop.connect_accepted_socket(self._protocol, connection)
        await asyncio.sleep(_LAST_REQUEST_SECONDS)

    def _protocol(self) -> asyncio.Protocol:
        """What uvicorn makes for each connection."""
        factory = self.config.http_protocol_class
        return factory(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)  # type: ignore[call-arg]  # as uvicorn itself calls it


def _has_terminal() -> bool:
    """Whether the process was started at a terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _accept_all(listener: socket.socket) -> list[socket.socket]:
    """All connections that wait to be accepted."""
    listener.setblocking(False)
    accepted: list[socket.socket] = []
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # BlockingIOError: nobody waits any more
            return accepted
        connection.setblocking(False)
        accepted.append(connection)
