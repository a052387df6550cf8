"""`/v1/chat/completions` and `/v1/models`."""

import secrets
import time
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.dialects import Dialect, Parts
from app.api.disconnect import cancel_on_disconnect
from app.api.encoding import json_bytes
from app.api.headers import opening_headers, session_hints
from app.api.openai.convert import ignored_params, parse_request, speaks_of_functions, to_call
from app.api.openai.schemas import ChatCompletion, ChatCompletionRequest, ErrorEnvelope, ModelList, ModelObject
from app.api.openai.sse import ChunkEncoder, finish_reason, usage_object
from app.api.streaming import EventStream
from app.chat.events import Answer, Opening
from app.domain.errors import ModelNotFound
from app.providers.registry import Target

_CHAT_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorEnvelope, "description": description}
    for status, description in {
        400: "The request is wrong (`param` says where) or too long (`context_length_exceeded`)",
        401: "The API key is missing or unknown",
        404: "`model_not_found`, or `session_not_found` with `X-Session-Strict`",
        409: "`session_busy`: another request of this session is running",
        413: "The body is too large",
        429: "The upstream asks for fewer requests",
        500: "A fault of the gateway",
        502: "The upstream answered nonsense",
        503: "The upstream can't be used at the moment",
        504: "The upstream didn't answer in time",
    }.items()
}
_STREAM_DOC = {"description": "The answer, or with `stream: true` its chunks", "content": {"text/event-stream": {}}}
_REQUEST_DOC = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{ChatCompletionRequest.__name__}"}}},
    },
    "parameters": [
        {"name": name, "in": "header", "required": False, "schema": {"type": "string"}, "description": description}
        for name, description in {
            "X-Session-Id": "the session to remember this turn in",
            "X-Session-Reset": "`true` begins the session anew",
            "X-Session-Strict": "`true` answers 404 instead of beginning an expired session anew",
            "Idempotency-Key": "the same for the same turn sent again within a minute, which then gets the same answer",
            "X-Provider": "the only provider that may answer",
            "X-Request-ID": "8 to 128 of A-Z a-z 0-9 . _ -; comes back in the response and in the logs",
        }.items()
    ],
}


def chat_router(parts: Parts) -> APIRouter:
    """The routes of the OpenAI dialect."""
    router = APIRouter(prefix="/v1")
    started = int(time.time())

    @router.post(
        "/chat/completions",
        summary="Answer a conversation",
        response_model=None,
        responses={200: {"model": ChatCompletion, **_STREAM_DOC}, **_CHAT_ERRORS},
        openapi_extra=_REQUEST_DOC,
        tags=["chat"],
    )
    async def create_chat_completion(request: Request) -> Response:
        """The answer of a model, whole or as server-sent events."""
        wire = parse_request(await request.body())
        hints = session_hints(request.headers, wire.user if parts.session_from_user else None)
        call = to_call(wire, hints, default_model=parts.registry.default_model, max_messages=parts.max_messages)
        headers_of = partial(opening_headers, ignored=ignored_params(wire))
        legacy = speaks_of_functions(wire)
        caller = request.scope["caller"]
        if wire.stream:
            include_usage = bool(wire.stream_options and wire.stream_options.include_usage)
            return EventStream(
                parts.service.stream(call, caller),
                encoder=partial(_encoder, include_usage=include_usage, legacy=legacy),
                headers_of=headers_of,
                policy=parts.stream_policy,
                metrics=parts.metrics,
            )
        async with cancel_on_disconnect(request.receive):
            answer = await parts.service.complete(call, caller)
        return Response(
            _completion(answer, legacy=legacy), headers=headers_of(answer.opening), media_type="application/json"
        )

    @router.get("/models", summary="List the models", response_model=ModelList, tags=["models"])
    async def list_models() -> ModelList:
        """All models that can be asked, aliases included."""
        return ModelList(data=[_model_object(name, target, started) for name, target in parts.registry.model_ids()])

    @router.get(
        "/models/{model:path}",
        summary="Look up a model",
        response_model=ModelObject,
        responses={404: {"model": ErrorEnvelope, "description": "`model_not_found`"}},
        tags=["models"],
    )
    async def get_model(model: str) -> ModelObject:
        """One model, by an id that may contain slashes."""
        if not model:
            raise ModelNotFound("The model '' does not exist.", param="model")
        return _model_object(model, parts.registry.resolve(model)[0], started)

    return router


OPENAI = Dialect(router=chat_router, models=(ChatCompletionRequest, ErrorEnvelope))


def _encoder(opening: Opening, *, include_usage: bool, legacy: bool) -> ChunkEncoder:
    return ChunkEncoder(
        completion_id=_new_id(),
        created=int(time.time()),
        model=opening.model,
        include_usage=include_usage,
        legacy=legacy,
    )


def _completion(answer: Answer, *, legacy: bool) -> bytes:
    choice = {
        "index": 0,
        "message": _message(answer, legacy=legacy),
        "logprobs": None,
        "finish_reason": finish_reason(answer.ending, legacy=legacy),
    }
    document = {
        "id": _new_id(),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": answer.opening.model,
        "choices": [choice],
        "usage": usage_object(answer.ending.usage),
    }
    return json_bytes(document)


def _message(answer: Answer, *, legacy: bool) -> dict[str, object]:
    content = answer.text if answer.text or not answer.tool_calls else None
    message: dict[str, object] = {"role": "assistant", "content": content, "refusal": None}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    functions = [{"name": call.name, "arguments": call.arguments} for call in answer.tool_calls]
    if legacy and functions:
        message["function_call"] = functions[0]
    elif functions:
        calls = zip(answer.tool_calls, functions, strict=True)
        message["tool_calls"] = [{"id": call.id, "type": "function", "function": function} for call, function in calls]
    return message


def _model_object(name: str, target: Target, created: int) -> ModelObject:
    limit = target.spec.prompt_limit
    return ModelObject(
        id=name,
        created=created,
        owned_by=target.spec.owned_by,
        context_length=limit.size,
        context_unit=limit.unit,
        provider=target.provider.name,
        abilities=sorted(target.spec.abilities),
    )


def _new_id() -> str:
    return f"chatcmpl-{secrets.token_hex(12)}"
