"""The flow of one call to an upstream that speaks OpenAI chat completions."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from types import TracebackType
from typing import Self

from msgspec import Struct

from app.domain.chat import Completion, Delta, Usage
from app.domain.errors import UnexpectedReply, UpstreamUnavailable
from app.domain.json import is_overladen, read_json_list, read_json_object
from app.domain.relay import Payload, RelayHead
from app.domain.spans import Trace, no_trace
from app.providers.base import BaseProvider, CompletionRequest, ModelSpec, ProviderStatus, RelayRequest
from app.providers.http import HttpClient, HttpError, HttpReply, HttpStream, Upload
from app.providers.http.exceptions import ConnectionLost
from app.providers.openai_compatible.failure import failure, fault_error, fault_in
from app.providers.openai_compatible.relay import (
    SHORT,
    UsageFinder,
    has_error,
    head_of,
    is_json,
    is_page,
    relay_failure,
)
from app.providers.openai_compatible.reply import Json, ReplyReader, gathered, read_completion, reader_for
from app.providers.openai_compatible.request import chat_body, one_word_body
from app.providers.openai_compatible.sse_decoder import SseDecoder
from app.providers.openai_compatible.upstream import Upstream
from app.providers.openai_compatible.upstream_models import UpstreamModels
from app.providers.resilience.guard import Guard
from app.providers.upstream_errors import translated

_LONGEST_EVENT = 1024 * 1024
# An event has a few characters of the answer in some hundred bytes of JSON.
_STREAM_OVERHEAD = 64
_LONGEST_ID = 256
# So much of a stream is read before all others have their turn: at worst a few milliseconds' work.
_PIECE_BYTES = 16 * 1024
# The same for events: in bytes, and how many of them the event itself counts for.
_TURN_WORK, _EVENT_WORK = 64 * 1024, 512
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":", b"[DONE]")
_LONGEST_FIELD = 6
_BLANK = b" \t\r\n\xef\xbb\xbf"
# What upstreams put into an event to keep the connection alive.
_SIGNS_OF_LIFE = frozenset({"ping", "keep-alive", "keepalive", "heartbeat"})
_BETWEEN = re.compile(r"(?:[\s,]|data:)*")
_DONE = re.compile(r'"?\[?DONE\]?"?', re.IGNORECASE)
_JSON = json.JSONDecoder()


class OpenAICompatibleProvider(BaseProvider):
    """One upstream with an OpenAI-compatible API.

    Args:
        upstream: Its data.
        client: Sends the requests; belongs to this provider.
        guard: Bounds and retries them.
        max_reply_bytes: Longer answers are refused.
        trace: Opens a span around each request.
    """

    relays = True

    def __init__(
        self, upstream: Upstream, *, client: HttpClient, guard: Guard, max_reply_bytes: int, trace: Trace = no_trace
    ) -> None:
        self.name = upstream.name
        self.timeout = guard.timeout
        self._upstream = upstream
        self._client = client
        self._guard = guard
        self._max_reply_bytes = max_reply_bytes
        self._trace = trace
        self._models = UpstreamModels(upstream, self._fetch_models)
        self._url = f"{upstream.base_url}/chat/completions"
        self._headers = {**upstream.headers, **({"Authorization": f"Bearer {upstream.key}"} if upstream.key else {})}
        self._stream_headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity", **self._headers}
        # As it comes, so that it can be passed on with its length.
        self._relay_headers = {"Accept-Encoding": "identity", **self._headers}

    @property
    def models(self) -> Sequence[ModelSpec]:  # type: ignore[override]  # read-only here
        """The configured models, and those that the upstream lists if its list is read."""
        return self._models.models

    def find(self, model_id: str) -> ModelSpec | None:
        """Find a model by its id or the upstream's own name, or make one up if any model may be requested."""
        found = super().find(model_id)
        if found is None:
            found = next((spec for spec in self.models if spec.upstream_id == model_id), None)
        if found is None and self._upstream.any_model and 0 < len(model_id) <= _LONGEST_ID:
            found = self._models.spec(model_id, public_id=f"{self.name}/{model_id}", listed=False)
        return found

    async def start(self) -> None:
        """Start reading the list of models in the background, if it is to be read."""
        await self._client.open()
        self._models.start()

    async def connect(self) -> None:
        """Check as cheaply as possible that the upstream is there and accepts the key.

        Raises:
            GatewayError: It isn't, or doesn't.
        """
        await self._guard.run(self._check, caller_id="")
        await self._models.refresh()

    async def prepare(self) -> None:
        """Wait until the list of models has been read once, if it is to be read."""
        await self._models.first_read()

    async def retire(self) -> None:
        """Stop the background task."""
        await self._models.aclose()

    async def aclose(self) -> None:
        """Stop the background task and close all connections."""
        await self._models.aclose()
        await self._client.aclose()

    @property
    def is_idle(self) -> bool:
        """Whether no call is under way."""
        return self._guard.bulkhead.is_idle

    def status(self) -> ProviderStatus:
        """Ready while any model may be asked: the upstream's breaker is not open, nor are those of all models."""
        guard = self._guard
        stopped, pauses = guard.stopped_models(), guard.pauses()
        listed = {spec.upstream_id for spec in self.models}
        all_stopped = not self._upstream.any_model and listed and listed <= stopped
        breaker = "open" if all_stopped else guard.breaker.state
        details = {"breaker": breaker, **self._models.details}
        if reason := guard.failure_reason():
            details["failure_reason"] = reason
        if stopped:
            # Not their names: clients may have made them up.
            details["models_failing"] = str(len(stopped))
        if pauses:
            details["models_paused"] = str(len(pauses))
        gauges = {
            "breaker_closed": float(guard.all_closed()),
            "pause_seconds": max(pauses, default=0.0),
            "queue_depth": float(guard.bulkhead.queued),
            "slots_free": float(guard.bulkhead.free),
        }
        return ProviderStatus(breaker != "open", details, gauges)

    async def create_completion(self, request: CompletionRequest) -> Completion:
        """The upstream's answer, requested as a whole."""
        body = chat_body(request, self._upstream.quirks, stream=False)
        return await self._guard.run(
            lambda: self._complete(body, request.n),
            caller_id=request.caller_id,
            model=request.model.upstream_id,
            deadline=request.deadline,
            retries=request.retries,
            on_wait=request.on_wait,
        )

    def stream_completion(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        """The upstream's stream, delta by delta."""
        body = chat_body(request, self._upstream.quirks, stream=True)
        return self._guard.stream(
            lambda: self._stream(body, request.n, request.report),
            caller_id=request.caller_id,
            model=request.model.upstream_id,
            deadline=request.deadline,
            retries=request.retries,
            on_wait=request.on_wait,
        )

    def relay(self, request: RelayRequest) -> AsyncGenerator[RelayHead | bytes, None]:
        """The upstream's answer to a request that is passed on, part by part."""
        return self._guard.stream(
            lambda: self._relay(request),
            caller_id=request.caller_id,
            model=request.model.upstream_id,
            deadline=request.deadline,
            retries=request.retries,
            on_wait=request.on_wait,
        )

    async def _relay(self, request: RelayRequest) -> AsyncGenerator[RelayHead | bytes, None]:
        try:
            async with self._sent(request.path, request.payload) as stream:
                head = head_of(stream)
                if stream.status != HTTPStatus.OK or is_page(head):
                    raise relay_failure(await stream.whole(), self._upstream, request)
                stream.hold_little(_PIECE_BYTES)
                part = await _looked_into(stream) if is_json(head) else await stream.next_part()
                if is_json(head) and len(part) <= SHORT and has_error(part):
                    raise relay_failure(HttpReply(stream.status, stream.headers, part), self._upstream, request)
                yield head
                finder = UsageFinder()
                while part:
                    finder.feed(part)
                    yield part
                    part = await stream.next_part()
                if (usage := finder.usage) is not None:
                    request.report(usage)
        except HttpError as error:
            raise translated(error) from error

    def _sent(self, path: str, payload: Payload) -> AbstractAsyncContextManager[HttpStream]:
        url = f"{self._upstream.base_url}{path}"
        if payload.pieces is None:
            return self._client.stream_json(url, payload.data, self._relay_headers)
        upload = Upload(payload.content_type, payload.length, payload.pieces)
        return self._client.stream_upload(url, upload, self._relay_headers)

    async def _check(self) -> None:
        try:
            check_url = f"{self._upstream.base_url}{self._upstream.quirks.check_path}"
            reply = await self._client.get(check_url, self._headers)
            if reply.status in (404, 405, 501) and self.models:
                body = one_word_body(self.models[0].upstream_id, self._upstream.quirks)
                reply = await self._client.post_json(self._url, body, self._headers)
        except HttpError as error:
            raise translated(error) from error
        if reply.status != HTTPStatus.OK or _any_json(reply.body) is None:
            raise failure(reply, self._upstream)

    async def _complete(self, body: bytes, wanted: int) -> Completion:
        with self._trace("upstream"):
            try:
                reply = await self._client.post_json(self._url, body, self._headers)
            except HttpError as error:
                raise translated(error) from error
        if reply.status == HTTPStatus.OK and _is_events(reply.body):
            return gathered(await self._events_of(reply.body, wanted))  # some upstreams always stream
        return read_completion(self._good(reply), self.name, self._max_reply_bytes, wanted)

    async def _stream(
        self, body: bytes, wanted: int, report: Callable[[Usage], None] | None
    ) -> AsyncGenerator[Delta, None]:
        """The body tells whether it is a stream, whatever its content type says. It ends with `[DONE]`, or with the
        connection: neither a finish reason nor a usage nor a pause ends it before."""
        with _BrokenOff(report) as broken_off:
            async with self._client.stream_json(self._url, body, self._stream_headers) as stream:
                part = await self._first_part(stream)
                broken_off.reader = reader = reader_for(self.name, self._max_reply_bytes, wanted)
                if not _is_events(part, stream.headers):
                    # Some upstreams never stream.
                    whole = part + (await stream.whole()).body
                    for delta in reader.feed(self._good(HttpReply(stream.status, stream.headers, whole))):
                        yield delta
                else:
                    events = self._events()
                    while True:
                        for news in self._deltas_in(part, events, reader):
                            if news is None:
                                await asyncio.sleep(0)
                            else:
                                yield news
                        if not part:
                            break
                        part = b"" if reader.complete else await _next_part(stream, reader)
                await self._conclude(stream, reader)
                for delta in reader.end():
                    yield delta

    async def _first_part(self, stream: HttpStream) -> bytes:
        if stream.status != HTTPStatus.OK:
            raise failure(await stream.whole(), self._upstream)
        part = await stream.next_part()
        return part if part.startswith(b"data:") else await self._beginning(stream, part)

    async def _beginning(self, stream: HttpStream, part: bytes) -> bytes:
        """So much of the answer as it takes to tell what it is, without the blanks before it."""
        begun, size = _Beginning(), 0
        while part:
            size += len(part)
            if size > self._max_reply_bytes:
                raise UnexpectedReply(f"The answer from {self.name} is longer than {self._max_reply_bytes} bytes.")
            if begun.feed(part):
                break
            part = await stream.next_part()
        return begun.text

    async def _events_of(self, body: bytes, wanted: int) -> list[Delta]:
        """The deltas of a stream that is there as a whole."""
        reader, events = reader_for(self.name, self._max_reply_bytes, wanted), self._events()
        deltas: list[Delta] = []
        for part in (body, b""):
            for delta in self._deltas_in(part, events, reader):
                if delta is None:
                    await asyncio.sleep(0)
                else:
                    deltas.append(delta)
        if not reader.complete and not reader.may_end:
            raise self._broken_off()
        return [*deltas, *reader.end()]

    async def _conclude(self, stream: HttpStream, reader: ReplyReader) -> None:
        """Read the connection to its end after `[DONE]`, so that it can be used again."""
        if reader.complete:
            await stream.finish()
        elif not reader.may_end:
            raise self._broken_off()

    def _broken_off(self) -> UpstreamUnavailable:
        return UpstreamUnavailable(
            f"{self.name} broke off in the middle of its answer.", reason="connection closed within a reply"
        )

    def _events(self) -> "_Events":
        return _Events(
            SseDecoder(
                longest_event=max(_LONGEST_EVENT, self._max_reply_bytes),
                longest_stream=self._max_reply_bytes * _STREAM_OVERHEAD,
            ),
            _SilentBytes(self.name, self._max_reply_bytes),
        )

    def _deltas_in(self, part: bytes, events: "_Events", reader: ReplyReader) -> Iterator[Delta | None]:
        """The deltas that a part of a stream completes, or its end, if the part is empty. See `_deltas`."""
        if not part:
            yield from self._deltas(events.decoder.finish(), reader)
        elif len(part) <= _PIECE_BYTES:
            yield from self._deltas(events.decoder.feed(part), reader)
            events.silence.note(len(part), reader.size)
        else:
            for start in range(0, len(part), _PIECE_BYTES):
                piece = part[start : start + _PIECE_BYTES]
                yield from self._deltas(events.decoder.feed(piece), reader)
                events.silence.note(len(piece), reader.size)
                yield None

    def _deltas(self, events: Sequence[bytes], reader: ReplyReader) -> Iterator[Delta | None]:
        """The deltas of a stream's events; None where it is time to let others have their turn.

        Raises:
            GatewayError: An event is an error.
        """
        work = 0
        for data in events:
            if reader.complete:
                return
            document = read_json_object(data)
            if document is not None:
                yield from reader.feed(self._faultless(document))
                work += len(data) + _EVENT_WORK
            else:
                for further in self._documents(data):
                    if further is None:
                        reader.complete = True
                        return
                    yield from reader.feed(self._faultless(further))
                    work += _EVENT_WORK
                    if work > _TURN_WORK:
                        work = 0
                        yield None
                work += len(data)
            if work > _TURN_WORK:
                work = 0
                yield None

    def _documents(self, data: bytes) -> Iterator[Json | None]:
        """The documents in what isn't one: events that have run together, and None for the end of the stream."""
        if is_overladen(data):
            raise UnexpectedReply(f"The stream from {self.name} contains something that isn't JSON.")
        text = data.decode("utf-8", "replace")
        place = 0
        while (found := _BETWEEN.match(text, place)) and (place := found.end()) < len(text):
            if found := _DONE.match(text, place):
                yield None
                return
            try:
                document, place = _JSON.raw_decode(text, place)
            except (ValueError, RecursionError):
                if text[place:].strip().lower() in _SIGNS_OF_LIFE:
                    return
                raise UnexpectedReply(f"The stream from {self.name} contains something that isn't JSON.") from None
            if isinstance(document, dict):
                yield document

    def _faultless(self, document: Json) -> Json:
        fault = fault_in(document)
        if fault is not None:
            raise fault_error(fault, self._upstream)
        return document

    def _good(self, reply: HttpReply) -> Json:
        document = read_json_object(reply.body)
        if reply.status != 200 or document is None or not document.get("choices") or fault_in(document):
            raise failure(reply, self._upstream)
        return document

    async def _fetch_models(self) -> object:
        try:
            reply = await self._client.get(f"{self._upstream.base_url}/models", self._headers)
        except HttpError as error:
            raise translated(error) from error
        document = _any_json(reply.body)
        if reply.status != HTTPStatus.OK or document is None:
            raise failure(reply, self._upstream)
        return document


def _any_json(body: bytes) -> object:
    """An object or a list; None if it is neither."""
    document = read_json_object(body)
    return read_json_list(body) if document is None else document


class _Beginning:
    """An answer's first bytes, looked at once each, until they tell what it is."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._has_line = False

    @property
    def text(self) -> bytes:
        """Everything but the blanks before it."""
        return b"".join(self._parts)

    def feed(self, part: bytes) -> bool:
        """Whether the bytes tell by now what the answer is."""
        if not self._parts:
            part = part.lstrip(_BLANK)
            if not part:
                return False
        self._parts.append(part)
        self._size += len(part)
        if not self._parts[0].startswith(b"{"):
            return self._size >= _LONGEST_FIELD
        if self._has_line:
            return bool(part.strip())
        if b"\n" not in part:
            return False
        self._has_line = True
        line, _, more = self.text.partition(b"\n")
        return bool(more.strip()) or read_json_object(line) is None


class _SilentBytes:
    """Bounds what a stream sends without saying anything: comments, empty lines, empty events.

    Args:
        name: The upstream's.
        most: The most bytes in a row.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        # An event of the largest size has not been said before it is complete.
        self._most = 2 * max(most, _LONGEST_EVENT)
        self._bytes = self._said = 0

    def note(self, size: int, said: int) -> None:
        """Count bytes.

        Args:
            size: How many more have arrived.
            said: The characters of the answer so far.

        Raises:
            UnexpectedReply: There are too many.
        """
        if said != self._said:
            self._said, self._bytes = said, 0
            return
        self._bytes += size
        if self._bytes > self._most:
            raise UnexpectedReply(f"The stream from {self._name} has {self._bytes} bytes in a row that say nothing.")


class _BrokenOff:
    """Reports what the upstream has counted of a stream that doesn't come to its end, and says why it doesn't.

    Args:
        report: See `CompletionRequest`.

    Attributes:
        reader: Reads the stream, once there is one.
    """

    __slots__ = ("_report", "reader")

    def __init__(self, report: Callable[[Usage], None] | None) -> None:
        self._report = report
        self.reader: ReplyReader | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            return
        usage = None if self.reader is None else self.reader.usage
        if usage is not None and self._report is not None:
            self._report(usage)
        if isinstance(error, HttpError):
            raise translated(error) from error


class _Events(Struct):
    """What reads the events of one stream."""

    decoder: SseDecoder
    silence: _SilentBytes


def _is_events(begun: bytes, headers: Mapping[str, str] | None = None) -> bool:
    """Whether an answer that begins like this is a stream of events, or of JSON lines.

    Args:
        headers: Its content type counts where the answer itself doesn't tell.
    """
    begun = begun.lstrip(_BLANK)
    if begun.startswith(_FIELDS):
        return True
    if begun.startswith(b"{"):
        # A whole answer, unless its first line is an object of its own.
        line, _, more = begun.partition(b"\n")
        return bool(more.strip()) and read_json_object(line) is not None
    if begun.startswith((b"<", b"[")) or headers is None:
        return False
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind not in ("application/json", "text/html", "application/xhtml+xml", "application/problem+json")


async def _looked_into(stream: HttpStream) -> bytes:
    """So much of an answer as tells whether it is an error: all of a short one."""
    begun = b""
    while len(begun) <= SHORT and (part := await stream.next_part()):
        begun += part
    return begun


async def _next_part(stream: HttpStream, reader: ReplyReader) -> bytes:
    """The next bytes. Where the answer is over, a lost connection is as good as its end."""
    try:
        return await stream.next_part()
    except ConnectionLost:
        if not reader.finished:
            raise
        return b""
