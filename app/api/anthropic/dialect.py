"""Anthropic's messages, and `/v1/models` for Anthropic's clients."""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from app.api.anthropic.errors import ANTHROPIC_ERRORS, anthropic_fault
from app.api.anthropic.models import model_info, model_page
from app.api.anthropic.read import count_tokens, read
from app.api.anthropic.schemas import (
    AnswerMessage,
    AnthropicErrorEnvelope,
    CountTokensRequest,
    MessagesRequest,
    ModelInfo,
    ModelPage,
    TokenCount,
)
from app.api.dialects import Dialect, DialectServices
from app.api.openapi import REQUEST_HEADERS, request_doc
from app.api.request import caller_of, read_body
from app.api.wire.body import parse_body

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": AnthropicErrorEnvelope, "description": description}
    for status, description in {
        400: "`invalid_request_error`: the request is wrong (the message says where) or too long",
        401: "`authentication_error`: the API key is missing or unknown",
        404: "`not_found_error`: there is no such model, or with `X-Session-Strict` no such session",
        409: "`invalid_request_error`: another request of this session is running",
        413: "`request_too_large`: the body is too large",
        429: "`rate_limit_error`: a limit of the key, its project, the gateway or the upstream is reached",
        500: "`api_error`: a fault of the gateway",
        502: "`api_error`: the upstream's answer makes no sense",
        503: "`overloaded_error`: the upstream can't be used at the moment",
        504: "`timeout_error`: the upstream didn't answer in time",
    }.items()
}
_COUNT_ERRORS: dict[int | str, dict[str, Any]] = {status: _ERRORS[status] for status in (400, 401, 404, 413, 500, 503)}
_HEADERS = {
    "anthropic-version": "for upstreams of the kind `anthropic`, as is `anthropic-beta`; to others both mean nothing",
    **REQUEST_HEADERS,
    "X-Session-Id": "the session to remember this turn in; nothing else opens one here",
}


_MESSAGE = {"model": "kimi", "messages": [{"role": "user", "content": "Hello!"}]}
_EXAMPLES = {
    "A message": {**_MESSAGE, "max_tokens": 500},
    "A streamed answer": {**_MESSAGE, "max_tokens": 500, "stream": True},
}


class _AnthropicRoute(APIRoute):
    """Matches requests of Anthropic's clients only: at shared addresses, others find the routes of their dialect."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As always, for the right clients."""
        if scope["type"] != "http" or scope["context"].error_form is not ANTHROPIC_ERRORS:
            return Match.NONE, {}
        return super().matches(scope)


def _routes(services: DialectServices) -> APIRouter:
    router = APIRouter(prefix="/v1", route_class=_AnthropicRoute)
    registry, started = services.registry, datetime.now(UTC)

    @router.post(
        "/messages/count_tokens",
        summary="Count a conversation's tokens",
        response_model=TokenCount,
        responses=_COUNT_ERRORS,
        openapi_extra=request_doc(CountTokensRequest, {"A message": _MESSAGE}, _HEADERS),
        tags=["messages"],
    )
    async def count_message_tokens(request: Request) -> TokenCount:
        """The tokens of everything that is sent, estimated. A model with less room may get less of it."""
        wire = parse_body(CountTokensRequest, await read_body(request.receive), fault=anthropic_fault)
        caller = caller_of(request)
        registry.resolve(wire.model, caller=caller)
        is_native = registry.has_kind("anthropic", wire.model, None, caller)
        return TokenCount(input_tokens=count_tokens(wire, max_messages=services.max_messages, is_native=is_native))

    @router.head("/messages", include_in_schema=False)
    async def probe() -> Response:
        """For clients that look whether anybody is there."""
        return Response()

    # Described as OpenAI's, whose addresses these are too.
    @router.get("/models", include_in_schema=False)
    async def list_models(request: Request, limit: str = "20", after_id: str = "", before_id: str = "") -> ModelPage:
        names = registry.model_ids(caller=caller_of(request))
        infos = [model_info(name, target.spec.told_limit, started) for name, target in names]
        return model_page(infos, limit=limit, after_id=after_id, before_id=before_id)

    @router.get("/models/{model:path}", include_in_schema=False)
    async def get_model(request: Request, model: str) -> ModelInfo:
        return model_info(model, registry.resolve(model, caller=caller_of(request))[0].spec.told_limit, started)

    return router


MESSAGES = Dialect(
    name="anthropic",
    path="/v1/messages",
    summary="Answer a conversation, in Anthropic's dialect",
    tag="messages",
    request=MessagesRequest,
    answer=AnswerMessage,
    examples=_EXAMPLES,
    responses=_ERRORS,
    headers=_HEADERS,
    read=read,
    routes=_routes,
    errors=ANTHROPIC_ERRORS,
    wire_types=(CountTokensRequest,),
)
