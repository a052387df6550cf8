"""What blocks of content mean."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from app.api.anthropic.blocks import domain_messages
from app.api.anthropic.schemas import ContentBlock, WireMessage
from app.domain.chat import Image, Message, ToolCall
from app.domain.errors import InvalidRequest

_SYSTEM = TypeAdapter[Any](str | list[ContentBlock] | None)


def read(*messages: dict[str, Any], system: Any = None) -> tuple[Message, ...]:
    """The meaning of a conversation as it stands in a request."""
    return domain_messages(
        _SYSTEM.validate_python(system), [WireMessage.model_validate(message) for message in messages]
    )


def user(*blocks: dict[str, Any]) -> dict[str, Any]:
    """A user message of blocks."""
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: dict[str, Any]) -> dict[str, Any]:
    """An assistant message of blocks."""
    return {"role": "assistant", "content": list(blocks)}


def text(words: str) -> dict[str, Any]:
    """A text block, with a field that has no meaning here."""
    return {"type": "text", "text": words, "cache_control": {"type": "ephemeral"}}


def test_a_message_without_content_is_none() -> None:
    """Null means absent: clients write it for an answer that only called tools, or that was cancelled."""
    nothing = {"role": "assistant", "content": None}
    assert read(user(text("Hello")), nothing, {"role": "system", "content": None}) == (Message("user", "Hello"),)
    with pytest.raises(InvalidRequest, match="at least one message"):
        read({"role": "user", "content": None})


def test_strings_and_text_blocks_say_the_same() -> None:
    """A text is one however it is written; several blocks are joined."""
    assert read({"role": "user", "content": "Hello"}) == read(user(text("Hello"))) == (Message("user", "Hello"),)
    assert read(user(text("one"), text("two"))) == (Message("user", "one\ntwo"),)


@pytest.mark.parametrize(
    ("system", "said"),
    [
        ("Be brief.", "Be brief."),
        ([text("Be brief."), text("Be kind.")], "Be brief.\n\nBe kind."),
        ([text("x-anthropic-billing-header: cc_version=2.1;"), text("Be brief.")], "Be brief."),
    ],
)
def test_the_system_prompt_comes_first(system: Any, said: str) -> None:
    """A system prompt may be a text or blocks; a note to Anthropic's billing is no part of it."""
    assert read({"role": "user", "content": "Hi"}, system=system) == (Message("system", said), Message("user", "Hi"))


@pytest.mark.parametrize("system", [None, "", [], [text("x-anthropic-billing-header: cc_version=2.1;")]])
def test_an_empty_system_prompt_is_none(system: Any) -> None:
    """Nothing is made of a system prompt that says nothing."""
    assert read({"role": "user", "content": "Hi"}, system=system) == (Message("user", "Hi"),)


def test_a_system_message_may_stand_among_the_others() -> None:
    """Later instructions stay where they are."""
    messages = read({"role": "user", "content": "Hi"}, {"role": "system", "content": [text("Now in French.")]})
    assert messages == (Message("user", "Hi"), Message("system", "Now in French."))


def test_a_round_of_tools() -> None:
    """Tool uses become calls, each result a message of its own, and what the user adds comes after them."""
    weather = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Köln", "days": 2}}
    clock = {"type": "tool_use", "id": "toolu_2", "name": "clock", "input": {}}
    messages = read(
        {"role": "user", "content": "Weather and time?"},
        assistant(
            {"type": "thinking", "thinking": "Two tools.", "signature": "s"}, text("Let me see."), weather, clock
        ),
        user(
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": [text("rain"), text("wind")]},
            {"type": "tool_result", "tool_use_id": "toolu_2", "content": "no such clock", "is_error": True},
            text("And quickly."),
        ),
    )
    calls = (ToolCall("toolu_1", "weather", '{"city":"Köln","days":2}'), ToolCall("toolu_2", "clock", "{}"))
    assert messages[1:] == (
        Message("assistant", "Let me see.", tool_calls=calls, reasoning="Two tools."),
        Message("tool", "rain\nwind", tool_call_id="toolu_1"),
        Message("tool", "Error: no such clock", tool_call_id="toolu_2"),
        Message("user", "And quickly."),
    )


@pytest.mark.parametrize("content", [{}, {"content": None}, {"content": []}, {"content": ""}])
def test_a_tool_may_have_nothing_to_say(content: dict[str, Any]) -> None:
    """A result without content is an empty one, and an error that says so isn't told twice."""
    result = {"type": "tool_result", "tool_use_id": "toolu_1", **content}
    assert read(user(result)) == (Message("tool", "", tool_call_id="toolu_1"),)
    failed = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "Error: no", "is_error": True}
    assert read(user(failed))[0].text == "Error: no"


def test_images_keep_their_place() -> None:
    """Images come from base64 or an address, stand among the texts and know where in the request they were."""
    png = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}}
    web = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.jpg"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [png]}
    inner = Image("data:image/png;base64,iVBO", "messages.0.content.0.content.0")
    outer = Image("https://example.org/a.jpg", "messages.0.content.2")
    assert read(user(result, text("Look:"), web)) == (
        Message("tool", "[image]", tool_call_id="toolu_1", parts=(inner,)),
        Message("user", "Look:\n[image]", parts=("Look:", outer)),
    )


def test_documents_and_search_results_are_read_as_text() -> None:
    """A text document comes with its title, a search result with its address; their images stay images."""
    plain = {"type": "document", "title": "Notes", "context": "of May", "source": {"type": "text", "data": "Rain."}}
    blocks = {"type": "document", "source": {"type": "content", "content": [text("one"), text("two")]}}
    found = {"type": "search_result", "title": "A", "source": "https://example.org", "content": [text("Sun.")]}
    [message] = read(user(plain, blocks, found, {"type": "tool_reference", "tool_name": "clock"}))
    assert message.text.split("\n") == [
        *("Notes", "of May", "Rain."),
        *("one", "two"),
        *("A", "https://example.org", "Sun."),
        "(the tool clock)",
    ]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"type": "web_search_result", "url": "u"}]},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": {"type": "web_search_tool_result_error"}},
        {"type": "web_fetch_tool_result", "tool_use_id": "s", "content": {"type": "web_fetch_result", "content": {}}},
        {"type": "code_execution_tool_result", "tool_use_id": "s", "content": {"stdout": "1", "content": []}},
        {"type": "bash_code_execution_tool_result", "tool_use_id": "s", "content": {}},
        {"type": "tool_search_tool_result", "tool_use_id": "s", "content": {"tool_references": []}},
        {"type": "mcp_tool_use", "id": "m", "name": "n", "server_name": "s", "input": {}},
        {"type": "mcp_tool_result", "tool_use_id": "m", "is_error": False, "content": [text("done")]},
        {"type": "container_upload", "file_id": "f"},
        {"type": "redacted_thinking", "data": "x"},
    ],
    ids=lambda block: str(block["type"]),
)
def test_blocks_of_tools_that_ran_elsewhere_are_passed_over(block: dict[str, Any]) -> None:
    """What stands beside them stays, on both sides; a message of nothing else is none."""
    asked = user(text("Search."))
    assert read(asked, assistant(block, text("Found."), block)) == (
        Message("user", "Search."),
        Message("assistant", "Found."),
    )
    assert read(asked, assistant(block), user(block, text("And?"))) == (
        Message("user", "Search."),
        Message("user", "And?"),
    )


@pytest.mark.parametrize(
    ("message", "place"),
    [
        (user(text("a"), {"type": "video"}), "messages.0.content.1"),
        (user({"type": "text"}), "messages.0.content.0.text"),
        (user({"type": "tool_use", "id": "a", "name": "b", "input": {}}), "messages.0.content.0"),
        (user({"type": "tool_result", "content": "x"}), "messages.0.content.0.tool_use_id"),
        (user({"type": "tool_result", "tool_use_id": "a", "content": {"a": 1}}), "messages.0.content.0.content"),
        (
            user({"type": "tool_result", "tool_use_id": "a", "content": [{"type": "audio"}]}),
            "messages.0.content.0.content.0",
        ),
        (user({"type": "image", "source": {"type": "file", "file_id": "f"}}), "messages.0.content.0.source"),
        (user({"type": "image", "source": {"type": "url"}}), "messages.0.content.0.source.url"),
        (user({"type": "image"}), "messages.0.content.0.source"),
        (user({"type": "document", "source": {"type": "base64", "data": "JVBE"}}), "messages.0.content.0.source"),
        (user({"type": "search_result", "title": "A"}), "messages.0.content.0.content"),
        (assistant({"type": "image"}), "messages.0.content.0"),
        (assistant({"type": "tool_use", "name": "b"}), "messages.0.content.0.id"),
        (assistant({"type": "video"}), "messages.0.content.0"),
        ({"role": "system", "content": [{"type": "image"}]}, "messages.0.content.0"),
        ({"role": "user", "content": []}, "messages"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_place(message: dict[str, Any], place: str) -> None:
    """A block that can't be read, or lacks what it needs, is a fault that says where it is."""
    with pytest.raises(InvalidRequest) as caught:
        read(message)
    assert caught.value.param == place


def test_what_nobody_here_can_read_of_thoughts_is_left_out() -> None:
    """Redacted thinking is encrypted for somebody else."""
    [message] = read(assistant({"type": "redacted_thinking", "data": "x"}, text("Hi")))
    assert message == Message("assistant", "Hi")
