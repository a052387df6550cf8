"""What must be true of every response, said to schemathesis, which loads this module by its name."""

import json
import os
from typing import Any

import schemathesis
from schemathesis import Case, CheckContext, HookContext, Response

from tests.fuzzing import DOOMED_RESPONSE, DOOMED_SESSION, KEPT_RESPONSE, KEPT_SESSION

_HELLO: Any = {"role": "user", "content": "Hello"}
# With any of these a chat is refused unless its value is just right, so that hardly one made-up chat would be answered.
_CHOOSY = (
    *("model", "n", "response_format", "tool_choice", "tools", "functions", "function_call", "modalities"),
    *("best_of", "logprobs", "suffix", "system", "output_format", "thread"),
    *("background", "conversation", "previous_response_id", "prompt", "text"),
    *("generationConfig", "systemInstruction", "toolConfig", "cachedContent", "generateContentRequest"),
)
# By the field that holds the conversation, what is put in its place.
_ASKED: dict[str, Any] = {"messages": [_HELLO], "input": [_HELLO], "prompt": "Hello"}
_ASKED["contents"] = [{"role": "user", "parts": [{"text": "Hello"}]}]
_FORMS = ("responseMimeType", "responseSchema", "responseJsonSchema")
# Under these addresses Anthropic's dialect is spoken.
_ANTHROPIC = "/v1/messages"
# And under these Gemini's.
_GEMINI = "/v1beta/"
# And under these, what an upstream streams ends as it likes.
_PASSED_ON = ("/v1/images/", "/v1/audio/")
_ANTHROPIC_TYPES = ("invalid_request_error", "authentication_error", "not_found_error", "request_too_large")


@schemathesis.hook
def before_call(_: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """Leads every second made-up request, as it is counted by its size, past the first refusal."""
    given = case.path_parameters or {}
    if len(str(given.get("session_id", "odd"))) % 2 == 0:
        given["session_id"] = KEPT_SESSION if case.method == "GET" else DOOMED_SESSION
    if len(str(given.get("response_id", "odd"))) % 2 == 0:
        given["response_id"] = os.environ[KEPT_RESPONSE if case.method == "GET" else DOOMED_RESPONSE]
    if case.path.startswith(_GEMINI) and "model" in given and len(str(given["model"])) % 2 == 0:
        given["model"] = "kimi"
    body: Any = case.body
    if isinstance(body, dict):
        body = case.body = {name: value for name, value in body.items() if not _asks_for_a_form(name, value)}
    if isinstance(body, dict) and len(body) % 2:
        field = next((name for name in _ASKED if name in body), "")
        kept = {name: value for name, value in body.items() if name not in _CHOOSY}
        if case.path.startswith(_ANTHROPIC):
            kept |= {"model": "kimi", "max_tokens": 100, "thinking": None, "output_config": None}
        case.body = kept | ({field: _ASKED[field], "stream": len(str(body)) % 2 == 0} if field else {})


def _asks_for_a_form(name: str, value: Any) -> bool:
    """Would the simulated model, which says the same to everybody, be at fault?"""
    if name == "response_format":
        return isinstance(value, dict) and value.get("type") != "text"
    if name in ("text", "output_config"):
        return isinstance(value, dict) and value.get("format") is not None
    if name == "generationConfig":
        return isinstance(value, dict) and any(value.get(field) is not None for field in _FORMS)
    if name == "toolConfig":
        return bool(value)
    if name == "output_format":
        return isinstance(value, dict)
    return name in ("tool_choice", "function_call") and (isinstance(value, dict) or value == "required")


def _header(response: Response, name: str) -> str:
    return ", ".join(response.headers.get(name, []))


@schemathesis.check
def errors_come_in_the_envelope(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """Whatever is not a success is the error object and nothing else; only /ready has a body of its own for its 503."""
    if response.status_code < 300 or (response.status_code == 503 and case.path == "/ready"):
        return
    assert _header(response, "content-type") == "application/json"
    document = json.loads(response.content)
    if case.path.startswith(_ANTHROPIC):
        assert list(document) == ["type", "error", "request_id"]
        assert document["request_id"] == _header(response, "request-id")
        assert document["error"]["type"] in _ANTHROPIC_TYPES
        assert document["error"]["message"]
        return
    assert list(document) == ["error"]
    error = document["error"]
    if case.path.startswith(_GEMINI):
        assert list(error) == ["code", "message", "status", "details"]
        assert error["code"] == response.status_code
        assert error["details"][0]["metadata"] == {"requestId": _header(response, "x-request-id")}
        return
    assert list(error) == ["message", "type", "param", "code"]
    assert isinstance(error["message"], str)
    assert error["message"]
    assert error["type"] == "invalid_request_error"
    assert all(value is None or isinstance(value, str) for value in (error["param"], error["code"]))


@schemathesis.check
def every_response_has_an_id_and_a_clock(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """Every response says by which id it is found in the log, and how long it took."""
    assert len(_header(response, "x-request-id")) >= 8
    assert _header(response, "openai-processing-ms").isdigit()


@schemathesis.check
def streams_are_complete(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """Every event stream is made of JSON, and ends with [DONE] or with the event that its dialect has for it."""
    if not _header(response, "content-type").startswith("text/event-stream") or case.path.startswith(_PASSED_ON):
        return
    assert not response.stream_cut_short
    if case.path.startswith(_ANTHROPIC):
        assert response.content.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
        return
    *events, done, rest = response.content.split(b"\n\n")
    assert rest == b""
    if case.path.startswith(_GEMINI):
        assert json.loads(done.removeprefix(b"data: "))["candidates"][0]["finishReason"]
        return
    if case.path == "/v1/responses":
        assert done.startswith((b"event: response.completed\n", b"event: response.incomplete\n"))
        assert all(json.loads(event.partition(b"\ndata: ")[2])["type"] for event in (*events, done))
        return
    assert done == b"data: [DONE]"
    kinds = {json.loads(event.removeprefix(b"data: "))["object"] for event in events}
    assert kinds == {"text_completion" if case.path == "/v1/completions" else "chat.completion.chunk"}


@schemathesis.check
class everything_was_reached:  # noqa: N801 - named like the other checks in the report
    """The run was worth something: all addresses have answered well, and the chat in each of its ways."""

    def __init__(self) -> None:
        self._tested: set[str] = set()
        self._reached: set[str] = set()

    def after_response(self, _: CheckContext, response: Response, case: Case[Any]) -> None:
        """Note what was answered."""
        self._tested.add(case.operation.label)
        if response.status_code == 200:
            self._reached.add(case.operation.label)
            self._reached.add(_header(response, "content-type"))
        else:
            self._reached.add(f"{case.operation.label} {response.status_code}")

    def after_run(self, _: CheckContext) -> None:
        """Look whether anything is missing."""
        chat = {"POST /v1/chat/completions 400", "application/json", "text/event-stream; charset=utf-8"}
        missing = (self._tested | chat) - self._reached
        if missing:
            raise AssertionError(f"never seen: {', '.join(sorted(missing))}")
