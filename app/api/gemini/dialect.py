"""Gemini's `generateContent`, whole and streamed, and the list of models for Google's clients."""

from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.api.dialects import Dialect, DialectServices
from app.api.gemini.errors import GEMINI_ERRORS, google_fault
from app.api.gemini.models import model_info, model_page
from app.api.gemini.read import count_tokens, read
from app.api.gemini.schemas import (
    GeminiCountRequest,
    GeminiErrorEnvelope,
    GeminiModel,
    GeminiModelPage,
    GeminiParts,
    GeminiTokenCount,
    GenerateContentRequest,
    GenerateContentResponse,
)
from app.api.openapi import REQUEST_HEADERS, example, path_parameter, request_doc
from app.api.request import RequestContext, caller_of, read_body
from app.api.wire.addresses import GENERATE, GENERATE_STREAM, GOOGLE
from app.api.wire.body import parse_body
from app.domain.errors import UnknownUrl

NAME = "gemini"
_TAG = "gemini"
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": GeminiErrorEnvelope, "description": description}
    for status, description in {
        400: "`INVALID_ARGUMENT`: the request is wrong (`details` say where) or too long",
        401: "`UNAUTHENTICATED`: the API key is missing or unknown",
        404: "`NOT_FOUND`: there is no such model, or with `X-Session-Strict` no such session",
        409: "`ABORTED`: another request of this session is running",
        413: "`INVALID_ARGUMENT`: the body is too large",
        415: "`INVALID_ARGUMENT`: the body is compressed in a way that can't be read",
        429: "`RESOURCE_EXHAUSTED`: a limit of the key, its project, the gateway or the upstream is reached",
        500: "`INTERNAL`: a fault of the gateway",
        502: "`INTERNAL`: the upstream's answer makes no sense",
        503: "`UNAVAILABLE`: the upstream can't be used at the moment",
        504: "`DEADLINE_EXCEEDED`: the upstream didn't answer in time",
    }.items()
}
_LOOKED_UP: dict[int | str, dict[str, Any]] = {status: _ERRORS[status] for status in (400, 401, 404)}
_CONTENTS = [{"role": "user", "parts": [{"text": "Hello!"}]}]
_EXAMPLES = {
    "A message": {"contents": _CONTENTS},
    "With an instruction": {"systemInstruction": {"parts": [{"text": "Be brief."}]}, "contents": _CONTENTS},
}
_MODEL = path_parameter("model", "kimi", "a model of `GET /v1beta/models`, without `models/`")
_ALT = {
    "name": "alt",
    "in": "query",
    "required": False,
    "schema": {"type": "string", "enum": ["sse", "json"]},
    "description": "`sse` for server-sent events, else a JSON array that grows",
}
_METHODS = ("generateContent", "streamGenerateContent", "countTokens")


def _routes(services: DialectServices) -> APIRouter:
    router = APIRouter(prefix=f"{GOOGLE}models", tags=[_TAG])
    registry = services.registry

    @router.post(
        "/{model}:countTokens",
        summary="Count a conversation's tokens",
        response_model=GeminiTokenCount,
        responses=_ERRORS,
        openapi_extra=request_doc(GeminiCountRequest, {"A message": {"contents": _CONTENTS}}, {}, [_MODEL]),
    )
    async def count_content_tokens(request: Request) -> GeminiTokenCount:
        """The tokens of everything that is sent, estimated. A model with less room may get less of it."""
        context: RequestContext = request.scope["context"]
        wire = parse_body(GeminiCountRequest, await read_body(request.receive), fault=google_fault)
        model, caller = context.asked.model, context.caller
        registry.resolve(model, caller=caller)
        is_native = registry.has_kind("gemini", model, None, caller)
        return GeminiTokenCount(totalTokens=count_tokens(wire, max_messages=services.max_messages, is_native=is_native))

    @router.get(
        "",
        summary="List the models, for Google's clients",
        response_model=GeminiModelPage,
        response_model_exclude_none=True,
        responses={status: _ERRORS[status] for status in (400, 401)},
    )
    async def list_models(request: Request, pageSize: str = "", pageToken: str = "") -> GeminiModelPage:  # noqa: N803
        """Every model once, and the operator's own names."""
        names = registry.model_ids(caller=caller_of(request))
        return model_page([model_info(name, target) for name, target in names], size=pageSize, token=pageToken)

    @router.get(
        "/{model:path}",
        summary="Look up a model, for Google's clients",
        response_model=GeminiModel,
        response_model_exclude_none=True,
        responses=_LOOKED_UP,
    )
    async def get_model(request: Request, model: Annotated[str, example("kimi")]) -> GeminiModel:
        """One model, by an id that may contain slashes."""
        if model.rpartition(":")[2] in _METHODS:
            raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED)
        return model_info(model, registry.resolve(model, caller=caller_of(request))[0])

    @router.post("/{model}:{method}", include_in_schema=False)
    async def refuse_method(method: str) -> Response:
        told = f"Models here have no method {method!r}, but these: {', '.join(_METHODS)}."
        raise UnknownUrl(f"{told} Embeddings are made at /v1/embeddings." if "embed" in method.lower() else told)

    return router


def _dialect(path: str, summary: str, *, stream: bool) -> Dialect:
    return Dialect(
        name=NAME,
        path=path,
        summary=summary,
        tag=_TAG,
        request=GenerateContentRequest,
        answer=GeminiParts if stream else GenerateContentResponse,
        examples=_EXAMPLES,
        responses=_ERRORS,
        headers=REQUEST_HEADERS,
        read=partial(read, stream=stream),
        routes=(lambda _: APIRouter()) if stream else _routes,
        errors=GEMINI_ERRORS,
        wire_types=(GeminiCountRequest,),
        parameters=(_MODEL, _ALT) if stream else (_MODEL,),
    )


CONTENT = _dialect(GENERATE, "Answer a conversation, in Gemini's dialect", stream=False)
STREAMED_CONTENT = _dialect(GENERATE_STREAM, "Answer a conversation part by part, in Gemini's dialect", stream=True)
