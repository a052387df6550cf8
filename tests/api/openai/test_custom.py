"""Custom tools on chat completions: functions to the model, calls of type `custom` to the client."""

import json
from typing import Any

from openai._streaming import SSEDecoder
from openai.types.chat import ChatCompletion

from app.api.openai.dialect import CHAT_COMPLETIONS
from app.domain.chat import ToolCall, ToolCallDelta
from tests.api.answers import OPENING, answer, ending
from tests.api.reading import read

PATCH = {
    "type": "custom",
    "custom": {
        "name": "apply_patch",
        "description": "Edit files.",
        "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: hunk+"}},
    },
}
REQUEST: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Hello"}],
    "tools": [{"type": "function", "function": {"name": "read"}}, PATCH],
}
PATCHED = ToolCall("call_1", "apply_patch", '{"input": "*** Begin"}')
READ = ToolCall("call_2", "read", "{}")


def test_the_model_gets_a_function_with_one_text() -> None:
    """It is told of the grammar in words."""
    use = read(CHAT_COMPLETIONS, REQUEST).calls[0].tools
    assert use is not None
    assert use.tools[1].parameters["required"] == ["input"]
    assert use.tools[1].description == "Edit files.\nThe input must fit this lark grammar:\nstart: hunk+"


def test_a_whole_answer_has_the_input_as_it_is() -> None:
    """Beside it a function's call stays what it is."""
    exchange = read(CHAT_COMPLETIONS, REQUEST)
    body = exchange.write([answer("", "tool_calls", tool_calls=(PATCHED, READ))])
    calls = json.loads(body)["choices"][0]["message"]["tool_calls"]
    assert calls == [
        {"id": "call_1", "type": "custom", "custom": {"name": "apply_patch", "input": "*** Begin"}},
        {"id": "call_2", "type": "function", "function": {"name": "read", "arguments": "{}"}},
    ]
    assert ChatCompletion.model_validate_json(body).choices[0].message.tool_calls


def test_a_streamed_answer_has_it_too() -> None:
    """The input comes when its arguments are complete, before the next call begins or the answer ends."""
    encoder = read(CHAT_COMPLETIONS, {**REQUEST, "stream": True}).encoder(OPENING)
    parts = [
        ToolCallDelta(0, "call_1", "apply_patch", '{"inp'),
        ToolCallDelta(0, arguments='ut": "*** Begin"}'),
        ToolCallDelta(1, "call_2", "read"),
        ToolCallDelta(1, arguments="{}"),
        ToolCallDelta(2, "call_3", "apply_patch", '{"input": "more"}'),
    ]
    stream = b"".join(map(encoder.tool_call, parts)) + encoder.ending(ending("tool_calls"))
    *events, done = [event.data for event in SSEDecoder().iter_bytes(iter([stream]))]
    assert done == "[DONE]"
    calls: dict[int, dict[str, Any]] = {}
    for event in events:
        for call in json.loads(event)["choices"][0]["delta"].get("tool_calls", ()):
            kept = calls.setdefault(call["index"], {"type": call.get("type"), "text": ""})
            kept["text"] += call.get("custom", {}).get("input", "") + call.get("function", {}).get("arguments", "")
    assert calls == {
        0: {"type": "custom", "text": "*** Begin"},
        1: {"type": "function", "text": "{}"},
        2: {"type": "custom", "text": "more"},
    }
    assert json.loads(events[-1])["choices"][0]["finish_reason"] == "tool_calls"


def test_a_call_in_the_history_goes_up_as_a_functions() -> None:
    """So the model sees its own call again."""
    call = {"id": "c", "type": "custom", "custom": {"name": "apply_patch", "input": "ü"}}
    messages = [*REQUEST["messages"], {"role": "assistant", "tool_calls": [call]}]
    message = read(CHAT_COMPLETIONS, {**REQUEST, "messages": messages}).calls[0].messages[1]
    assert message.tool_calls == (ToolCall("c", "apply_patch", '{"input": "ü"}'),)
