"""`/v1/chat/completions` and `/v1/models`."""

import time
from functools import partial

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.bodies import read_body
from app.api.dialects import Dialect, Parts
from app.api.disconnect import cancel_on_disconnect
from app.api.docs import ANSWER_ERRORS, STREAM_DOC, ErrorEnvelope, request_doc
from app.api.encoding import json_bytes
from app.api.headers import opening_headers, session_hints
from app.api.ids import unique_id
from app.api.openai.convert import ignored_params, parse_request, speaks_of_functions, to_call
from app.api.openai.schemas import ChatCompletion, ChatCompletionRequest, ModelList, ModelObject
from app.api.openai.sse import ChunkEncoder, finish_reason
from app.api.reply import JsonReply
from app.api.streaming import EventStream
from app.api.wire import usage_object
from app.chat.events import Answer, Opening
from app.domain.errors import ModelNotFound
from app.providers.registry import Target


def chat_router(parts: Parts) -> APIRouter:
    """The routes of the OpenAI dialect."""
    router = APIRouter(prefix="/v1")
    started = int(time.time())

    @router.post(
        "/chat/completions",
        summary="Answer a conversation",
        response_model=None,
        responses={200: {"model": ChatCompletion, **STREAM_DOC}, **ANSWER_ERRORS},
        openapi_extra=request_doc(ChatCompletionRequest),
        tags=["chat"],
    )
    async def create_chat_completion(request: Request) -> Response:
        """The answer of a model, whole or as server-sent events."""
        wire = parse_request(await read_body(request.receive))
        hints = session_hints(request.scope["headers_by_name"], wire.user if parts.session_from_user else None)
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
        return JsonReply(_completion(answer, legacy=legacy), headers_of(answer.opening))

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
    return unique_id("chatcmpl-", 12)
