"""`/v1/completions`."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.bodies import naming_fields, parse_body, read_body
from app.api.completions.convert import FIELD_NAMES, ignored_params, prompts_of, to_calls
from app.api.completions.schemas import CompletionRequest, TextCompletion
from app.api.completions.sse import CompletionEncoder, finish_reason
from app.api.dialects import Dialect, Parts
from app.api.disconnect import cancel_on_disconnect
from app.api.docs import ANSWER_ERRORS, STREAM_DOC, request_doc
from app.api.encoding import json_bytes
from app.api.headers import opening_headers, session_hints
from app.api.ids import unique_id
from app.api.reply import JsonReply
from app.api.streaming import EventStream
from app.api.wire import usage_object
from app.chat.events import Answer, Event, Opening
from app.domain.chat import Usage


def completions_router(parts: Parts) -> APIRouter:
    """The route of the legacy completions dialect."""
    router = APIRouter(prefix="/v1", tags=["completions"])

    @router.post(
        "/completions",
        summary="Go on from a text",
        response_model=None,
        responses={200: {"model": TextCompletion, **STREAM_DOC}, **ANSWER_ERRORS},
        openapi_extra=request_doc(CompletionRequest),
    )
    async def create_completion(request: Request) -> Response:
        """The answers to one or several prompts, which are asked one after the other."""
        wire = parse_body(CompletionRequest, await read_body(request.receive))
        prompts = prompts_of(wire)
        hints = session_hints(request.scope["headers_by_name"], None)
        calls = to_calls(wire, prompts, hints, default_model=parts.registry.default_model)
        headers_of = partial(opening_headers, ignored=ignored_params(wire))
        caller = request.scope["caller"]
        echoed = prompts if wire.echo else [""] * len(prompts)
        if wire.stream:
            include_usage = bool(wire.stream_options and wire.stream_options.include_usage)
            return EventStream(
                _named(parts.service.stream(calls[0], caller)),
                encoder=partial(_encoder, include_usage=include_usage, echo=echoed[0]),
                headers_of=headers_of,
                policy=parts.stream_policy,
                metrics=parts.metrics,
            )
        with naming_fields(FIELD_NAMES):
            async with cancel_on_disconnect(request.receive):
                answers = [await parts.service.complete(call, caller) for call in calls]
        return JsonReply(_completion(answers, echoed), headers_of(answers[-1].opening))

    return router


COMPLETIONS = Dialect(router=completions_router, models=(CompletionRequest,))


async def _named(events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    """The events of a call, whose errors name fields as this dialect does."""
    with naming_fields(FIELD_NAMES):
        async with aclosing(events):
            async for event in events:
                yield event


def _encoder(opening: Opening, *, include_usage: bool, echo: str) -> CompletionEncoder:
    return CompletionEncoder(
        completion_id=_new_id(), created=int(time.time()), model=opening.model, include_usage=include_usage, echo=echo
    )


def _completion(answers: Sequence[Answer], echoed: Sequence[str]) -> bytes:
    choices = [
        {
            "index": index,
            "text": echo + answer.text,
            "logprobs": None,
            "finish_reason": finish_reason(answer.ending),
        }
        for index, (answer, echo) in enumerate(zip(answers, echoed, strict=True))
    ]
    usage = sum((answer.ending.usage for answer in answers), Usage(0, 0))
    document = {
        "id": _new_id(),
        "object": "text_completion",
        "created": int(time.time()),
        "model": answers[0].opening.model,
        "choices": choices,
        "usage": usage_object(usage),
    }
    return json_bytes(document)


def _new_id() -> str:
    return unique_id("cmpl-", 12)
