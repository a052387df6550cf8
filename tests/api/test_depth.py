"""Whatever is nested deeply in a request, its client gets an answer or is told what is wrong."""

import json
from collections.abc import Callable, Iterator

import httpx
import pytest

from app.providers.base import Ability
from simulator.live import LiveSimulator
from tests.conftest import RunLog
from tests.live import LiveGateway
from tests.scripted import ScriptedProvider, gateway_with

_HOLE = "HOLE"
_USER = {"role": "user", "content": "Hello"}
_SHAPES: dict[str, Callable[[int], str]] = {
    "arrays": lambda depth: "[" * depth + "]" * depth,
    "objects": lambda depth: '{"a":' * depth + "1" + "}" * depth,
    "properties": lambda depth: '{"properties":{"a":' * depth + "{}" + "}}" * depth,
    "alternatives": lambda depth: '{"anyOf":[' * depth + "{}" + "]}" * depth,
}
_DEPTHS = (50, 58, 100, 199, 250, 1000, 100_000)
_CALL = {"id": "c", "type": "function", "function": {"name": "t", "arguments": _HOLE}}
_RESULT = {"role": "tool", "tool_call_id": "c", "content": "done"}
_CONTENT = {"role": "user", "parts": [{"text": "Hello"}]}
_ASKED = {"role": "model", "parts": [{"functionCall": {"name": "t", "args": _HOLE}}]}
_ANSWERED = {"role": "user", "parts": [{"functionResponse": {"name": "t", "response": {"a": _HOLE}}}]}
_USE = {"type": "tool_use", "id": "c", "name": "t", "input": _HOLE}
_USED = {"type": "tool_result", "tool_use_id": "c", "content": "done"}


def _chat(**fields: object) -> tuple[str, dict[str, object]]:
    return "/v1/chat/completions", {"messages": [_USER], **fields}


def _responses(**fields: object) -> tuple[str, dict[str, object]]:
    return "/v1/responses", {"input": "Hello", **fields}


def _anthropic(**fields: object) -> tuple[str, dict[str, object]]:
    return "/v1/messages", {"max_tokens": 9, "messages": [_USER], **fields}


def _completions(**fields: object) -> tuple[str, dict[str, object]]:
    return "/v1/completions", {"prompt": "Hello", **fields}


def _gemini(**fields: object) -> tuple[str, dict[str, object]]:
    return "/v1beta/models/one-model:generateContent", {"contents": [_CONTENT], **fields}


def _function(parameters: object) -> dict[str, object]:
    return {"type": "function", "function": {"name": "t", "parameters": parameters}}


_REQUESTS = [
    _chat(messages=_HOLE),
    _chat(messages=[{"role": "user", "content": _HOLE}]),
    _chat(messages=[_USER, {"role": "assistant", "tool_calls": [_CALL]}, _RESULT]),
    _chat(tools=_HOLE),
    _chat(tools=[_function(_HOLE)]),
    _chat(tools=[_function({"type": "object", "properties": {"a": {"default": _HOLE, "enum": [_HOLE]}}})]),
    _chat(tools=[_function({"type": "object", "x-of-a-vendor": _HOLE})]),
    _chat(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": _HOLE}}),
    _chat(response_format=_HOLE, tool_choice=_HOLE, stop=_HOLE),
    _chat(logit_bias=_HOLE),
    _chat(metadata=_HOLE),
    _chat(x=_HOLE),
    _responses(input=_HOLE),
    _responses(tools=[{"type": "function", "name": "t", "parameters": _HOLE}]),
    _responses(text={"format": {"type": "json_schema", "name": "a", "schema": _HOLE}}),
    _responses(x=_HOLE),
    _anthropic(messages=[{"role": "user", "content": _HOLE}]),
    _anthropic(tools=[{"name": "t", "input_schema": _HOLE}]),
    _anthropic(messages=[_USER, {"role": "assistant", "content": [_USE]}, {"role": "user", "content": [_USED]}]),
    _anthropic(x=_HOLE),
    _gemini(contents=_HOLE),
    _gemini(contents=[_CONTENT, _ASKED, _ANSWERED]),
    _gemini(tools=[{"functionDeclarations": [{"name": "t", "parameters": _HOLE}]}]),
    _gemini(generationConfig={"responseMimeType": "application/json", "responseSchema": _HOLE}),
    _gemini(generationConfig={"responseJsonSchema": _HOLE, "x": _HOLE}),
    _completions(prompt=_HOLE),
    _completions(logit_bias=_HOLE),
]


@pytest.fixture(params=["a model that only writes text", "a model that takes all"])
def any_gateway(request: pytest.FixtureRequest, site: LiveSimulator, run_log: RunLog) -> Iterator[LiveGateway]:
    """One with a model that everything has to be told to in words, or with one that does it all by itself."""
    everything: tuple[Ability, ...] = ("messages", "tools", "options", "json_object", "json_schema")
    abilities = everything if request.param == "a model that takes all" else ()
    with gateway_with(site, run_log.stream, ScriptedProvider("one", abilities=abilities)) as gateway:
        yield gateway


@pytest.mark.parametrize("quoted", [False, True], ids=["as JSON", "in a text"])
@pytest.mark.parametrize("shape", _SHAPES)
def test_depth_is_answered_or_refused_as_the_dialect_does(any_gateway: LiveGateway, shape: str, quoted: bool) -> None:
    """In every field of every dialect, at any depth: 200, or an error that is the request's own."""
    with any_gateway.client() as client:
        for depth in _DEPTHS:
            hole = _SHAPES[shape](depth)
            for path, fields in _REQUESTS:
                body = json.dumps({"model": "one-model", **fields}).replace(
                    f'"{_HOLE}"', json.dumps(hole) if quoted else hole
                )
                _assert_answered(client.post(path, content=body), f"{path} {fields} at {depth}")


def _assert_answered(reply: httpx.Response, what: str) -> None:
    if reply.status_code == 200:
        return
    error = reply.json()["error"]
    # The model has something else to say than the JSON that was asked for.
    code = error["details"][0]["reason"] if "status" in error else error.get("code")
    assert 400 <= reply.status_code < 500 or code == "invalid_json_from_upstream", f"{what}: {reply.text}"
    assert error["message"], what
