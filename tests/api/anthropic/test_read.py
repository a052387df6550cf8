"""From Anthropic's wire to what it means."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.anthropic.dialect import MESSAGES
from app.api.anthropic.read import count_tokens
from app.api.anthropic.schemas import CountTokensRequest
from app.api.dialects import Exchange
from app.api.wire.body import parse_body
from app.domain.chat import PLAIN_TEXT, ChatCall, Message, OutputFormat, SessionRef, Tool, ToolUse
from app.domain.errors import InvalidRequest, UpstreamTimeout
from tests.api.answers import OPENING, answer
from tests.api.reading import REQUEST_ID
from tests.api.reading import read as read_as
from tests.domain.strategies import UNTIMED

WEATHER = {"name": "weather", "description": "Of a city.", "input_schema": {"type": "object"}}
CLOCK: dict[str, Any] = {
    "name": "clock",
    "input_schema": {"type": "object", "properties": {}},
    "type": "custom",
    "strict": True,
}
FIRST = "messages.0.content.0"
SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}


def body(**fields: Any) -> bytes:
    """A request's body."""
    whole = {"model": "kimi", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}], **fields}
    return json.dumps(whole).encode()


def read(headers: dict[bytes, bytes] | None = None, /, **fields: Any) -> Exchange:
    """What is made of a request."""
    return read_as(MESSAGES, body(**fields), headers, max_messages=10)


def call(headers: dict[bytes, bytes] | None = None, /, **fields: Any) -> ChatCall:
    """What a request means."""
    (found,) = read(headers, **fields).calls
    return found


def test_the_smallest_request() -> None:
    """Model, messages and a limit are all that it takes."""
    assert call() == ChatCall(model="kimi", messages=(Message("user", "Hi"),), max_tokens=100)


def test_what_is_honoured() -> None:
    """Stop sequences, sampling and the system prompt reach the call; absent options don't."""
    found = call(system="Be brief.", stop_sequences=["END", ""], temperature=0.5, top_k=3, top_p=None)
    assert found.messages[0] == Message("system", "Be brief.")
    assert (found.stop, found.options) == (("END",), {"temperature": 0.5, "top_k": 3})


def test_only_the_header_opens_a_session() -> None:
    """Claude Code sends one user id with every conversation: it opens no session."""
    assert call(metadata={"user_id": "user_1_account__session_2"}).session is None
    assert call({b"x-session-id": b"s"}).session == SessionRef("s", "header")


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, {}),
        ({"type": "auto"}, {}),
        ({"type": "auto", "disable_parallel_tool_use": True}, {"parallel": False}),
        ({"type": "any"}, {"choice": "required"}),
        ({"type": "none"}, {"choice": "none"}),
        (
            {"type": "tool", "name": "clock", "disable_parallel_tool_use": True},
            {"choice": "required", "allowed": frozenset({"clock"}), "parallel": False},
        ),
    ],
)
def test_tools_and_their_choice(choice: dict[str, Any] | None, expected: dict[str, Any]) -> None:
    """The client's tools and each way to choose among them."""
    tools = (
        Tool("weather", "Of a city.", {"type": "object"}, place="tools.0.input_schema"),
        Tool("clock", "", CLOCK["input_schema"], strict=True, place="tools.1.input_schema"),
    )
    assert call(tools=[WEATHER, CLOCK], tool_choice=choice).tools == ToolUse(tools, **expected)


def test_a_tool_that_only_anthropic_can_serve_is_left_out_and_named() -> None:
    """Among others such a tool is left out, as a header says; a request that has no other is refused."""
    found = call(tools=[SEARCH, WEATHER]).tools
    assert found is not None
    assert [tool.name for tool in found.tools] == ["weather"]
    assert read(tools=[SEARCH, WEATHER]).unserved == ["tools.web_search"]
    with pytest.raises(InvalidRequest, match="web_search_20250305") as caught:
        call(tools=[SEARCH])
    assert caught.value.param == "tools.0"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [SEARCH, {"name": "a"}]}, "tools.1.input_schema"),
        ({"tools": [SEARCH, WEATHER, WEATHER]}, "tools.2.name"),
        ({"tools": [{"input_schema": {}}]}, "tools.0.name"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "clock"}}, "tool_choice"),
        ({"tools": [WEATHER, SEARCH], "tool_choice": {"type": "tool", "name": "web_search"}}, "tool_choice"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"stop_sequences": ["x"] * 65}, "stop_sequences"),
        ({"messages": [{"role": "user", "content": "Hi"}] * 11}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "Hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}, f"{FIRST}.type"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": 5}]}]},
            "messages.0.content.0.content",
        ),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": None}, "max_tokens"),
        ({"model": ""}, "model"),
        ({"system": [{"type": "text", "text": 1}]}, "system.0.text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"data": "AA"}}]}]},
            f"{FIRST}.source.type",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": 5}]}]}, f"{FIRST}.source"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
    ],
)
def test_a_fault_is_named_by_its_place(fields: dict[str, Any], param: str) -> None:
    """Whatever is wrong, the field at fault is named as Anthropic names it."""
    with pytest.raises(InvalidRequest) as caught:
        call(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"a"', b"\xff", body()[:-1] + b', "x": NaN}'])
def test_what_is_no_request_is_refused(content: bytes) -> None:
    """A body that is no JSON object is a fault of the request."""
    with pytest.raises(InvalidRequest):
        read_as(MESSAGES, content)


def test_a_body_may_begin_with_a_byte_order_mark() -> None:
    """Some editors put one before everything they write."""
    assert read_as(MESSAGES, b"\xef\xbb\xbf" + body()).calls == (call(),)


@pytest.mark.parametrize("thread", [{"type": "create"}, {"type": "continue", "previous_message_id": "msg_1"}])
def test_a_thread_is_refused(thread: dict[str, Any]) -> None:
    """A conversation that the server would have to keep is refused with the code that makes SDKs send all of it."""
    with pytest.raises(InvalidRequest) as refused:
        call(thread=thread)
    assert (refused.value.param, refused.value.code) == ("thread", "thread_unsupported_request")


def test_what_has_no_effect_is_named() -> None:
    """Unknown fields are named unless they change nothing about the answer; options are named apart."""
    exchange = read(
        metadata={},
        cache_control={},
        service_tier="auto",
        thinking={"type": "enabled", "budget_tokens": 1024},
        context_management={"edits": []},
        mcp_servers=[],
        container=None,
        temperature=1,
        **{"no header\n": 1},
    )
    assert exchange.unserved == ["context_management", "mcp_servers"]
    assert exchange.ignored == ["temperature"]


@pytest.mark.parametrize(
    ("thinking", "shown"),
    [
        (None, False),
        ({"type": "disabled"}, False),
        ({"type": "enabled", "budget_tokens": 1024}, True),
        ({"type": "adaptive"}, True),
        ({"type": "adaptive", "display": "omitted"}, False),
    ],
)
def test_thoughts_are_shown_to_those_who_ask(thinking: dict[str, Any] | None, shown: bool) -> None:
    """Thinking blocks are for clients that have switched thinking on, whole and streamed."""
    exchange = read(thinking=thinking)
    assert (b"Hm." in exchange.write([answer("Yes.", reasoning="Hm.")])) is shown
    assert (b"Hm." in exchange.encoder(OPENING).reasoning("Hm.")) is shown


def test_a_failure_in_a_stream_has_the_requests_id() -> None:
    """An event has no headers: the id that the log has is in it."""
    event = read(stream=True).encoder(OPENING).failure(UpstreamTimeout("Late."))
    assert json.loads(event.rpartition(b"data: ")[2])["request_id"] == REQUEST_ID


def test_a_schema_for_the_answer() -> None:
    """Both places in which a schema may come mean the same."""
    schema = {"type": "object"}
    wanted = {"type": "json_schema", "schema": schema}
    old = OutputFormat("json_schema", schema, strict=True, place="output_format")
    new = OutputFormat("json_schema", schema, strict=True, place="output_config.format")
    assert call(output_format=wanted).output_format == old
    assert call(output_config={"format": wanted, "effort": "high"}).output_format == new
    assert call(output_config={"effort": "high"}).output_format == PLAIN_TEXT


def counted(**fields: Any) -> int:
    """The tokens of a request."""
    return count_tokens(parse_body(CountTokensRequest, body(**fields)), max_messages=10)


def test_everything_that_is_sent_is_counted() -> None:
    """Texts at four bytes each; system prompt, tools and tool calls count too."""
    assert counted(messages=[{"role": "user", "content": "x" * 400}]) == 100
    bare = counted()
    assert counted(system="Be brief, always.") > bare
    assert counted(tools=[WEATHER]) > bare
    use = {"type": "tool_use", "id": "a", "name": "weather", "input": {"city": "Rome"}}
    assert counted(messages=[{"role": "assistant", "content": [use]}]) > bare


JUNK: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.just({}) | st.just([])
)
SOURCES = st.fixed_dictionaries(
    {"type": st.sampled_from(["base64", "url", "text", "content", "file"])},
    optional=dict.fromkeys(("data", "media_type", "url", "content"), JUNK),
)
KINDS = st.sampled_from(["text", "image", "document", "search_result", "tool_use", "tool_result", "thinking", "other"])


def blocks(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Lists of content blocks with these in their `content`."""
    fields = dict.fromkeys(("text", "id", "name", "input", "tool_use_id", "is_error", "thinking"), JUNK)
    block = st.fixed_dictionaries({"type": KINDS}, optional={**fields, "source": SOURCES | JUNK, "content": inner})
    return st.lists(block, max_size=2)


@UNTIMED
@given(role=st.sampled_from(["user", "assistant", "system"]), content=blocks(blocks(JUNK) | JUNK))
def test_no_content_is_a_riddle(role: str, content: Any) -> None:
    """Whatever stands in a message, it is understood or refused."""
    with contextlib.suppress(InvalidRequest):
        assert call(messages=[{"role": role, "content": content}]).messages
