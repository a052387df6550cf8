"""The flow of one call to an upstream with an API of its vendor's, whatever form that API has."""

import asyncio
import hashlib
import json
import re
from abc import abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property, partial
from http import HTTPStatus
from itertools import chain
from types import TracebackType
from typing import ClassVar, Self

from msgspec.structs import replace

from app.domain.alternation import alternating
from app.domain.chat import Completion, Delta, Usage
from app.domain.errors import GatewayError, UnexpectedReply, UpstreamUnavailable
from app.domain.json import is_overladen, read_json_list, read_json_object
from app.domain.spans import Trace, no_trace
from app.providers.api_upstream.accounts import Account, Accounts
from app.providers.api_upstream.events import Beginning, Events, events_from, is_events
from app.providers.api_upstream.failure import UpstreamFault, failure, fault_error, fault_in
from app.providers.api_upstream.reply import Json, Reader, gathered
from app.providers.api_upstream.upstream import Upstream
from app.providers.api_upstream.upstream_models import UpstreamModels
from app.providers.base import BaseProvider, CompletionRequest, ModelSpec, ProviderStatus
from app.providers.http import HttpClient, HttpError, HttpReply, HttpStream
from app.providers.http.exceptions import ConnectionLost
from app.providers.resilience.guard import Guard
from app.providers.upstream_errors import translated

_LONGEST_ID = 256
# So much of a stream is read before all others have their turn: at worst a few milliseconds' work.
PIECE_BYTES = 16 * 1024
# The same for events: in bytes, and how many of them the event itself counts for.
_TURN_WORK, _EVENT_WORK = 64 * 1024, 512
# What upstreams put into an event to keep the connection alive.
_SIGNS_OF_LIFE = frozenset({"ping", "keep-alive", "keepalive", "heartbeat"})
_BETWEEN = re.compile(r"(?:[\s,]|data:)*")
_DONE = re.compile(r'"?\[?DONE\]?"?', re.IGNORECASE)
# How a stream ends that nobody has asked for. No whole answer ends like this.
_LAST_EVENTS = tuple([last + end for last in (b"[DONE]", b'"message_stop"}') for end in (b"\n\n", b"\r\n\r\n")])
_JSON = json.JSONDecoder(strict=False)


class ApiProvider(BaseProvider):
    """One upstream with an API. A subclass says what its form of API is like: addresses, bodies, answers, errors.

    Args:
        upstream: Its data.
        client: Sends the requests; belongs to this provider.
        guard: Bounds and retries them.
        max_reply_bytes: Longer answers are refused.
        trace: Opens a span around each request.
    """

    # What the API is called in errors.
    api_name: ClassVar[str]
    # Finds the error in a document.
    fault_in: ClassVar["staticmethod[[Json], UpstreamFault | None]"] = staticmethod(fault_in)

    def __init__(
        self: Self,
        upstream: Upstream,
        *,
        client: HttpClient,
        guard: Guard,
        max_reply_bytes: int,
        trace: Trace = no_trace,
    ) -> None:
        self.name = upstream.name
        self.timeout = guard.timeout
        self._client = client
        self._guard = guard
        self._max_reply_bytes = max_reply_bytes
        self._trace = trace
        self._models = UpstreamModels(upstream, self._listed_models)
        self._use(upstream)
        # None with a single key, or none. (`self: Self` is for the type of this attribute.)
        self._accounts: Accounts[Self] | None = self._accounts_of(upstream) if upstream.keys else None

    def _use(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._headers = {**upstream.headers, **self._own_headers(upstream)}
        self._stream_headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity", **self._headers}

    def _accounts_of(self, upstream: Upstream) -> Accounts[Self]:
        """An account for each key. What sends its requests is this provider but for the key."""
        accounts: list[Account[Self]] = []
        for name, key in upstream.keys.items():
            self._use(replace(upstream, key=key, key_name=name))
            accounts.append(Account(self.name, name, key, copy(self), self._guard, len(upstream.keys)))
        self._use(upstream)
        return Accounts(accounts)

    @abstractmethod
    def _own_headers(self, upstream: Upstream) -> Mapping[str, str]:
        """The headers that the API wants, with the key among them."""

    @abstractmethod
    def _url(self, request: CompletionRequest, *, stream: bool) -> str:
        """Where a request goes."""

    @abstractmethod
    def _body(self, request: CompletionRequest, *, stream: bool) -> bytes:
        """The body of a request.

        Raises:
            InvalidRequest: It can't be written in this form.
        """

    @abstractmethod
    def _one_word(self, model: str) -> tuple[str, bytes]:
        """Address and body of the cheapest request."""

    @abstractmethod
    def _reader(self, request: CompletionRequest) -> Reader:
        """What reads an answer, whole or in parts."""

    @abstractmethod
    def _is_answer(self, document: Json) -> bool:
        """Whether a document looks like a whole answer."""

    def _headers_for(self, request: CompletionRequest, headers: Mapping[str, str]) -> Mapping[str, str]:  # noqa: ARG002 - for subclasses
        """The headers of one request; these ones unless it brings its own."""
        return headers

    def _completion(self, document: Json, request: CompletionRequest) -> Completion:
        """The completion that a whole answer contains."""
        return self._gathered((document,), request)

    def _gathered(self, documents: Sequence[Json], request: CompletionRequest) -> Completion:
        """The completion that the documents of an answer are together."""
        reader = self._reader(request)
        deltas = [delta for document in documents for delta in reader.feed(document)]
        deltas.extend(reader.end())
        return replace(gathered(deltas), deltas=alternating(deltas))

    @cached_property
    def identity(self) -> str:  # type: ignore[override]  # read-only here
        """Stands for the form, the address and the keys of the upstream."""
        one = self._upstream
        parts = [one.kind, one.base_url, one.key, *one.keys.values(), *chain.from_iterable(sorted(one.headers.items()))]
        return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()

    @property
    def _models_url(self) -> str:
        """Where the list of models is."""
        return f"{self._upstream.base_url}/models"

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
        accounts = self._accounts
        check = self.check_once if accounts is None else partial(accounts.check, lambda sender: sender.check_once())
        await self._guard.run(check, caller_id="")
        await self._models.refresh()

    async def prepare(self) -> None:
        """Wait until the list of models has been read once, if it is to be read."""
        await self._models.first_read()

    async def retire(self) -> None:
        """Stop the background task."""
        await self._models.aclose()

    @property
    def is_idle(self) -> bool:
        """Whether no call is under way."""
        return self._guard.bulkhead.is_idle

    async def aclose(self) -> None:
        """Stop the background task and close all connections."""
        await self._models.aclose()
        await self._client.aclose()

    def status(self) -> ProviderStatus:
        """Ready while any model may be asked: the upstream's breaker is not open, nor are those of all models."""
        guard = self._guard
        stopped, pauses = guard.stopped_models(), guard.pauses()
        listed = {spec.upstream_id for spec in self.models}
        all_stopped = not self._upstream.any_model and listed and listed <= stopped
        breaker = "open" if all_stopped else guard.breaker.state
        details = {"breaker": breaker, **self._models.details}
        if self._accounts is not None:
            details.update(self._accounts.details)
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
        body = self._body(request, stream=False)
        attempt: Callable[[], Awaitable[Completion]] = partial(self.complete_once, body, request)
        if self._accounts is not None:
            attempt = partial(
                self._accounts.run,
                lambda sender: sender.complete_once(body, request),
                model=request.model.upstream_id,
                conversation_id=request.conversation_id,
            )
        return await self._guard.run(
            attempt,
            caller_id=request.caller_id,
            model=request.model.upstream_id,
            deadline=request.deadline,
            retries=request.retries,
            on_wait=request.on_wait,
        )

    def stream_completion(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        """The upstream's stream, delta by delta."""
        body = self._body(request, stream=True)
        attempt: Callable[[], AsyncGenerator[Delta, None]] = partial(self.stream_once, body, request)
        if self._accounts is not None:
            attempt = partial(
                self._accounts.stream,
                lambda sender: sender.stream_once(body, request),
                model=request.model.upstream_id,
                conversation_id=request.conversation_id,
            )
        return self._guard.stream(
            attempt,
            caller_id=request.caller_id,
            model=request.model.upstream_id,
            deadline=request.deadline,
            retries=request.retries,
            on_wait=request.on_wait,
        )

    async def check_once(self) -> None:
        """One try of `connect`."""
        try:
            check_url = f"{self._upstream.base_url}{self._upstream.quirks.check_path}"
            reply = await self._client.get(check_url, self._headers)
            if reply.status in (404, 405, 501) and self.models:
                url, body = self._one_word(self.models[0].upstream_id)
                reply = await self._client.post_json(url, body, self._headers)
        except HttpError as error:
            raise translated(error) from error
        if reply.status != HTTPStatus.OK or _any_json(reply.body) is None:
            raise self._failure(reply)

    async def complete_once(self, body: bytes, request: CompletionRequest) -> Completion:
        """One try of `create_completion`."""
        url, headers = self._url(request, stream=False), self._headers_for(request, self._headers)
        with self._trace("upstream"):
            try:
                reply = await self._client.post_json(url, body, headers, _LAST_EVENTS)
            except HttpError as error:
                raise translated(error) from error
        if reply.status == HTTPStatus.OK and is_events(reply.body):
            return gathered(await self._events_of(reply.body, self._reader(request)))  # some upstreams always stream
        document, *more = self._good(reply)
        if more:
            return self._gathered((document, *more), request)
        return self._completion(document, request)

    async def stream_once(self, body: bytes, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        """One try of `stream_completion`.

        The body tells whether it is a stream, whatever its content type says. It ends with `[DONE]`, or with the
        connection: neither a finish reason nor a usage nor a pause ends it before.
        """
        url, headers = self._url(request, stream=True), self._headers_for(request, self._stream_headers)
        with _BrokenOff(request.report) as broken_off:
            async with self._client.stream_json(url, body, headers) as stream:
                part = await self._first_part(stream)
                broken_off.reader = reader = self._reader(request)
                if not is_events(part, stream.headers):
                    # Some upstreams never stream.
                    whole = part + (await stream.whole()).body
                    for document in self._good(HttpReply(stream.status, stream.headers, whole)):
                        for delta in reader.feed(document):
                            yield delta
                else:
                    events = events_from(self.name, self._max_reply_bytes)
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
            raise self._failure(await stream.whole())
        part = await stream.next_part()
        return part if part.startswith(b"data:") else await self._beginning(stream, part)

    async def _beginning(self, stream: HttpStream, part: bytes) -> bytes:
        """So much of the answer as it takes to tell what it is, without the blanks before it."""
        begun, size = Beginning(), 0
        while part:
            size += len(part)
            if size > self._max_reply_bytes:
                raise UnexpectedReply(f"The answer from {self.name} is longer than {self._max_reply_bytes} bytes.")
            if begun.feed(part):
                break
            part = await stream.next_part()
        return begun.text

    async def _events_of(self, body: bytes, reader: Reader) -> list[Delta]:
        """The deltas of a stream that is there as a whole."""
        events = events_from(self.name, self._max_reply_bytes)
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

    async def _conclude(self, stream: HttpStream, reader: Reader) -> None:
        """Read the connection to its end after `[DONE]`, so that it can be used again."""
        if reader.complete:
            await stream.finish()
        elif not reader.may_end:
            raise self._broken_off()

    def _broken_off(self) -> UpstreamUnavailable:
        return UpstreamUnavailable(
            f"{self.name} broke off in the middle of its answer.", reason="connection closed within a reply"
        )

    def _deltas_in(self, part: bytes, events: Events, reader: Reader) -> Iterator[Delta | None]:
        """The deltas that a part of a stream completes, or its end, if the part is empty. See `_deltas`."""
        if not part:
            yield from self._deltas(events.decoder.finish(), reader)
        elif len(part) <= PIECE_BYTES:
            yield from self._deltas(events.decoder.feed(part), reader)
            events.silence.note(len(part), reader.size)
        else:
            for start in range(0, len(part), PIECE_BYTES):
                piece = part[start : start + PIECE_BYTES]
                yield from self._deltas(events.decoder.feed(piece), reader)
                events.silence.note(len(piece), reader.size)
                yield None

    def _deltas(self, events: Sequence[bytes], reader: Reader) -> Iterator[Delta | None]:
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
        fault = self.fault_in(document)
        if fault is not None:
            raise fault_error(fault, self._upstream)
        return document

    def _good(self, reply: HttpReply) -> Sequence[Json]:
        """The documents of an answer that isn't a stream: one, or a list of those that a stream would have had."""
        document = read_json_object(reply.body)
        rows = [document] if document is not None else read_json_list(reply.body) or []
        documents = [row for row in rows if isinstance(row, dict)]
        if reply.status != 200 or not any(map(self._is_answer, documents)):
            raise self._failure(reply)
        for row in documents:
            fault = self.fault_in(row)
            if fault is not None:
                raise fault_error(fault, self._upstream, headers=reply.headers, api_name=self.api_name)
        return documents

    def _failure(self, reply: HttpReply, wanted: str = "a completion") -> GatewayError:
        return failure(reply, self._upstream, self.fault_in, self.api_name, wanted)

    async def _listed_models(self) -> object:
        if self._accounts is None:
            return await self.fetch_models()
        return await self._accounts.run(lambda sender: sender.fetch_models())

    async def fetch_models(self) -> object:
        """One try to read the list of models; the document as it came."""
        try:
            reply = await self._client.get(self._models_url, self._headers)
        except HttpError as error:
            raise translated(error) from error
        document = _any_json(reply.body)
        if reply.status != HTTPStatus.OK or document is None:
            raise self._failure(reply, "a list of models")
        return document


def _any_json(body: bytes) -> object:
    """An object or a list; None if it is neither."""
    document = read_json_object(body)
    return read_json_list(body) if document is None else document


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
        self.reader: Reader | None = None

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


async def _next_part(stream: HttpStream, reader: Reader) -> bytes:
    """The next bytes. Where the answer is over, a lost connection is as good as its end."""
    try:
        return await stream.next_part()
    except ConnectionLost:
        if not reader.finished:
            raise
        return b""
