"""The flow of one call to an upstream that speaks OpenAI chat completions."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Iterable, Iterator, Sequence

from app.domain.chat import Completion, Delta
from app.domain.errors import UnexpectedReply, UpstreamUnavailable
from app.domain.json import read_json_object
from app.domain.spans import Trace, no_trace
from app.providers.base import BaseProvider, CompletionRequest, ModelSpec, ProviderStatus
from app.providers.http import HttpClient, HttpError, HttpReply, HttpStream
from app.providers.http.exceptions import ConnectionLost
from app.providers.openai_compatible.failure import failure, fault_error, fault_in
from app.providers.openai_compatible.reply import Json, ReplyReader, read_completion
from app.providers.openai_compatible.request import chat_body, one_word_body
from app.providers.openai_compatible.sse_decoder import DONE, SseDecoder
from app.providers.openai_compatible.upstream import Upstream
from app.providers.openai_compatible.upstream_models import UpstreamModels
from app.providers.resilience.guard import Guard
from app.providers.upstream_errors import translated

_LONGEST_EVENT = 1024 * 1024
# An event has a few characters of the answer in some hundred bytes of JSON.
_STREAM_OVERHEAD = 64
# How long to wait for the usage and the end of the stream after the end of the answer.
_AFTERMATH_SECONDS = 2.0
_LONGEST_ID = 256


class OpenAICompatibleProvider(BaseProvider):
    """One upstream with an OpenAI-compatible API.

    Args:
        upstream: Its data.
        client: Sends the requests; belongs to this provider.
        guard: Bounds and retries them.
        max_reply_bytes: Longer answers are refused.
        trace: Opens a span around each request.
    """

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
            lambda: self._complete(body),
            caller_id=request.caller_id,
            model=request.model.upstream_id,
            deadline=request.deadline,
            retries=request.retries,
        )

    def stream_completion(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        """The upstream's stream, delta by delta."""
        body = chat_body(request, self._upstream.quirks, stream=True)
        return self._guard.stream(
            lambda: self._stream(body),
            caller_id=request.caller_id,
            model=request.model.upstream_id,
            deadline=request.deadline,
            retries=request.retries,
        )

    async def _check(self) -> None:
        try:
            check_url = f"{self._upstream.base_url}{self._upstream.quirks.check_path}"
            reply = await self._client.get(check_url, self._headers)
            if reply.status in (404, 405, 501) and self.models:
                body = one_word_body(self.models[0].upstream_id, self._upstream.quirks)
                reply = await self._client.post_json(self._url, body, self._headers)
        except HttpError as error:
            raise translated(error) from error
        if reply.status != 200 or read_json_object(reply.body) is None:
            raise failure(reply, self._upstream)

    async def _complete(self, body: bytes) -> Completion:
        with self._trace("upstream"):
            try:
                reply = await self._client.post_json(self._url, body, self._headers)
            except HttpError as error:
                raise translated(error) from error
        return read_completion(self._good(reply), self.name, self._max_reply_bytes)

    async def _stream(self, body: bytes) -> AsyncGenerator[Delta, None]:
        reader = ReplyReader(self.name, self._max_reply_bytes)
        try:
            async with self._client.stream_json(self._url, body, self._stream_headers) as stream:
                if stream.status != 200 or _is_whole(stream):
                    # Some upstreams don't stream, whatever they are asked.
                    for delta in reader.feed(self._good(await stream.whole())):
                        yield delta
                else:
                    decoder = self._decoder()
                    while not reader.complete and (part := await _next_part(stream, reader)):
                        for delta in self._deltas(decoder.feed(part), reader):
                            yield delta
                    for delta in self._deltas(() if reader.complete else decoder.finish(), reader):
                        yield delta
                    if reader.complete:
                        await stream.finish()
                    elif not reader.finished:
                        raise UpstreamUnavailable(f"{self.name} broke off in the middle of its answer.")
                for delta in reader.end():
                    yield delta
        except HttpError as error:
            raise translated(error) from error

    def _decoder(self) -> SseDecoder:
        return SseDecoder(
            longest_event=max(_LONGEST_EVENT, self._max_reply_bytes),
            longest_stream=self._max_reply_bytes * _STREAM_OVERHEAD,
        )

    def _deltas(self, events: Sequence[bytes], reader: ReplyReader) -> Iterator[Delta]:
        """The deltas of a stream's events.

        Raises:
            GatewayError: An event is an error.
        """
        for data in events:
            if data.strip() == DONE:
                reader.complete = True
                return
            for document in self._documents(data):
                yield from reader.feed(document)

    def _documents(self, data: bytes) -> Iterable[Json]:
        document = read_json_object(data)
        if document is not None:
            return (self._faultless(document),)
        # Events without an empty line between them arrive as one event with several lines.
        return map(self._faultless, map(read_json_object, data.split(b"\n")))

    def _faultless(self, document: Json | None) -> Json:
        if document is None:
            raise UnexpectedReply(f"The stream from {self.name} contains something that isn't JSON.")
        fault = fault_in(document)
        if fault is not None:
            raise fault_error(fault, self._upstream)
        return document

    def _good(self, reply: HttpReply) -> Json:
        document = read_json_object(reply.body)
        if reply.status != 200 or document is None or not document.get("choices") or fault_in(document):
            raise failure(reply, self._upstream)
        return document

    async def _fetch_models(self) -> Json:
        try:
            reply = await self._client.get(f"{self._upstream.base_url}/models", self._headers)
        except HttpError as error:
            raise translated(error) from error
        document = read_json_object(reply.body)
        if reply.status != 200 or document is None:
            raise failure(reply, self._upstream)
        return document


def _is_whole(stream: HttpStream) -> bool:
    """Whether this is, by its content type, a whole answer or a web page instead of a stream."""
    kind = stream.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind in ("application/json", "text/html", "application/xhtml+xml", "application/problem+json")


def _next_part(stream: HttpStream, reader: ReplyReader) -> Awaitable[bytes]:
    """The next bytes. After the end of the answer, nothing is an error and the wait is short."""
    return _aftermath(stream) if reader.finished else stream.next_part()


async def _aftermath(stream: HttpStream) -> bytes:
    try:
        async with asyncio.timeout(_AFTERMATH_SECONDS):
            return await stream.next_part()
    except (TimeoutError, ConnectionLost):
        return b""
