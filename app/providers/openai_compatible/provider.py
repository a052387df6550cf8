"""Upstreams that speak OpenAI chat completions."""

from collections.abc import Mapping
from functools import cached_property

from app.domain.chat import Completion
from app.providers.api_upstream.provider import ApiProvider
from app.providers.api_upstream.reply import Json, Reader
from app.providers.api_upstream.upstream import Upstream
from app.providers.base import CompletionRequest
from app.providers.openai_compatible.reply import read_completion, reader_for
from app.providers.openai_compatible.request import chat_body, one_word_body


class OpenAICompatibleProvider(ApiProvider):
    """One upstream with an OpenAI-compatible API."""

    kind = "openai"
    api_name = "chat completions API"

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
