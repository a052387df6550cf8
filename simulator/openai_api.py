"""The simulated site's other face: an OpenAI-compatible API, as its paid upstreams have one."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any, Final

from aiohttp import web

from simulator.behaviour import Behaviour
from simulator.failures import JSON, Canned, abort
from simulator.openai_answers import API_MODELS, Answer, answer_to, chunks, completion, event, prompt_of, tokens
from simulator.openai_failures import API_ERRORS, ERROR_EVENT, api_error
from simulator.site import Site

API_PATH: Final = "/v1"
_HUGE: Final = b"x" * 65536


def add_openai_api(application: web.Application, site: Site) -> None:
    """Add the routes of the API."""
    api = _Api(site)
    application.router.add_post(f"{API_PATH}/chat/completions", api.complete)
    application.router.add_get(f"{API_PATH}/models", api.list_models)


class _Api:
    def __init__(self, site: Site) -> None:
        self._site = site

    async def list_models(self, request: web.Request) -> web.StreamResponse:
        behaviour = self._site.behaviour
        refusal = _refused_key(request, behaviour)
        if refusal is not None:
            return refusal.response(behaviour)
        rows = [{"id": name, "object": "model", "created": 0, "owned_by": "simulator"} for name in API_MODELS]
        return web.json_response({"object": "list", "data": rows})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        self._site.api.begin(body)
        abandoned = True
        try:
            response = await self._respond(request, body)
            abandoned = False
        finally:
            self._site.api.end(abandoned=abandoned)
        return response

    async def _respond(self, request: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
        behaviour, failure = self._site.take_api_failure()
        await asyncio.sleep(behaviour.api_latency_s)
        refusal = _refused_key(request, behaviour) or _refused_body(body, behaviour) or API_ERRORS.get(failure or "")
        if refusal is not None:
            return refusal.response(behaviour)
        answer = answer_to(body, behaviour)
        if failure == "empty_answer":
            answer = replace(answer, text="", reasoning="", calls=(), finish_reason="stop")
        if failure == "hang":
            await asyncio.Event().wait()
        if failure == "reset":
            abort(request)
            return web.Response()
        kind = "text/event-stream" if body.get("stream") else JSON
        response = web.StreamResponse(headers={"Content-Type": kind, "Cache-Control": "no-cache"})
        await response.prepare(request)
        pieces = _stream(answer, body, behaviour, failure) if body.get("stream") else _whole(answer, failure)
        async for piece in pieces:
            await response.write(piece)
        if failure == "reset_mid_answer" and request.transport is not None:
            request.transport.close()  # what was written still arrives, but never the end
        return response


async def _body(request: web.Request) -> Mapping[str, Any]:
    try:
        body = json.loads(await request.read())
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _refused_key(request: web.Request, behaviour: Behaviour) -> Canned | None:
    if behaviour.api_key is None or request.headers.get("Authorization") == f"Bearer {behaviour.api_key}":
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


async def _whole(answer: Answer, failure: str | None) -> AsyncIterator[bytes]:
    document = completion(answer)
    if failure == "no_usage":
        del document["usage"]
    body = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
    if failure is None or not failure.endswith("_mid_answer"):
        yield body
        return
    yield body[: len(body) // 2]
    async for piece in _trouble(failure):
        yield piece


async def _stream(
    answer: Answer, body: Mapping[str, Any], behaviour: Behaviour, failure: str | None
) -> AsyncIterator[bytes]:
    options = body.get("stream_options")
    wants_usage = isinstance(options, dict) and bool(options.get("include_usage"))
    documents = list(chunks(answer, with_usage=wants_usage and failure != "no_usage"))
    if failure == "no_finish_reason":
        documents = [each for each in documents if not (each["choices"] and each["choices"][0]["finish_reason"])]
    breaks_off = failure is not None and failure.endswith("_mid_answer")
    for number, document in enumerate(documents[: len(documents) // 2] if breaks_off else documents):
        if number and behaviour.api_chunk_delay_s:
            await asyncio.sleep(behaviour.api_chunk_delay_s)
        yield event(document)
    async for piece in _trouble(failure):
        yield piece
    if failure not in ("no_done", "cut_mid_answer", "reset_mid_answer"):
        yield b"data: [DONE]\n\n"


async def _trouble(failure: str | None) -> AsyncIterator[bytes]:
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
