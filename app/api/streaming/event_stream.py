"""Streamed answers as server-sent events.

The response is opened late enough for a failure to get its true HTTP status, kept alive while the upstream is silent,
and typed out where the answer came in one piece.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import structlog
from msgspec import Struct
from starlette.types import Message, Receive, Send

from app.api.dialects import EVENTS, EventEncoder
from app.api.request import NO_STORE, RawHeaders, RequestContext, cancel_on_disconnect
from app.api.streaming.late_response import LateResponse
from app.api.streaming.pacing import Pacer
from app.api.streaming.writing import ResponseWriter
from app.chat.events import Ending, Event, Opening
from app.domain.chat import Delta, NativeEvent
from app.domain.chunking import paced_groups, paced_pieces, pieces
from app.domain.errors import ClientClosedRequest, GatewayError, GatewayStopping, InternalError
from app.observe.metrics import Metrics

# Bytes after which pieces without a pause between them are written.
_WRITE_BYTES = 16 * 1024
_STREAM_HEADERS = (
    NO_STORE,
    (b"x-accel-buffering", b"no"),
)


class StreamPolicy(Struct, frozen=True):
    """How streams are written. All times are in seconds.

    Args:
        grace: How long the response waits for the upstream's first word before it is opened.
        heartbeat: Silence after which a comment is sent.
        piece_size: Graphemes in each piece of an answer that came whole.
        pacer: Writes the pieces with pauses; None writes as fast as the client reads.
        typing_ceiling: The sum of all pauses of one answer, at most.
        write_timeout: How long a client may leave data unread.
    """

    grace: float = 10.0
    heartbeat: float = 15.0
    piece_size: int = 4
    pacer: Pacer | None = None
    typing_ceiling: float = 3.0
    write_timeout: float = 60.0


class EventStream:
    """The response to a streamed call.

    Args:
        events: The call's events, not yet begun.
        encoder: Makes the dialect's encoder when the opening is known.
        media_type: Of what it writes.
        headers_of: The response headers that tell about the opening.
        policy: Times and sizes.
        metrics: Told of streams and heartbeats.
    """

    def __init__(
        self,
        events: AsyncGenerator[Event, None],
        *,
        encoder: Callable[[Opening], EventEncoder],
        headers_of: Callable[[Opening], RawHeaders],
        policy: StreamPolicy,
        metrics: Metrics,
        media_type: bytes = EVENTS,
    ) -> None:
        self._events = events
        self._encoder = encoder
        self._media_type = media_type
        self._headers_of = headers_of
        self._policy = policy
        self._metrics = metrics
        self._opening: Opening | None = None
        self._silent = True
        # Writes a text that came whole; and what waits for it, or for the end of the call.
        self._typing: asyncio.Task[None] | None = None
        self._later: deque[Delta | Ending] = deque()

    async def send(self, context: RequestContext, receive: Receive, send: Send) -> None:
        """Run the call and write its events. Errors are raised before the first byte, and are events after it."""
        policy = self._policy
        self._context = context
        out = LateResponse(
            ResponseWriter(send, policy.write_timeout),
            self._begin,
            grace=policy.grace,
            heartbeat=policy.heartbeat,
            on_ping=self._metrics.heartbeat,
        )
        try:
            with cancel_on_disconnect(receive):
                async with aclosing(self._events) as events:
                    with out:
                        await self._write_all(events, out)
                    await out.writer.write(out.last, more=False)
        except ClientClosedRequest:
            if out.encoder is None:
                raise
        except asyncio.CancelledError:
            # The server ends, and its grace time is over.
            if out.encoder is None:
                raise
            stopping = GatewayStopping("The gateway is being restarted.", retry_after=1)
            await out.writer.write(out.encoder.failure(stopping), more=False)
        finally:
            if out.encoder is not None:
                self._metrics.stream_ended()

    def _begin(self) -> tuple[Message, EventEncoder]:
        if self._opening is None:
            raise InternalError("The answer began without an opening.")
        self._metrics.stream_began()
        headers = [*_STREAM_HEADERS, (b"content-type", self._media_type), *self._headers_of(self._opening)]
        return self._context.begin_response(200, headers), self._encoder(self._opening)

    async def _write_all(self, events: AsyncGenerator[Event, None], out: LateResponse) -> None:
        try:
            await self._write_events(events, out)
        except ClientClosedRequest:
            raise
        except Exception as error:
            if out.encoder is None:
                raise
            if not isinstance(error, GatewayError):
                # Whatever it is, the client must not take the answer for complete.
                structlog.get_logger("kimi.stream").exception("stream_failed")
                error = InternalError("Internal error. The gateway's log has the details under this request id.")
            out.end_with(out.encoder.failure(error))

    async def _write_events(self, events: AsyncGenerator[Event, None], out: LateResponse) -> None:
        """Write everything that the call says. The call is over before its ending is written.

        Raises:
            Exception: What came in place of the ending, once everything before it has been written.
        """
        try:
            await self._follow(events, out)
        except Exception:
            # If the ending has been told, the answer is complete and the client need not know.
            if not await self._catch_up(out):
                raise
        else:
            if not await self._catch_up(out):
                raise InternalError("The answer ended unexpectedly.")
        finally:
            if self._typing is not None:
                self._typing.cancel()
                await asyncio.wait([self._typing])

    async def _follow(self, events: AsyncGenerator[Event, None], out: LateResponse) -> None:
        """Run the call to its end, and write what doesn't have to wait."""
        try:
            async for event in events:
                if self._typing is None and isinstance(event, Delta):
                    await self._write_delta(out, event)
                elif isinstance(event, Opening):
                    self._opening = event
                    out.ready()
                else:
                    self._later.append(event)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise InternalError("The answer was cancelled inside the gateway.") from None

    async def _catch_up(self, out: LateResponse) -> bool:
        """Write what had to wait. Returns whether the ending was part of it."""
        while self._typing is not None or self._later:
            if self._typing is not None:
                typing, self._typing = self._typing, None
                await typing
            elif isinstance(event := self._later.popleft(), Delta):
                await self._write_delta(out, event)
            else:
                encoder = await out.open()
                out.end_with(encoder.ending(event))
                return True
        return False

    async def _write_delta(self, out: LateResponse, delta: Delta) -> None:
        encoder = out.encoder or await out.open()
        if self._silent:
            self._silent = False
            self._metrics.first_text(self._context.seconds)
        if delta.choice:
            await out.write(encoder.other_choice(delta))
            return
        if delta.native:
            if delta.whole and self._policy.pacer is not None:
                self._typing = asyncio.create_task(self._write_kept(out, encoder, delta.native, self._policy.pacer))
            else:
                await out.write(encoder.native(delta.native))
            return
        body = encoder.reasoning(delta.reasoning) if delta.reasoning else b""
        if delta.tool_call is not None:
            body += encoder.tool_call(delta.tool_call)
        if delta.refusal:
            body += encoder.refusal(delta.refusal)
        if delta.whole and delta.text:
            # In a task of its own, so that meanwhile the call ends and the turn is remembered.
            self._typing = asyncio.create_task(self._write_whole(out, encoder, delta.text, body))
        elif delta.extras:
            await out.write(body + encoder.extras(delta.text, delta.extras))
        else:
            await out.write(body + encoder.text(delta.text) if delta.text else body)

    async def _write_whole(self, out: LateResponse, encoder: EventEncoder, text: str, before: bytes) -> None:
        policy, pacer = self._policy, self._policy.pacer
        if pacer is None:
            await self._write_at_once(out, encoder, text, before)
            return
        texts = iter(paced_pieces(text, size=policy.piece_size, delay=pacer.delay, ceiling=policy.typing_ceiling))
        await out.write(before + encoder.text(next(texts)))
        await pacer.write(out.writer, texts, encoder.text)

    async def _write_kept(
        self, out: LateResponse, encoder: EventEncoder, events: Sequence[NativeEvent], pacer: Pacer
    ) -> None:
        groups = paced_groups(events, delay=pacer.delay, ceiling=self._policy.typing_ceiling)
        await out.write(encoder.native(next(groups)))
        await pacer.write(out.writer, groups, encoder.native)

    async def _write_at_once(self, out: LateResponse, encoder: EventEncoder, text: str, unsent: bytes) -> None:
        parts = [unsent]
        size = 0
        for part in map(encoder.text, pieces(text, self._policy.piece_size)):
            parts.append(part)
            size += len(part)
            if size > _WRITE_BYTES:
                await out.write(b"".join(parts))
                parts, size = [], 0
                # If the client reads as fast as this writes, no write ever waits, and no other task would run.
                await asyncio.sleep(0)
        await out.write(b"".join(parts))
