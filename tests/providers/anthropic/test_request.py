"""What an Anthropic upstream is sent."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from app.domain.chat import Image, Message, OutputFormat, Tool, ToolCall, ToolUse
from app.domain.errors import InvalidRequest
from app.providers.anthropic.request import message_body
from app.providers.base import ModelSpec
from app.providers.bounds import ModelBounds
from tests.providers.openai_compatible.upstream import MODEL, wanted

HELLO = {"role": "user", "content": [{"type": "text", "text": "Hello"}]}
USER = Message("user", "Hello")
LOOK = ToolUse((Tool("look", "Looks.", {"properties": {}}, strict=True), Tool("run")))


def sent(
    *messages: Message, model: str = "claude-sonnet-4-6", spec: ModelSpec = MODEL, **fields: Any
) -> dict[str, Any]:
    """The body as the upstream reads it."""
    request = wanted(*messages, **fields)
    request = replace(request, model=replace(spec, upstream_id=model))
    body: dict[str, Any] = json.loads(message_body(request, stream=False))
    return body


def blocks(*said: Any) -> list[dict[str, Any]]:
    """Blocks, texts among them as they are."""
    return [{"type": "text", "text": each} if isinstance(each, str) else each for each in said]


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([USER], [HELLO]),
        ([Message("user", ""), USER], [{"role": "user", "content": blocks("(nothing)", "Hello")}]),
        ([Message("assistant", "Hi! ")], [{"role": "user", "content": blocks("(The conversation begins.)")},
                                          {"role": "assistant", "content": blocks("Hi!")}]),
        ([USER, Message("assistant", "")], [HELLO]),
        ([Message("assistant", "")], [{"role": "user", "content": blocks("(The conversation begins.)")}]),
        ([Message("system", "Be brief.")], [{"role": "user", "content": blocks("Be brief.")}]),
        ([USER, Message("user", "Again")], [{"role": "user", "content": blocks("Hello", "Again")}]),
    ],
)  # fmt: skip
def test_turns_are_as_the_api_wants_them(messages: list[Message], expected: list[Any]) -> None:
    """The user speaks first, turns alternate, nothing is empty, and an answer to go on with has no blank at its end."""
    assert sent(*messages)["messages"] == expected


def test_instructions_have_a_place_of_their_own() -> None:
    """All of them, wherever they stood, make the system prompt."""
    body = sent(Message("system", "Be brief."), USER, Message("system", "Be kind."))
    assert (body["system"], body["messages"]) == ("Be brief.\n\nBe kind.", [HELLO])


def test_calls_and_results_are_blocks() -> None:
    """Results come first in their turn, ids are such as the API takes, and broken arguments are mended."""
    call = ToolCall("functions.look:0", "look", '{"at": {"x": 1')
    result = Message("tool", "A cat.", tool_call_id=call.id)
    body = sent(USER, Message("assistant", "Hm.", tool_calls=(call,)), Message("user", "Quick!"), result, tools=LOOK)
    assert body["messages"][1]["content"] == blocks(
        "Hm.", {"type": "tool_use", "id": "functions_look_0", "name": "look", "input": {"at": {"x": 1}}}
    )
    assert body["messages"][2]["content"] == blocks(
        {"type": "tool_result", "tool_use_id": "functions_look_0", "content": "A cat."}, "Quick!"
    )


def test_earlier_calls_bring_their_tools() -> None:
    """The API takes no calls without tools: those that were called are named, and can't be called."""
    call = ToolCall("c", "look", "{}")
    body = sent(USER, Message("assistant", "", tool_calls=(call,)), Message("tool", "A cat.", tool_call_id="c"))
    assert [tool["name"] for tool in body["tools"]] == ["look"]
    assert body["tool_choice"] == {"type": "none"}


@pytest.mark.parametrize(
    ("use", "names", "choice"),
    [
        (LOOK, ["look", "run"], {"type": "auto"}),
        (replace(LOOK, choice="none"), ["look", "run"], {"type": "none"}),
        (replace(LOOK, choice="required", parallel=False), ["look", "run"],
         {"type": "any", "disable_parallel_tool_use": True}),
        (replace(LOOK, choice="required", allowed=frozenset({"run"})), ["run"], {"type": "tool", "name": "run"}),
    ],
)  # fmt: skip
def test_tools_are_described_and_chosen(use: ToolUse, names: list[str], choice: Any) -> None:
    """Each choice has its form; only what may be called is sent, with a schema of an object."""
    body = sent(USER, tools=use)
    assert ([tool["name"] for tool in body["tools"]], body["tool_choice"]) == (names, choice)
    assert all(tool["input_schema"]["type"] == "object" for tool in body["tools"])


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("https://x.test/a.png", {"type": "url", "url": "https://x.test/a.png"}),
        ("data:image/PNG;base64,aGk=", {"type": "base64", "media_type": "image/png", "data": "aGk="}),
        ("data:image/png;name=a.png;base64,aGk=", {"type": "base64", "media_type": "image/png", "data": "aGk="}),
        ("data:image/png,hi", None),
        ("file:///etc/passwd", None),
    ],
)
def test_images(url: str, source: Any) -> None:
    """An address, or the image itself; whatever else is refused by its place."""
    message = Message("user", "[image]", parts=("", Image(url, "messages[0].content[0]")))
    if source is None:
        with pytest.raises(InvalidRequest) as refused:
            sent(message)
        assert refused.value.param == "messages[0].content[0]"
    else:
        assert sent(message)["messages"][0]["content"] == [{"type": "image", "source": source}]


@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        ("claude-sonnet-4-6", {"temperature": 0.5, "top_p": 0.9, "top_k": 5}, {"temperature": 0.5, "top_k": 5}),
        ("claude-sonnet-4-6", {"service_tier": "flex", "user": "u", "seed": 1}, {}),
        ("claude-sonnet-4-6", {"service_tier": "auto"}, {"service_tier": "auto"}),
        ("claude-sonnet-4-6", {"reasoning_effort": "minimal"},
         {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}),
        ("claude-sonnet-4-6", {"reasoning_effort": "none"}, {}),
        ("claude-sonnet-4-6", {"reasoning_effort": ["?"]}, {}),
        ("claude-sonnet-4-6", {"reasoning_effort": "high", "thinking": {"type": "disabled"}},
         {"thinking": {"type": "disabled"}}),
        ("claude-haiku-4-5", {"reasoning_effort": "low"}, {"thinking": {"type": "enabled", "budget_tokens": 2048}}),
        ("claude-haiku-4-5", {"reasoning_effort": "low", "temperature": 0.2}, {"temperature": 0.2}),
        ("claude-3-5-haiku-latest", {"reasoning_effort": "low"}, {}),
    ],
)  # fmt: skip
def test_options(model: str, options: dict[str, Any], expected: dict[str, Any]) -> None:
    """What the API knows is passed on; effort becomes thinking as the model takes it, unless something rules it out."""
    body = sent(USER, model=model, options=options)
    assert {name: value for name, value in body.items() if name not in _ALWAYS} == expected


_ALWAYS = {"model", "max_tokens", "messages", "stream"}


def test_the_answer_s_length_is_always_said() -> None:
    """The client's, else the model's own bound, else what every model takes."""
    bounded = replace(MODEL, bounds=ModelBounds(max_tokens=4096))
    assert sent(USER, max_tokens=7)["max_tokens"] == 7
    assert sent(USER, spec=bounded)["max_tokens"] == 4096
    assert sent(USER)["max_tokens"] == 32_000


def test_a_schema_and_stops() -> None:
    """The form of the answer is the API's own; texts of blanks, which it refuses, end nothing."""
    form = OutputFormat("json_schema", {"type": "object"})
    body = sent(USER, output_format=form, stop=("END", "\n"), options={"reasoning_effort": "high"})
    assert body["output_config"] == {"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}}
    assert body["stop_sequences"] == ["END"]


def test_one_answer_at_a_time() -> None:
    """Several answers are refused by the field that asks for them."""
    with pytest.raises(InvalidRequest) as refused:
        sent(USER, n=2)
    assert (refused.value.param, refused.value.code) == ("n", "unsupported_value")


def test_lone_surrogates_are_no_obstacle() -> None:
    """What can't be written in UTF-8 becomes a question mark, in arguments as in texts."""
    call = ToolCall("c", "look", '{"at": "\ud800"}')
    body = sent(Message("user", "\ud800!"), Message("assistant", "", tool_calls=(call,)), tools=LOOK)
    assert body["messages"][0]["content"] == blocks("?!")
    assert body["messages"][1]["content"][0]["input"] == {"at": "?"}
