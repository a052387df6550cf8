"""From the wire of the responses dialect to what it means."""

from typing import Any

import pytest

from app.api.dialects import Exchange
from app.api.responses.dialect import RESPONSES
from app.api.responses.items import Placed, items_of_input, items_of_kept, kept_items, to_messages
from app.api.responses.schemas import ResponsesRequest
from app.domain.chat import ChatCall, Image, Message, OutputFormat, SessionRef, ToolCall
from app.domain.errors import InvalidRequest
from tests.api.reading import read

RESPONSE_ID = "resp_" + "0" * 32
CALL = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"}
PATCH = {"type": "custom_tool_call", "call_id": "c2", "name": "apply_patch", "input": "*** Begin"}


def _read(headers: dict[bytes, bytes] | None = None, /, **fields: Any) -> Exchange:
    return read(RESPONSES, {"input": "Hello", **fields}, headers, max_messages=9)


def _call(**fields: Any) -> ChatCall:
    (call,) = _read(**fields).calls
    return call


def _items(*items: dict[str, Any]) -> list[Placed]:
    return items_of_input(ResponsesRequest.model_validate({"input": list(items)}).input)


def _messages(*items: dict[str, Any]) -> list[Message]:
    return to_messages(_items(*items))


def _ignored(**fields: Any) -> list[str]:
    return list(_read(**fields).ignored)


def _unserved(**fields: Any) -> list[str]:
    return list(_read(**fields).unserved)


def test_a_text_is_a_users_message_after_the_instructions() -> None:
    """The shortest request: a text, and what it is to be answered by."""
    call = _call(instructions="Be brief.")
    assert call.messages == (Message("system", "Be brief."), Message("user", "Hello"))
    assert (call.model, call.max_tokens, call.tools, call.session) == ("default-model", None, None, None)


def test_messages_of_all_forms() -> None:
    """With and without a type, as a string and as parts, of every role."""
    assert _messages(
        {"role": "developer", "content": "Be brief."},
        {"type": "message", "role": "user", "content": [
            {"type": "input_text", "text": "One"}, {"type": "input_text", "text": "two"}]},
        {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [
            {"type": "output_text", "text": "Three", "annotations": []}, {"type": "refusal", "refusal": "no"}]},
    ) == [Message("system", "Be brief."), Message("user", "One\ntwo"), Message("assistant", "Three\nno")]  # fmt: skip


def test_images_keep_their_place_among_the_texts() -> None:
    """An image knows the field in which it came, so that a refusal can name it."""
    image = {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"}
    [message] = _messages({"role": "user", "content": [image, {"type": "input_text", "text": "What is it?"}]})
    assert message.parts == (Image("data:image/png;base64,AA==", "input[0].content[0]", "low"), "What is it?")
    assert message.text == "[image]\nWhat is it?"


def test_what_an_assistant_does_in_one_go_is_one_message() -> None:
    """Thoughts, words and calls belong together until a result or the user comes in between."""
    thought = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]}
    said = {"role": "assistant", "content": "Let me look."}
    calls = (ToolCall("c1", "weather", "{}"), ToolCall("c2", "apply_patch", '{"input": "*** Begin"}'))
    assert _messages(
        {"role": "user", "content": "Hi"},
        thought,
        said,
        CALL,
        PATCH,
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "done"}]},
        said,
        said,
    ) == [
        Message("user", "Hi"),
        Message("assistant", "Let me look.", tool_calls=calls, reasoning="Hm."),
        Message("tool", "rain", tool_call_id="c1"),
        Message("tool", "done", tool_call_id="c2"),
        Message("assistant", "Let me look."),
        Message("assistant", "Let me look."),
    ]


def test_a_call_in_a_namespace_has_the_name_that_the_model_knows() -> None:
    """The history speaks of tools as the list of tools does."""
    [message] = _messages({**CALL, "namespace": "mcp__files"})
    assert message.tool_calls[0].name == "mcp__files__weather"


def test_encrypted_thoughts_and_unknown_items_are_passed_over() -> None:
    """What can't be read, and what only a built-in tool could have made, breaks nothing; the latter is named."""
    items: list[dict[str, Any]] = [
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "xyz"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}},
        {"type": "tool_search_call", "arguments": {"a": 1}, "output": 7},
        {"role": "user", "content": "Hi"},
    ]
    assert _messages(*items) == [Message("user", "Hi")]
    assert _unserved(input=items) == ["input.tool_search_call", "input.web_search_call"]


def test_kept_items_mean_what_they_meant() -> None:
    """What is kept of a conversation has ids, and reads the same as what came."""
    items = _items(
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        CALL,
        PATCH,
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        {"type": "web_search_call", "id": "ws_1"},
    )
    kept = kept_items(items, RESPONSE_ID)
    assert to_messages(items_of_kept(kept, "previous_response_id")) == to_messages(items)
    assert len({item["id"] for item in kept}) == len(kept) == 5
    assert kept[0]["content"] == [{"type": "input_text", "text": "Hi"}]
    assert kept_items(items_of_kept(kept, ""), "resp_other") == kept


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"type": "text"}, OutputFormat()),
        ({"type": "json_object"}, OutputFormat("json_object", place="text.format")),
        (
            {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True},
            OutputFormat("json_schema", {"type": "object"}, "n", strict=True, place="text.format"),
        ),
    ],
)
def test_the_form_of_the_answer(form: dict[str, Any], expected: OutputFormat) -> None:
    """Text, any JSON object, or one that fits a schema."""
    assert _call(text={"format": form, "verbosity": "low"}).output_format == expected


def test_further_fields_have_the_names_that_upstreams_know() -> None:
    """Sampling and effort are passed on as chat completions would have them."""
    call = _call(
        temperature=0.5, reasoning={"effort": "low", "summary": "auto"}, text={"verbosity": "low"}, max_output_tokens=7
    )
    assert call.options == {"temperature": 0.5, "reasoning_effort": "low", "verbosity": "low"}
    assert call.max_tokens == 7


def test_what_has_no_effect_is_named_and_what_is_of_no_consequence_isnt() -> None:
    """A request as Codex sends it is accepted; what no upstream gets is named whoever answers."""
    fields: dict[str, Any] = {
        "include": ["reasoning.encrypted_content"],
        "store": False,
        "prompt_cache_key": "k",
        "client_metadata": {"a": "b"},
        "temperature": 1,
        "truncation": "auto",
        "tools": [{"type": "web_search"}],
        "service_tier": "auto",
        "unknown": 1,
    }
    assert (_ignored(**fields), _unserved(**fields)) == (["temperature"], ["tools.web_search", "truncation", "unknown"])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 7}, "input"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
            "input[0].content[0].type",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0].image_url",
        ),
        ({"input": [{"type": "function_call", "call_id": "x"}]}, "input[0].name"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": 1}]}, "input[0].output"),
        ({"input": [{"role": "user", "content": "x"}] * 10}, "input"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"metadata": {"a": 1}}, "metadata.a"),
    ],
)
def test_a_fault_is_refused_with_its_place(fields: dict[str, Any], param: str) -> None:
    """What can't be understood or done is a 400 that names the field."""
    with pytest.raises(InvalidRequest) as refusal:
        _call(**fields)
    assert refusal.value.param == param


def test_only_the_header_opens_a_session() -> None:
    """A user of this dialect has the responses themselves to go on from."""
    assert _call(user="ada").session is None
    assert _read({b"x-session-id": b"s"}).calls[0].session == SessionRef("s", "header")
