"""Load on raw connections: closed loops, open loops at a fixed rate, and paced streams. One process, one event loop.

HTTP is read by hand: where a response's head ends, how long its body is, and in a stream how many events came when.
"""

import asyncio
import random
import re
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_END = b"0\r\n\r\n"
_DONE = b"[DONE]"
_KEPT = 32


@dataclass(slots=True)
class Tally:
    """What came of a load; times in seconds.

    `latencies` are from the (intended) sending to the last byte, `firsts` to the first event, `gaps` between reads.
    """

    done: int = 0
    incomplete: int = 0
    events: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: "array[float]" = field(default_factory=lambda: array("d"))
    firsts: "array[float]" = field(default_factory=lambda: array("d"))
    gaps: "array[float]" = field(default_factory=lambda: array("d"))


class Connection(asyncio.Protocol):
    """One connection with one request at a time.

    Args:
        tally: Where results go; may be exchanged at any time.
        then: Called when a response is complete, or when the connection is lost before.
    """

    def __init__(self, tally: Tally, then: "Callable[[Connection], None]") -> None:
        self.tally = tally
        self._then = then
        self.transport: asyncio.WriteTransport | None = None
        self.busy = False
        self._reset(0.0)

    def _reset(self, sent: float) -> None:
        self._sent = sent
        self._last = 0.0
        self._head = b""
        self._missing = -1
        self._chunked = False
        self._tail = b""
        self._finished = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.WriteTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.transport = None
        if self.busy:
            self.tally.incomplete += 1
            self.busy = False
            self._then(self)

    def send(self, request: bytes, sent: float) -> None:
        """Send a request; its latency counts from `sent`."""
        self._reset(sent)
        self.busy = True
        if self.transport is None:
            self.connection_lost(None)
        else:
            self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._missing < 0 and not self._chunked:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            data = self._begin(end)
        if self._chunked:
            if data:
                self._stream(data)
        else:
            self._missing -= len(data)
            if self._missing <= 0:
                self._complete()

    def _begin(self, end: int) -> bytes:
        """The head is here; returns what has come of the body."""
        head = self._head
        self.tally.statuses[int(head[9:12])] += 1
        length = _LENGTH.search(head, 0, end + 2)
        if length:
            self._missing = int(length[1])
        else:
            self._chunked = True
        return head[end + 4 :]

    def _stream(self, data: bytes) -> None:
        now = time.perf_counter()
        tally = self.tally
        events = data.count(b"\n\n")
        if self._tail.endswith(b"\n") and data.startswith(b"\n"):
            events += 1
        if events:
            tally.events += events
            if self._last:
                tally.gaps.append(now - self._last)
            else:
                tally.firsts.append(now - self._sent)
            self._last = now
        if len(data) < _KEPT:
            data = self._tail + data
        self._finished = self._finished or _DONE in data
        self._tail = data[-_KEPT:]
        if self._tail.endswith(_END):
            if not self._finished:
                tally.incomplete += 1
            self._complete()

    def _complete(self) -> None:
        self.tally.done += 1
        self.tally.latencies.append(time.perf_counter() - self._sent)
        self.busy = False
        self._then(self)


async def connect(port: int, count: int, tally: Tally, then: Callable[[Connection], None]) -> list[Connection]:
    """Open connections, a hundred at a time."""
    loop = asyncio.get_running_loop()
    opened: list[Connection] = []
    while len(opened) < count:
        batch = range(min(100, count - len(opened)))
        made = await asyncio.gather(
            *(loop.create_connection(lambda: Connection(tally, then), "127.0.0.1", port) for _ in batch)
        )
        opened.extend(protocol for _, protocol in made)
    return opened


def close(connections: list[Connection]) -> None:
    """Close them all."""
    for connection in connections:
        connection.busy = False
        if connection.transport is not None:
            connection.transport.close()


@dataclass(frozen=True, slots=True)
class Window:
    """What happened in a stretch of time of `seconds`."""

    tally: Tally
    seconds: float


Request = Callable[[], bytes]
Mark = Callable[[], None]


def _nothing() -> None:
    pass


async def closed_loop(
    port: int, request: Request, *, connections: int, seconds: float, warm_up: float, mark: Mark = _nothing
) -> Window:
    """Each connection sends its next request as soon as it has its answer.

    Args:
        request: Makes the bytes of one request.
        mark: Called when the measured window begins, and when it ends.
    """
    running = True

    def then(connection: Connection) -> None:
        if running and connection.transport is not None:
            connection.send(request(), time.perf_counter())

    opened = await connect(port, connections, Tally(), then)
    for connection in opened:
        then(connection)
    await asyncio.sleep(warm_up)
    window = await _window(opened, seconds, mark)
    running = False
    await _until_idle(opened, 30.0)
    close(opened)
    return window


async def _window(connections: list[Connection], seconds: float, mark: Mark) -> Window:
    tally, after = Tally(), Tally()
    for connection in connections:
        connection.tally = tally
    mark()
    started = time.perf_counter()
    await asyncio.sleep(seconds)
    for connection in connections:
        connection.tally = after
    took = time.perf_counter() - started
    mark()
    return Window(tally, took)


async def open_loop(
    port: int, request: Request, *, rate: float, seconds: float, warm_up: float, mark: Mark = _nothing
) -> Window:
    """Requests at fixed moments, however long the answers take; latencies count from those moments."""
    loop = asyncio.get_running_loop()
    idle: list[Connection] = []
    every: list[Connection] = []
    tally = Tally()

    def then(connection: Connection) -> None:
        if connection.transport is not None:
            idle.append(connection)

    def fire(due: float) -> None:
        if idle:
            idle.pop().send(request(), due)
        else:
            tally.incomplete += 1  # more connections than there are would be needed

    every = await connect(port, 64, tally, then)
    idle.extend(every)
    stop = threading.Event()
    clock = threading.Thread(target=_clock, args=(loop, fire, 1 / rate, stop), daemon=True)
    clock.start()
    await asyncio.sleep(warm_up)
    window = await _window(every, seconds, mark)
    stop.set()
    await asyncio.to_thread(clock.join)
    await _until_idle(every, 30.0)
    close(every)
    return window


def _clock(loop: asyncio.AbstractEventLoop, fire: Callable[[float], None], every: float, stop: threading.Event) -> None:
    """Fires at fixed moments: the event loop's own timers are only good to a millisecond."""
    due = time.perf_counter()
    while not stop.is_set():
        due += every
        time.sleep(max(0.0, due - time.perf_counter()))
        loop.call_soon_threadsafe(fire, due)


async def paced_streams(
    port: int, request: Request, *, streams: int, stream_seconds: float, seconds: float, mark: Mark = _nothing
) -> Window:
    """So many streams at once, begun one after the other within the length of one, each followed by the next.

    The streams that are under way when the window ends are read to their end, so that none can be lost unseen.
    """
    running = True

    def then(connection: Connection) -> None:
        if running and connection.transport is not None:
            connection.send(request(), time.perf_counter())

    opened = await connect(port, streams, Tally(), then)
    began = time.perf_counter()
    for index, connection in enumerate(opened):
        pause = began + stream_seconds * index / streams - time.perf_counter()
        if pause > 0.001:
            await asyncio.sleep(pause)
        then(connection)
    await asyncio.sleep(0.2)
    window = await _window(opened, seconds, mark)
    running = False
    window.tally.incomplete += await _until_idle(opened, 20 * stream_seconds)
    window.tally.incomplete += opened[0].tally.incomplete
    close(opened)
    return window


async def burst(port: int, request: Request, *, count: int, within: float, timeout: float) -> Window:
    """So many requests at once (sent within a few moments), each on a connection of its own; waits for all answers."""
    tally = Tally()
    opened = await connect(port, count, tally, lambda _: None)
    started = time.perf_counter()
    order = random.sample(opened, len(opened))
    for index, connection in enumerate(order):
        pause = started + within * index / count - time.perf_counter()
        if pause > 0.001:
            await asyncio.sleep(pause)
        connection.send(request(), time.perf_counter())
    tally.incomplete += await _until_idle(opened, timeout)
    took = time.perf_counter() - started
    close(opened)
    return Window(tally, took)


async def _until_idle(connections: list[Connection], timeout: float) -> int:
    """Wait for the answers that are still to come; returns how many never came."""
    end = time.perf_counter() + timeout
    while time.perf_counter() < end:
        if not any(connection.busy for connection in connections):
            return 0
        await asyncio.sleep(0.02)
    return sum(connection.busy for connection in connections)
