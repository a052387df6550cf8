"""The simulated site's other face: an API, as its paid upstreams have one, in OpenAI's form and in others."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from simulator.api_forms import ANTHROPIC, GEMINI, OPENAI, Form
from simulator.behaviour import Behaviour
from simulator.openai_answers import API_MODELS, ApiAnswer, answer_to, prompt_of, tokens
from simulator.openai_failures import API_ERRORS, ERROR_EVENT, api_error
from simulator.responses import END, JSON, Canned, Messages, Streamed, Watched, json_response, piece, start
from simulator.server import HANG_UP, RESET
from simulator.site import Site

API_PATH: Final = "/v1"
# Gemini's has the model, and what is to be done with it, in the address.
GEMINI_PATH: Final = "/v1beta"
_EVENTS: Final = "text/event-stream"
_HUGE: Final = b"x" * 65536


def api_routes(site: Site) -> Sequence[Route]:
    """The routes of the API."""
    api = _Api(site)
    return (
        Route(f"{API_PATH}/chat/completions", partial(api.complete, OPENAI), methods=["POST"]),
        Route(f"{API_PATH}/messages", partial(api.complete, ANTHROPIC), methods=["POST"]),
        Route(f"{GEMINI_PATH}/models/{{model}}:{{method}}", partial(api.complete, GEMINI), methods=["POST"]),
        Route(f"{GEMINI_PATH}/models", api.list_gemini_models),
        Route(f"{API_PATH}/models", api.list_models),
    )


class _Api:
    def __init__(self, site: Site) -> None:
        self._site = site

    async def list_models(self, request: Request) -> Response:
        behaviour = self._site.behaviour
        form = ANTHROPIC if ANTHROPIC.key_header in request.headers else OPENAI
        refusal = refused_key(request, behaviour, form)
        if refusal is not None:
            return refusal.response(behaviour)
        rows = [{"id": name, "object": "model", "created": 0, "owned_by": "simulator"} for name in API_MODELS]
        return json_response({"object": "list", "data": rows})

    async def list_gemini_models(self, request: Request) -> Response:
        behaviour = self._site.behaviour
        refusal = refused_key(request, behaviour, GEMINI)
        if refusal is not None:
            return refusal.response(behaviour)
        methods = ["generateContent", "countTokens"]
        rows = [
            {"name": f"models/{name}", "inputTokenLimit": 100_000, "supportedGenerationMethods": methods}
            for name in API_MODELS
        ]
        rows.append({"name": "models/embedding", "supportedGenerationMethods": ["embedContent"]})
        return json_response({"models": rows})

    async def complete(self, form: Form, request: Request) -> ASGIApp:
        body = _parse(await request.body())
        if form is GEMINI:
            streams = request.path_params["method"] == "streamGenerateContent"
            body = {**body, "model": request.path_params["model"], "stream": streams}
        desk = self._site.api
        desk.begin(body)
        return Watched(
            partial(self._answer, form, request, body),
            ended=partial(desk.end, abandoned=False),
            left=partial(desk.end, abandoned=True),
        )

    async def _answer(
        self, form: Form, request: Request, body: Mapping[str, Any], scope: Scope, receive: Receive, send: Send
    ) -> None:
        behaviour, failure = self._site.take_api_failure()
        await asyncio.sleep(behaviour.api_latency_s)
        body = form.understood(body)
        refusal = (
            refused_key(request, behaviour, form) or _refused_body(body, behaviour) or API_ERRORS.get(failure or "")
        )
        answer = refusal.response(behaviour) if refusal else Streamed(_messages(form, body, behaviour, failure))
        await answer(scope, receive, send)


def _parse(text: bytes) -> Mapping[str, Any]:
    try:
        body = json.loads(text)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def refused_key(request: Request, behaviour: Behaviour, form: Form = OPENAI) -> Canned | None:
    """The error for a request without the key that the API wants; None if it has it."""
    if behaviour.api_key is None or request.headers.get(form.key_header) == f"{form.key_prefix}{behaviour.api_key}":
        return None
    return API_ERRORS["openai_key"]


def _refused_body(body: Mapping[str, Any], behaviour: Behaviour) -> Canned | None:
    if not isinstance(body.get("messages"), list) or not body["messages"]:
        return api_error(400, "'messages' is a required property", param="messages")
    size = len(prompt_of(body))
    if behaviour.api_context and size > behaviour.api_context:
        return api_error(
            400,
            f"This model's maximum context length is {tokens(behaviour.api_context)} tokens. However, your messages "
            f"resulted in {tokens(size)} tokens. Please reduce the length of the messages.",
            code="context_length_exceeded",
            param="messages",
        )
    return None


async def _messages(form: Form, body: Mapping[str, Any], behaviour: Behaviour, failure: str | None) -> Messages:
    """The answer to a request that is in order, or what goes wrong with it."""
    if failure == "hang":
        await asyncio.Event().wait()
    if failure == "reset":
        yield RESET
    answer = answer_to(body, behaviour)
    if failure == "empty_answer":
        answer = replace(answer, text="", reasoning="", calls=(), finish_reason="stop")
    streams = bool(body.get("stream"))
    yield start(_EVENTS if streams else JSON)
    parts_of = _stream(form, answer, body, behaviour, failure) if streams else _whole(form, answer, failure)
    async with aclosing(parts_of) as parts:
        async for part in parts:
            yield piece(part)
    yield HANG_UP if failure == "reset_mid_answer" else END


async def _whole(form: Form, answer: ApiAnswer, failure: str | None) -> AsyncGenerator[bytes, None]:
    document = form.whole(answer)
    if failure == "no_usage":
        document.pop("usage", None)
    body = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
    if failure is None or not failure.endswith("_mid_answer"):
        yield body
        return
    yield body[: len(body) // 2]
    async for part in _trouble(failure):
        yield part


async def _stream(
    form: Form, answer: ApiAnswer, body: Mapping[str, Any], behaviour: Behaviour, failure: str | None
) -> AsyncGenerator[bytes, None]:
    options = body.get("stream_options")
    wants_usage = isinstance(options, dict) and bool(options.get("include_usage"))
    events = form.events(answer, (wants_usage or form is not OPENAI) and failure != "no_usage")
    if failure == "no_finish_reason":
        events = [each for each in events if b'"finish_reason": "' not in each]
    breaks_off = failure is not None and failure.endswith("_mid_answer")
    for number, document in enumerate(events[: len(events) // 2] if breaks_off else events):
        if number and behaviour.api_chunk_delay_s:
            await asyncio.sleep(behaviour.api_chunk_delay_s)
        yield document
    async for part in _trouble(failure):
        yield part
    if failure not in ("no_done", "cut_mid_answer", "reset_mid_answer"):
        yield form.end


async def _trouble(failure: str | None) -> AsyncGenerator[bytes, None]:
    """What comes in the place of an answer's second half."""
    if failure == "hang_mid_answer":
        await asyncio.Event().wait()
    elif failure == "garbage_mid_answer":
        yield b'data: {"choices": [{"delta": {"cont\n\n'
    elif failure == "error_mid_answer":
        yield ERROR_EVENT
    elif failure == "huge_mid_answer":
        yield b'data: {"choices": [{"delta": {"content": "'
        for _ in range(1000):
            yield _HUGE
