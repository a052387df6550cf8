"""An answer as server-sent events: opened late enough to fail honestly, kept alive while the upstream is silent, and
typed out where it came in one piece."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from types import TracebackType
from typing import ClassVar, Protocol, Self

import structlog
from msgspec import Struct
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api.disconnect import cancel_on_disconnect
from app.api.pacing import Pacer
from app.api.reply import RawHeaders
from app.api.writing import ResponseWriter
from app.chat.events import Ending, Event, Opening
from app.domain.chat import Delta, ToolCallDelta
from app.domain.chunking import paced_pieces, pieces
from app.domain.errors import ClientClosedRequest, GatewayError, GatewayStopping, InternalError
from app.observe.metrics import Metrics

# How far the upstream's side may run ahead of a slow reader, in events. Enough that a whole reply and its ending never
# wait; little enough that a stream nobody reads takes no memory.
_AHEAD = 32
# Pieces without a pause between them go out together, up to so many bytes a write.
_WRITE_BYTES = 16 * 1024
_STREAM_HEADERS = (
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
    (b"content-type", b"text/event-stream; charset=utf-8"),
)


class StreamPolicy(Struct, frozen=True):
    """How streams are written; all times in seconds.

    Args:
        grace: How long the response waits for the upstream's first word, so that a failure gets its true status.
        heartbeat: Silence after which a comment is sent.
        piece_size: Graphemes in one piece of a reply that came whole.
        pacer: Writes the pieces with pauses between them; None: as fast as the client reads.
        typing_ceiling: The most that all pauses of one answer add up to.
        write_timeout: How long a client may read nothing while there is something to read.
    """

    grace: float = 10.0
    heartbeat: float = 15.0
    piece_size: int = 4
    pacer: Pacer | None = None
    typing_ceiling: float = 3.0
    write_timeout: float = 60.0


class EventEncoder(Protocol):
    """Writes the events of one answer in a dialect. It may keep in mind what it has written."""

    # What is sent to keep a silent stream open.
    ping: ClassVar[bytes]

    def opening(self) -> bytes:
        """What comes before the answer."""
        ...

    def text(self, text: str) -> bytes:
        """A piece of text."""
        ...

    def reasoning(self, text: str) -> bytes:
        """A piece of what is thought before the answer."""
        ...

    def tool_call(self, part: ToolCallDelta) -> bytes:
        """A part of a tool call."""
        ...

    def ending(self, ending: Ending) -> bytes:
        """What comes after the answer."""
        ...

    def failure(self, error: GatewayError) -> bytes:
        """What comes instead of the rest."""
        ...


class EventStream(Response):
    """The response to a streamed call.

    Args:
        events: The call's events, not yet begun.
        encoder: Makes the dialect's encoder when the opening is known.
        headers_of: The response headers that tell about the opening.
        policy: Times and sizes.
        metrics: Told of streams and heartbeats.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[Event, None],
        *,
        encoder: Callable[[Opening], EventEncoder],
        headers_of: Callable[[Opening], RawHeaders],
        policy: StreamPolicy,
        metrics: Metrics,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.raw_headers = [*_STREAM_HEADERS]
        self._events = events
        self._encoder = encoder
        self._headers_of = headers_of
        self._policy = policy
        self._metrics = metrics
        self._began = time.perf_counter()
        self._log = structlog.get_logger("kimi.stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the call and write its events. Until the first byte errors are raised, from then on they are events."""
        encoder: EventEncoder | None = None
        writer = ResponseWriter(send, self._policy.write_timeout)
        try:
            async with cancel_on_disconnect(receive), _Pump(self._events) as pump:
                opening, first = await self._beginning(pump)
                self.raw_headers += self._headers_of(opening)
                await writer.start(scope["beginning"].message(self.status_code, self.raw_headers))
                encoder = self._encoder(opening)
                self._metrics.stream_began()
                await self._write(writer, pump, encoder, first)
                await writer.write(b"", more=False)
        except ClientClosedRequest:
            if encoder is None:
                raise
        except asyncio.CancelledError:
            # The server ends, and its grace time is over.
            if encoder is None:
                raise
            stopping = GatewayStopping("The gateway is being restarted.", retry_after=1)
            await writer.write(encoder.failure(stopping), more=False)
        finally:
            if encoder is not None:
                self._metrics.stream_ended()

    async def _beginning(self, pump: "_Pump") -> tuple[Opening, Event | None]:
        """The opening, and the first event after it: None if the upstream is silent for longer than the grace time.

        Of several openings the last one counts: it belongs to the provider that answers.
        """
        opening: Opening | None = None
        grace = asyncio.get_running_loop().time() + self._policy.grace
        try:
            while True:
                event = await pump.next(None if opening is None else grace)
                if isinstance(event, Opening):
                    opening = event
                elif opening is not None:
                    return opening, event
        except TimeoutError:
            if opening is None:
                raise
            return opening, None

    async def _write(self, writer: ResponseWriter, pump: "_Pump", encoder: EventEncoder, event: Event | None) -> None:
        unsent, silent = encoder.opening(), True
        if event is None:
            await self._ping(writer, unsent + encoder.ping)
            unsent = b""
        try:
            while True:
                event = event or await self._next_with_heartbeats(writer, pump, encoder.ping)
                if isinstance(event, Ending):
                    await writer.write(unsent + encoder.ending(event))
                    return
                if isinstance(event, Delta):
                    if silent:
                        silent = False
                        self._metrics.first_text(time.perf_counter() - self._began)
                    await self._write_delta(writer, encoder, event, unsent)
                    unsent = b""
                event = None
        except ClientClosedRequest:
            raise
        except GatewayError as error:
            await writer.write(encoder.failure(error))
        except Exception:  # noqa: BLE001 - whatever it is, the client must not take the answer for complete
            self._log.exception("stream_failed")
            await writer.write(encoder.failure(InternalError("The gateway made a mistake; its log says more.")))

    async def _next_with_heartbeats(self, writer: ResponseWriter, pump: "_Pump", ping: bytes) -> Event:
        while True:
            try:
                return await pump.next(asyncio.get_running_loop().time() + self._policy.heartbeat)
            except TimeoutError:
                await self._ping(writer, ping)

    async def _ping(self, writer: ResponseWriter, ping: bytes) -> None:
        self._metrics.heartbeat()
        await writer.write(ping)

    async def _write_delta(self, writer: ResponseWriter, encoder: EventEncoder, delta: Delta, unsent: bytes) -> None:
        if delta.reasoning:
            unsent += encoder.reasoning(delta.reasoning)
        if delta.tool_call is not None:
            unsent += encoder.tool_call(delta.tool_call)
        if not delta.whole or not delta.text:
            unsent += encoder.text(delta.text) if delta.text else b""
            if unsent:
                await writer.write(unsent)
        elif self._policy.pacer is None:
            await self._write_at_once(writer, encoder, delta.text, unsent)
        else:
            await self._type_out(writer, encoder, delta.text, unsent, self._policy.pacer)

    async def _type_out(
        self, writer: ResponseWriter, encoder: EventEncoder, text: str, unsent: bytes, pacer: Pacer
    ) -> None:
        policy = self._policy
        texts = paced_pieces(text, size=policy.piece_size, delay=pacer.delay, ceiling=policy.typing_ceiling)
        await writer.write(unsent + encoder.text(next(texts)))
        await pacer.write(writer, texts, encoder.text)

    async def _write_at_once(self, writer: ResponseWriter, encoder: EventEncoder, text: str, unsent: bytes) -> None:
        for piece in pieces(text, self._policy.piece_size):
            unsent += encoder.text(piece)
            if len(unsent) > _WRITE_BYTES:
                await writer.write(unsent)
                unsent = b""
                # A client that reads as fast as this writes never lets a write wait, and so nobody else run.
                await asyncio.sleep(0)
        if unsent:
            await writer.write(unsent)


class _Pump:
    """Runs a generator in a task of its own, a bounded number of events ahead of its reader.

    So the call goes on, and the turn is remembered, while its text is still being typed out; and waiting for the next
    event can be interrupted for a heartbeat without disturbing the call.
    """

    def __init__(self, events: AsyncGenerator[Event, None]) -> None:
        self._events = events
        self._queue: asyncio.Queue[Event | Exception] = asyncio.Queue(_AHEAD)
        self._is_leaving = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_leaving = True
        self._task.cancel()
        await asyncio.wait([self._task])

    async def next(self, deadline: float | None) -> Event:
        """The next event, or the exception that came instead of it; TimeoutError if neither comes by the deadline.

        Args:
            deadline: In the event loop's time; None waits for ever.
        """
        if not self._queue.empty():
            event = self._queue.get_nowait()
        else:
            async with asyncio.timeout_at(deadline):
                event = await self._queue.get()
        if isinstance(event, Exception):
            try:
                raise event
            finally:
                del event  # it leads to this frame: they would keep each other alive
        return event

    async def _run(self) -> None:
        try:
            async with aclosing(self._events) as events:
                async for event in events:
                    await self._queue.put(event)
            # Nobody waits for this after an ending.
            await self._queue.put(InternalError("The answer ended without saying so."))
        except asyncio.CancelledError:
            if self._is_leaving:
                raise
            await self._queue.put(InternalError("The answer was given up by the gateway."))
        except Exception as error:  # noqa: BLE001 - it is raised where the events are read
            await self._queue.put(error)
