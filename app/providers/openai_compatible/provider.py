"""Upstreams that speak OpenAI chat completions."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import cached_property, partial
from http import HTTPStatus

from app.domain.chat import Completion
from app.domain.relay import Payload, RelayHead
from app.providers.api_upstream.provider import PIECE_BYTES, ApiProvider
from app.providers.api_upstream.reply import Json, Reader
from app.providers.api_upstream.upstream import Upstream
from app.providers.base import CompletionRequest, RelayRequest
from app.providers.http import HttpError, HttpReply, HttpStream, Upload
from app.providers.openai_compatible.relay import (
    SHORT,
    UsageFinder,
    has_error,
    head_of,
    is_json,
    is_page,
    relay_failure,
)
from app.providers.openai_compatible.reply import read_completion, reader_for
from app.providers.openai_compatible.request import chat_body, one_word_body
from app.providers.upstream_errors import translated


class OpenAICompatibleProvider(ApiProvider):
    """One upstream with an OpenAI-compatible API."""

    kind = "openai"
    api_name = "chat completions API"
    relays = True

    def _own_headers(self, upstream: Upstream) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {upstream.key}"} if upstream.key else {}

    def _url(self, request: CompletionRequest, *, stream: bool) -> str:  # noqa: ARG002 - all go to the same
        return self._completions_url

    def _body(self, request: CompletionRequest, *, stream: bool) -> bytes:
        return chat_body(request, self._upstream.quirks, stream=stream)

    def _one_word(self, model: str) -> tuple[str, bytes]:
        return self._completions_url, one_word_body(model, self._upstream.quirks)

    def _reader(self, request: CompletionRequest) -> Reader:
        return reader_for(self.name, self._max_reply_bytes, request.n)

    def _is_answer(self, document: Json) -> bool:
        return bool(document.get("choices"))

    def _completion(self, document: Json, request: CompletionRequest) -> Completion:
        return read_completion(document, self.name, self._max_reply_bytes, request.n)

    @cached_property
    def _completions_url(self) -> str:
        return f"{self._upstream.base_url}/chat/completions"

    @cached_property
    def _relay_headers(self) -> Mapping[str, str]:
        # As it comes, so that it can be passed on with its length.
        return {"Accept-Encoding": "identity", **self._headers}

    def relay(self, request: RelayRequest) -> AsyncGenerator[RelayHead | bytes, None]:
        """The upstream's answer to a request that is passed on, part by part."""
        attempt: Callable[[], AsyncGenerator[RelayHead | bytes, None]] = partial(self.relay_once, request)
        if self._accounts is not None:
            attempt = partial(
                self._accounts.stream,
                lambda sender: sender.relay_once(request),
                model=request.model.upstream_id,
                # An upload that is still on its way from the client can't be sent again.
                once=request.payload.pieces is not None and not request.retries,
            )
        return self._guard.stream(
            attempt,
            caller_id=request.caller_id,
            model=request.model.upstream_id,
            deadline=request.deadline,
            retries=request.retries,
            on_wait=request.on_wait,
        )

    async def relay_once(self, request: RelayRequest) -> AsyncGenerator[RelayHead | bytes, None]:
        """One try of `relay`."""
        try:
            async with self._sent(request.path, request.payload) as stream:
                head = head_of(stream)
                if stream.status != HTTPStatus.OK or is_page(head):
                    raise relay_failure(await stream.whole(), self._upstream, request)
                stream.hold_little(PIECE_BYTES)
                part = await _looked_into(stream) if is_json(head) else await stream.next_part()
                if is_json(head) and len(part) <= SHORT and has_error(part):
                    raise relay_failure(HttpReply(stream.status, stream.headers, part), self._upstream, request)
                yield head
                finder = UsageFinder(head, request.unit)
                try:
                    while part:
                        finder.feed(part)
                        yield part
                        part = await stream.next_part()
                finally:
                    # Who has got an image may leave before the end of the answer.
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


async def _looked_into(stream: HttpStream) -> bytes:
    """So much of an answer as tells whether it is an error: all of a short one."""
    begun = b""
    while len(begun) <= SHORT and (part := await stream.next_part()):
        begun += part
    return begun
