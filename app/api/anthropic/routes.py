"""`/v1/messages`, and `/v1/models` for Anthropic's clients."""

from datetime import UTC, datetime
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from app.api.anthropic.answer import message_object
from app.api.anthropic.convert import (
    count_tokens,
    ignored_options,
    parse_request,
    shows_reasoning,
    to_call,
    unserved,
)
from app.api.anthropic.errors import ANTHROPIC_ERRORS
from app.api.anthropic.models import model_info, model_page
from app.api.anthropic.schemas import (
    AnswerMessage,
    AnthropicErrorEnvelope,
    CountTokensRequest,
    MessagesRequest,
    ModelInfo,
    ModelPage,
    TokenCount,
)
from app.api.anthropic.sse import MessageEncoder
from app.api.bodies import read_body
from app.api.dialects import Dialect, Parts
from app.api.disconnect import cancel_on_disconnect
from app.api.docs import STREAM_DOC
from app.api.encoding import json_bytes
from app.api.headers import opening_headers, session_hints
from app.api.ids import unique_id
from app.api.reply import JsonReply
from app.api.streaming import EventStream
from app.chat.events import Opening
from app.domain.tokens import estimate

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": AnthropicErrorEnvelope, "description": description}
    for status, description in {
        400: "`invalid_request_error`: the request is wrong (the message says where) or too long",
        401: "`authentication_error`: the API key is missing or unknown",
        404: "`not_found_error`: there is no such model, or with `X-Session-Strict` no such session",
        409: "`invalid_request_error`: another request of this session is running",
        413: "`request_too_large`: the body is too large",
        429: "`rate_limit_error`: the upstream asks for fewer requests",
        500: "`api_error`: a fault of the gateway",
        502: "`api_error`: the upstream answered nonsense",
        503: "`overloaded_error`: the upstream can't be used at the moment",
        504: "`timeout_error`: the upstream didn't answer in time",
    }.items()
}
_COUNT_ERRORS: dict[int | str, dict[str, Any]] = {status: _ERRORS[status] for status in (400, 401, 404, 413, 500, 503)}
_HEADER_DOC = [
    {"name": name, "in": "header", "required": False, "schema": {"type": "string"}, "description": description}
    for name, description in {
        "anthropic-version": "accepted, as is `anthropic-beta`; they change nothing",
        "X-Session-Id": "the session to remember this turn in; nothing else opens one here",
        "X-Session-Reset": "`true` begins the session anew",
        "X-Session-Strict": "`true` answers 404 instead of beginning an expired session anew",
        "Idempotency-Key": "the same for the same turn sent again within a minute, which then gets the same answer",
        "X-Provider": "the only provider that may answer",
        "X-Request-ID": "8 to 128 of A-Z a-z 0-9 . _ -; comes back in the response and in the logs",
    }.items()
]


class _AnthropicRoute(APIRoute):
    """Is there for Anthropic's clients only: at addresses that dialects share, others find the routes of theirs."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As always, for the right clients."""
        if scope.get("error_form") is not ANTHROPIC_ERRORS:
            return Match.NONE, {}
        return super().matches(scope)


def messages_router(parts: Parts) -> APIRouter:
    """The routes of Anthropic's dialect."""
    router = APIRouter(prefix="/v1", route_class=_AnthropicRoute)
    started = datetime.now(UTC)

    @router.post(
        "/messages",
        summary="Answer a conversation, in Anthropic's dialect",
        response_model=None,
        responses={200: {"model": AnswerMessage, **STREAM_DOC}, **_ERRORS},
        openapi_extra=_request_doc(MessagesRequest.__name__),
        tags=["messages"],
    )
    async def create_message(request: Request) -> Response:
        """The answer of a model, whole or as server-sent events."""
        wire = parse_request(MessagesRequest, await read_body(request.receive))
        # Claude Code sends a constant `metadata.user_id` with every conversation, each with its whole history, and
        # asks for titles and summaries on the side: only the header opens a session.
        hints = session_hints(request.scope["headers_by_name"], None)
        call = to_call(wire, hints, max_messages=parts.max_messages)
        headers_of = partial(opening_headers, ignored=ignored_options(wire), unserved=unserved(wire))
        show_reasoning = shows_reasoning(wire)
        caller = request.scope["caller"]
        if wire.stream:
            return EventStream(
                parts.service.stream(call, caller),
                encoder=partial(_encoder, show_reasoning=show_reasoning, request_id=request.scope["request_id"]),
                headers_of=headers_of,
                policy=parts.stream_policy,
                metrics=parts.metrics,
            )
        async with cancel_on_disconnect(request.receive):
            answer = await parts.service.complete(call, caller)
        message = message_object(answer, message_id=_new_id(), show_reasoning=show_reasoning)
        return JsonReply(json_bytes(message), headers_of(answer.opening))

    @router.post(
        "/messages/count_tokens",
        summary="How long a conversation is",
        response_model=TokenCount,
        responses=_COUNT_ERRORS,
        openapi_extra=_request_doc(CountTokensRequest.__name__),
        tags=["messages"],
    )
    async def count_message_tokens(request: Request) -> Response:
        """Tokens of all that is sent, estimated; a model that takes less may get less of it."""
        wire = parse_request(CountTokensRequest, await read_body(request.receive))
        parts.registry.resolve(wire.model)
        count = TokenCount(input_tokens=count_tokens(wire, max_messages=parts.max_messages))
        return JsonReply(json_bytes(count.model_dump()))

    @router.head("/messages", include_in_schema=False)
    async def probe() -> Response:
        """For clients that look whether there is anybody."""
        return Response()

    # Described as OpenAI's, whose addresses these are too.
    @router.get("/models", include_in_schema=False)
    async def list_models(limit: str = "20", after_id: str = "", before_id: str = "") -> ModelPage:
        infos = [model_info(name, target.spec.prompt_limit, started) for name, target in parts.registry.model_ids()]
        return model_page(infos, limit=limit, after_id=after_id, before_id=before_id)

    @router.get("/models/{model:path}", include_in_schema=False)
    async def get_model(model: str) -> ModelInfo:
        return model_info(model, parts.registry.resolve(model)[0].spec.prompt_limit, started)

    return router


ANTHROPIC = Dialect(
    router=messages_router,
    models=(MessagesRequest, CountTokensRequest, AnthropicErrorEnvelope),
    error_form=ANTHROPIC_ERRORS,
)


def _encoder(opening: Opening, *, show_reasoning: bool, request_id: str) -> MessageEncoder:
    prompt = opening.prompt
    return MessageEncoder(
        message_id=_new_id(),
        model=opening.model,
        input_tokens=prompt.size if prompt.limit.unit == "tokens" else estimate(prompt.text),
        show_reasoning=show_reasoning,
        request_id=request_id,
    )


def _request_doc(model: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{model}"}}}
    return {"requestBody": {"required": True, "content": content}, "parameters": _HEADER_DOC}


def _new_id() -> str:
    return unique_id("msg_", 12)
