"""Upstreams with Gemini's API."""

import re
from collections.abc import Mapping
from typing import ClassVar
from urllib.parse import quote

from msgspec.structs import replace

from app.domain.chat import Completion
from app.providers.api_upstream.provider import ApiProvider
from app.providers.api_upstream.reply import Json, Reader
from app.providers.api_upstream.upstream import Upstream
from app.providers.base import CompletionRequest
from app.providers.gemini.failure import gemini_fault
from app.providers.gemini.native import native_body
from app.providers.gemini.request import content_body, one_word_body
from app.providers.gemini.stream import ContentReader

_TUNED_MODEL = re.compile(r"tunedModels/[\w-]+", re.ASCII)


class GeminiProvider(ApiProvider):
    """One upstream with Gemini's API."""

    kind = "gemini"
    api_name = "Gemini API"
    fault_in: ClassVar = staticmethod(gemini_fault)

    def _own_headers(self, upstream: Upstream) -> Mapping[str, str]:
        return {"x-goog-api-key": upstream.key} if upstream.key else {}

    def _url(self, request: CompletionRequest, *, stream: bool) -> str:
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return f"{self._model_url(request.model.upstream_id)}:{method}"

    def _body(self, request: CompletionRequest, *, stream: bool) -> bytes:  # noqa: ARG002 - the address says it
        return content_body(request) if request.native is None else native_body(request, request.native)

    def _one_word(self, model: str) -> tuple[str, bytes]:
        return f"{self._model_url(model)}:generateContent", one_word_body()

    def _reader(self, request: CompletionRequest) -> Reader:
        return ContentReader(self.name, self._max_reply_bytes, native=request.native is not None)

    def _completion(self, document: Json, request: CompletionRequest) -> Completion:
        completion = super()._completion(document, request)
        return completion if request.native is None else replace(completion, native=document)

    def _is_answer(self, document: Json) -> bool:
        return bool(document.get("candidates") or document.get("promptFeedback"))

    @property
    def _models_url(self) -> str:
        return f"{self._upstream.base_url}/models?pageSize=1000"

    def _model_url(self, model: str) -> str:
        if _TUNED_MODEL.fullmatch(model):
            return f"{self._upstream.base_url}/{model}"
        return f"{self._upstream.base_url}/models/{quote(model.removeprefix('models/'), safe='')}"

    async def fetch_models(self) -> object:
        """The models that answer chats, in the form that other lists have."""
        document = await super().fetch_models()
        rows = document.get("models") if isinstance(document, dict) else None
        return [
            {"id": str(row.get("name")).removeprefix("models/"), "context_length": row.get("inputTokenLimit")}
            for row in (rows if isinstance(rows, list) else ())
            if isinstance(row, dict) and _answers_chats(row)
        ]


def _answers_chats(row: Json) -> bool:
    methods = row.get("supportedGenerationMethods")
    return not isinstance(methods, list) or "generateContent" in methods
