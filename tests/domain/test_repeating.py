"""A call that is kept so that it can be asked again, as a request of chat completions."""

import json
from typing import Any
from unittest.mock import MagicMock

import pytest

from app.api.openai.read import HONOURED, to_call
from app.api.openai.schemas import ChatCompletionRequest
from app.api.request import SessionHints
from app.api.wire.body import given_fields, parse_body
from app.domain.chat import ChatCall, Image, Message, OutputFormat, Tool, ToolCall, ToolUse
from app.domain.repeating import messages_of, repeatable
from app.domain.texts import messages_in_words

_LOOK, _LISTEN = Tool("look", "Looks.", {"type": "object", "properties": {}}, strict=True), Tool("listen")
_HINTS = SessionHints(
    session=None, reset=False, strict=False, is_retry=False, idempotency_key=None, provider=None, cache=None
)
_MESSAGES = (
    Message("system", "Be brief."),
    Message("user", "Look!", name="ada"),
    Message("assistant", "", tool_calls=(ToolCall("1", "look", '{"at": "it"}'), ToolCall("2", "listen", "{}"))),
    Message("tool", "A cat.", tool_call_id="1"),
    Message("tool", "Silence.", tool_call_id="2"),
    Message("user", "And now? 好 \N{GRINNING FACE}"),
)


def _read(body: dict[str, Any]) -> ChatCall:
    """The call that a request of the API would be."""
    services = MagicMock(max_messages=100)
    request = parse_body(ChatCompletionRequest, json.dumps(body).encode())
    return to_call(request, _HINTS, services, given_fields(request, HONOURED))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_tokens": 50, "stop": ("!", "?"), "options": {"temperature": 0.2, "seed": 7}},
        {"tools": ToolUse((_LOOK, _LISTEN))},
        {"tools": ToolUse((_LOOK, _LISTEN), choice="none", parallel=False)},
        {"tools": ToolUse((_LOOK, _LISTEN), choice="required")},
        {"tools": ToolUse((_LOOK, _LISTEN), choice="required", allowed=frozenset({"look"}))},
        {"tools": ToolUse((_LOOK, _LISTEN), allowed=frozenset({"look", "listen"}))},
        {"output_format": OutputFormat("json_object")},
        {"output_format": OutputFormat("json_schema", {"type": "object"}, "cat", "A cat.", strict=True)},
        {"output_format": OutputFormat("json_schema", {"type": "object"}, "cat")},
    ],
    ids=[
        *("plain", "settings", "tools", "no tool", "any tool", "this tool", "some tools"),
        *("an object", "a described schema", "a schema"),
    ],
)
def test_it_asks_the_same(settings: dict[str, Any]) -> None:
    """The request means the same call, with all its settings, and tells the same words."""
    call = ChatCall("kimi", _MESSAGES, **settings)
    body = repeatable(call)
    again = _read(body)
    assert repeatable(again) == body
    assert again.messages == call.messages == tuple(messages_of(json.loads(json.dumps(body))))
    assert messages_in_words(messages_of(body)) == messages_in_words(call.messages)
    assert (again.max_tokens, again.stop, again.options) == (call.max_tokens, call.stop, call.options)
    assert _use(again) == _use(call)


def _use(call: ChatCall) -> object:
    use = call.tools
    return None if use is None else (len(use.tools), use.choice, use.allowed, use.parallel)


def test_images_and_thoughts_are_left_out() -> None:
    """Of an image its place stays, of a thought nothing."""
    image = Message("user", "See [image]", parts=("See ", Image(url="data:image/png;base64,AAAA")))
    body = repeatable(ChatCall("kimi", (image, Message("assistant", "A cat.", reasoning="It purrs."))))
    assert body["messages"] == [
        {"role": "user", "content": "See [image]"},
        {"role": "assistant", "content": "A cat."},
    ]
