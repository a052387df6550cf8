"""What an upstream is sent."""

import json
from typing import Any

import pytest

from app.domain.chat import Image, Message, OutputFormat, Tool, ToolCall, ToolUse
from app.domain.errors import InvalidRequest
from app.providers.api_upstream.upstream import Quirks
from app.providers.openai_compatible.request import chat_body
from tests.providers.openai_compatible.upstream import KEY, MODEL, provider_at, raw_upstream, reply, wanted

LOOK, RUN = Tool("look", "Looks.", {"type": "object"}), Tool("run", strict=True)

ONLY_RUN = {"type": "function", "function": {"name": "run"}}


def body(*messages: Message, quirks: Quirks | None = None, stream: bool = False, **fields: Any) -> dict[str, Any]:
    sent: dict[str, Any] = json.loads(chat_body(wanted(*messages, **fields), quirks or Quirks(), stream=stream))
    return sent


def test_a_plain_request_has_nothing_in_it_that_was_not_asked_for() -> None:
    """The upstream's own name for the model, the messages, and whether to stream."""
    assert body() == {"model": "vendor-m", "messages": [{"role": "user", "content": "Hello"}], "stream": False}


def test_every_kind_of_message_keeps_its_meaning() -> None:
    """Names, images, calls, results and thoughts go where chat completions have them."""
    call = ToolCall("call_1", "look", '{"at": 1}')
    image = Image("data:image/png;base64,AAAA", "messages[1].content[1]", "low")
    sent = body(
        Message("system", "Be brief."),
        Message("user", "What is this?", name="ada", parts=("What is this?", image)),
        Message("assistant", "", tool_calls=(call,), reasoning="Let me look."),
        Message("tool", "A cat.", name="look", tool_call_id="call_1"),
        Message("assistant", "A cat.", reasoning="Easy."),
        quirks=Quirks(reasoning_field="reasoning_content"),
    )["messages"]
    function = {"name": "look", "arguments": '{"at": 1}'}
    picture = {"url": "data:image/png;base64,AAAA", "detail": "low"}
    assert sent == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "name": "ada",
            "content": [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": picture}],
        },
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "Let me look.",
            "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "A cat."},
        {"role": "assistant", "content": "A cat.", "reasoning_content": "Easy."},
    ]


A, B, C = Message("system", "a"), Message("system", "b"), Message("system", "")
ASKED, SAID = Message("user", "Hello"), Message("assistant", "Hi.")


@pytest.mark.parametrize(
    ("messages", "sent"),
    [
        ((A, ASKED), [("system", "a"), ("user", "Hello")]),
        ((A, B, ASKED), [("system", "a\n\nb"), ("user", "Hello")]),
        ((A, ASKED, B), [("system", "a\n\nb"), ("user", "Hello")]),
        ((ASKED, SAID, B, ASKED), [("system", "b"), ("user", "Hello"), ("assistant", "Hi."), ("user", "Hello")]),
        ((A, C, ASKED), [("system", "a"), ("user", "Hello")]),
        ((ASKED, C), [("user", "Hello")]),
        ((A,), [("user", "a")]),
        ((A, B), [("system", "a"), ("user", "b")]),
        ((ASKED, SAID), [("user", "Hello"), ("assistant", "Hi.")]),
    ],
)
def test_all_instructions_are_one_message_the_first(messages: tuple[Message, ...], sent: list[tuple[str, str]]) -> None:
    """In their order, wherever they stood; the last message is never a system message."""
    assert [(message["role"], message["content"]) for message in body(*messages)["messages"]] == sent


def test_instructions_stay_where_they_are_for_those_who_take_them() -> None:
    """A vendor that takes several is sent several."""
    sent = body(A, ASKED, B, quirks=Quirks(one_system_message=False))["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "system"]


def test_thoughts_are_sent_back_only_where_they_are_wanted() -> None:
    """Most upstreams refuse or ignore the field."""
    assert body(Message("assistant", "So.", reasoning="Hm."))["messages"] == [{"role": "assistant", "content": "So."}]


@pytest.mark.parametrize(
    ("use", "described", "choice"),
    [
        (ToolUse((LOOK, RUN)), ["look", "run"], None),
        (ToolUse((LOOK, RUN), "none"), ["look", "run"], "none"),
        (ToolUse((LOOK, RUN), "required"), ["look", "run"], "required"),
        (ToolUse((LOOK, RUN), "required", frozenset({"run"})), ["run"], ONLY_RUN),
        (ToolUse((LOOK, RUN), "auto", frozenset({"look"})), ["look"], None),
    ],
)  # fmt: skip
def test_tools_and_the_choice_among_them(use: ToolUse, described: list[str], choice: object) -> None:
    """All, none, any, one, or some of the tools, in words that every upstream knows."""
    sent = body(tools=use)
    assert [tool["function"]["name"] for tool in sent["tools"]] == described
    assert sent.get("tool_choice") == choice
    assert "parallel_tool_calls" not in sent


def test_a_tool_is_described_whole() -> None:
    """Description, schema and strictness, and one call at a time if that is wanted."""
    sent = body(tools=ToolUse((LOOK, RUN), parallel=False))
    look = {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}
    assert [tool["function"] for tool in sent["tools"]] == [look, {"name": "run", "strict": True}]
    assert sent["parallel_tool_calls"] is False


def test_the_form_of_the_answer() -> None:
    """JSON objects and schemas are asked for as chat completions do."""
    assert body(output_format=OutputFormat("json_object"))["response_format"] == {"type": "json_object"}
    schema = OutputFormat("json_schema", {"type": "object"}, "cat", "A cat.", strict=True)
    assert body(output_format=schema)["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "cat", "schema": {"type": "object"}, "description": "A cat.", "strict": True},
    }


def test_differences_between_upstreams_are_minded() -> None:
    """The name of the length's bound, and whether a stream's usage can be asked for."""
    odd = Quirks(max_tokens_field="max_completion_tokens", stream_usage=False)
    assert body(max_tokens=7, stop=("a", "b"), stream=True) == {
        **body(stream=True),
        "max_tokens": 7,
        "stop": ["a", "b"],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    sent = body(max_tokens=7, stream=True, quirks=odd)
    assert (sent["max_completion_tokens"], "max_tokens" in sent, "stream_options" in sent) == (7, False, False)


def test_further_fields_go_through_but_none_of_ours() -> None:
    """What an upstream may know is passed on; sessions, callers and what the gateway says itself are not."""
    options = {"temperature": 0.2, "enable_thinking": True, "user": "ada", "session_id": "s", "model": "x", "n": 3}
    sent = body(options=options)
    assert {name: sent.get(name) for name in options} == {
        "temperature": 0.2,
        "enable_thinking": True,
        "user": None,
        "session_id": None,
        "model": "vendor-m",
        "n": None,
    }


def test_what_is_no_json_is_the_client_s_fault() -> None:
    """Infinity has no place in JSON; half a surrogate pair becomes a question mark."""
    calling = Message("assistant", "", tool_calls=(ToolCall("call_1", "weather", "{}"),))
    assert body(calling)["messages"][0]["content"] is None
    for messages in ((), (calling,)):
        with pytest.raises(InvalidRequest):
            body(*messages, options={"temperature": float("inf")})
    assert body(Message("user", "\ud83d!"))["messages"][0]["content"] == "?!"


async def test_key_and_headers_go_along_and_cookies_never() -> None:
    """The key as a bearer, the operator's headers, and no cookie that the upstream has set."""
    answer = {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}
    async with (
        raw_upstream(reply(answer, Set_Cookie="visitor=1; Path=/")) as upstream,
        provider_at(upstream.base_url, headers={"X-Team": "blue"}) as provider,
    ):
        for _ in range(2):
            await provider.create_completion(wanted())
    first, second = upstream.requests
    assert first.line == "POST /v1/chat/completions HTTP/1.1"
    assert (first.headers["authorization"], first.headers["x-team"]) == (f"Bearer {KEY}", "blue")
    assert first.headers["content-type"] == "application/json"
    assert "cookie" not in second.headers
    assert first.body["model"] == MODEL.upstream_id


@pytest.mark.parametrize(
    ("arguments", "mended"),
    [
        ('{"path": "al', {"path": "al"}),
        ('{"path": "a\\', {"path": "a"}),
        ('{"a": 1, "b": ', {"a": 1}),
        ('{"a": [1, {"b": "x', {"a": [1, {"b": "x"}]}),
        ("", {}),
        ("null", {}),
        ("not JSON", {}),
        ("[1]", {}),
        ('"{\\"a\\": 1}"', {"a": 1}),
    ],
)
def test_arguments_that_a_client_broke_off_are_mended(arguments: str, mended: object) -> None:
    """What goes up is always the text of an object, as much of it as was there."""
    (sent,) = body(Message("assistant", "", tool_calls=(ToolCall("a", "f", arguments),)))["messages"]
    assert json.loads(sent["tool_calls"][0]["function"]["arguments"]) == mended


def test_what_a_provider_added_goes_back_up_unless_that_is_refused() -> None:
    """A call's signature and the details of thoughts; strict upstreams refuse fields that they don't know."""
    signature, details = {"extra_content": {"signature": "c2ln"}}, {"reasoning_details": [{"text": "Hm."}]}
    message = Message("assistant", "", tool_calls=(ToolCall("a", "f", "{}", signature),), extras=details)
    (sent,) = body(message)["messages"]
    assert sent["tool_calls"][0]["extra_content"] == {"signature": "c2ln"}
    assert sent["reasoning_details"] == [{"text": "Hm."}]
    (strict,) = body(message, quirks=Quirks(takes_extras=False))["messages"]
    assert set(strict) == {"role", "content", "tool_calls"}
    assert set(strict["tool_calls"][0]) == {"id", "type", "function"}
