"""Upstreams with Anthropic's Messages API, the vendor's own or another's."""

from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar

from msgspec.structs import replace

from app.domain.chat import Completion
from app.providers.anthropic.blocks import well_formed
from app.providers.anthropic.failure import anthropic_fault
from app.providers.anthropic.request import message_body, one_word_body
from app.providers.anthropic.stream import MessageReader
from app.providers.api_upstream.provider import ApiProvider
from app.providers.api_upstream.reply import Json, Reader
from app.providers.api_upstream.upstream import Upstream
from app.providers.base import CompletionRequest

# The form in which this package writes requests and reads answers.
_VERSION = "2023-06-01"
_BETAS = "anthropic-beta"


class AnthropicProvider(ApiProvider):
    """One upstream with a Messages API."""

    kind = "anthropic"
    api_name = "Messages API"
    fault_in: ClassVar = staticmethod(anthropic_fault)

    def _own_headers(self, upstream: Upstream) -> Mapping[str, str]:
        key = {"x-api-key": upstream.key} if upstream.key else {}
        given = {name.lower() for name in upstream.headers}
        return key if "anthropic-version" in given else {"anthropic-version": _VERSION, **key}

    def _url(self, request: CompletionRequest, *, stream: bool) -> str:  # noqa: ARG002 - all go to the same
        return self._messages_url

    def _body(self, request: CompletionRequest, *, stream: bool) -> bytes:
        return message_body(request, stream=stream)

    def _one_word(self, model: str) -> tuple[str, bytes]:
        return self._messages_url, one_word_body(model)

    def _headers_for(self, request: CompletionRequest, headers: Mapping[str, str]) -> Mapping[str, str]:
        """The client's own version and betas where its request goes on as it came: they say how to read it."""
        if request.native is None or not request.native.headers:
            return headers
        own = {name.lower(): value for name, value in headers.items()}
        given = dict(request.native.headers)
        if _BETAS in own and _BETAS in given:
            given[_BETAS] = f"{own[_BETAS]},{given[_BETAS]}"
        return {**own, **given}

    def _reader(self, request: CompletionRequest) -> Reader:
        return MessageReader(self.name, self._max_reply_bytes, native=request.native is not None)

    def _completion(self, document: Json, request: CompletionRequest) -> Completion:
        document = well_formed(document)
        completion = super()._completion(document, request)
        return completion if request.native is None else replace(completion, native=document)

    def _is_answer(self, document: Json) -> bool:
        return isinstance(document.get("content"), list)

    @property
    def _models_url(self) -> str:
        return f"{self._upstream.base_url}/models?limit=1000"

    @cached_property
    def _messages_url(self) -> str:
        return f"{self._upstream.base_url}/messages"
