"""What a chat completion request means, and what is wrong with one."""

import json
from typing import Any

import pytest
from hypothesis import given

from app.api.dialects import Exchange
from app.api.openai.dialect import CHAT_COMPLETIONS
from app.domain.chat import ChatCall, Image, Message, OutputFormat, SessionRef, ToolCall, ToolCallDelta
from app.domain.errors import InvalidRequest
from tests.api.answers import OPENING, answer
from tests.api.reading import read
from tests.domain.messages import assistant, system, tool, user
from tests.domain.strategies import UNTIMED, texts

HELLO = {"role": "user", "content": "Hello"}
F = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
G: dict[str, Any] = {"type": "function", "function": {"name": "g"}}


def _read(request: bytes | dict[str, Any], headers: dict[bytes, bytes] | None = None, **services: Any) -> Exchange:
    return read(CHAT_COMPLETIONS, request, headers, **services)


def _call(document: dict[str, Any]) -> ChatCall:
    (call,) = _read(document).calls
    return call


def _call_with(**fields: Any) -> ChatCall:
    return _call({"messages": [HELLO], **fields})


def _message(message: dict[str, Any]) -> Message:
    return _call({"messages": [message]}).messages[0]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"\xff\xfe", "JSON"),
        (b"{'messages': []}", "JSON"),
        (b'{"messages": [{"role": "user", "content": "\\ud83d"}]}', "JSON"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b"5", "must be a JSON object"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(body: bytes, says: str) -> None:
    """A body that can't be read at all is a 400 that says so; no field is to blame."""
    with pytest.raises(InvalidRequest, match=says) as caught:
        _read(body)
    assert (caught.value.status, caught.value.param) == (400, None)


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ({}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": ["Hello"]}, "messages[0]"),
        ({"messages": [HELLO, {"content": "x"}]}, "messages[1].role"),
        ({"messages": [{"role": "operator", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [HELLO, {"role": "user", "content": None}]}, "messages[1].content"),
        ({"messages": [{"role": "system", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "developer"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": {"type": "text"}}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "messages[0].content[0].text"),
        ({"messages": [{**HELLO, "name": 5}]}, "messages[0].name"),
        ({"messages": [{"role": "assistant", "tool_calls": "x"}]}, "messages[0].tool_calls"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": 5}}]}]},
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
def test_a_fault_in_the_messages_is_named_by_its_place(document: dict[str, Any], param: str) -> None:
    """A message of the wrong shape is a 400 whose `param` leads to the field at fault."""
    with pytest.raises(InvalidRequest) as caught:
        _call(document)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert caught.value.code is not None


@pytest.mark.parametrize("kind", ["input_audio", "file", "video_url"])
def test_content_that_is_neither_text_nor_image_is_refused_by_its_part(kind: str) -> None:
    """A sound or a file is a 400 that names the part and its type."""
    content = [{"type": "text", "text": "What is this?"}, {"type": kind, kind: {"url": "https://example.com/1.png"}}]
    with pytest.raises(InvalidRequest, match=kind) as caught:
        _call({"messages": [HELLO, {"role": "user", "content": content}]})
    assert (caught.value.param, caught.value.code) == ("messages[1].content[1].type", "invalid_value")
    assert "example.com" not in caught.value.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 0}, "n"),
        ({"n": "many"}, "n"),
        ({"model": 5}, "model"),
        ({"stream": "perhaps"}, "stream"),
        ({"stream_options": "usage"}, "stream_options"),
        ({"stream_options": {"include_usage": "perhaps"}}, "stream_options.include_usage"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -2}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"stop": 5}, "stop"),
        ({"stop": [5]}, "stop"),
        ({"stop": {"text": "x"}}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"user": 5}, "user"),
        ({"temperature": "hot"}, "temperature"),
        ({"tools": {}}, "tools"),
        ({"tools": ["search"]}, "tools[0]"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.schema"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [F, {"type": "custom"}]}, "tools[1].custom"),
        ({"tools": [F, {"type": "web_search"}]}, "tools[1].type"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
        ({"tools": [F, F]}, "tools[1].function.name"),
        ({"tools": [F], "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [F], "tool_choice": {"type": "function"}}, "tool_choice.function.name"),
        (
            {
                "tools": [F],
                "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": []}},
            },
            "tool_choice",
        ),
        ({"tools": [F], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
        ({"functions": [{"name": "f"}], "function_call": {"name": "g"}}, "tool_choice"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"modalities": "text"}, "modalities"),
    ],
)
def test_what_can_not_be_done_is_refused_by_its_field(fields: dict[str, Any], param: str) -> None:
    """A parameter that asks for the impossible, or is of the wrong type, is a 400 that names it."""
    with pytest.raises(InvalidRequest) as caught:
        _call_with(**fields)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_there_is_a_number_of_messages_that_is_too_many() -> None:
    """More messages than the gateway is set to read are a 400 that names the setting; as many are fine."""
    request = {"messages": [HELLO] * 3}
    assert len(_read(request, max_messages=3).calls[0].messages) == 3
    with pytest.raises(InvalidRequest, match="MAX_MESSAGES") as caught:
        _read(request, max_messages=2)
    assert caught.value.param == "messages"


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    """What a message holds doesn't get into an error's text, and from there into logs."""
    with pytest.raises(InvalidRequest) as caught:
        _call({"messages": [{"role": "user", "content": {"password": "hunter2-secret"}}], "n": "hunter2-secret"})
    assert "hunter2-secret" not in caught.value.message


@pytest.mark.parametrize(
    ("message", "meant"),
    [
        ({"role": "user", "content": "Hi", "name": "Alice"}, user("Hi", "Alice")),
        ({"role": "user", "content": ""}, user("")),
        ({"role": "user", "content": [{"type": "text", "text": "Hi"}]}, user("Hi")),
        ({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, user("a\nb")),
        ({"role": "user", "content": []}, user("")),
        ({"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {}}]}, user("a")),
        ({"role": "system", "content": "S"}, system("S")),
        ({"role": "developer", "content": "S"}, system("S")),
        ({"role": "assistant", "content": "A"}, assistant("A")),
        ({"role": "assistant"}, assistant("")),
        ({"role": "assistant", "content": None, "tool_calls": None}, assistant("")),
        ({"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, assistant("No.")),
        (
            {"role": "assistant", "content": "A", "reasoning_content": "hm", "audio": None},
            Message("assistant", "A", reasoning="hm"),
        ),
        (
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            assistant("", ToolCall("call_f", "f", "{}")),
        ),
        (
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            assistant("", ToolCall("c", "f", "{}")),
        ),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]},
            assistant("", ToolCall("call_0_0", "f", "{}")),
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "c", "name": "f", "arguments": {"a": "ü"}}]},
            assistant("", ToolCall("c", "f", '{"a":"ü"}')),
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}]},
            assistant("", ToolCall("c", "f", '{"input": "x"}')),
        ),
        ({"role": "tool", "content": "21", "tool_call_id": "c"}, tool("21", "c")),
        ({"role": "tool", "content": None, "tool_call_id": "c"}, tool("", "c")),
        ({"role": "function", "content": "21", "name": "f"}, Message("tool", "21", name="f", tool_call_id="call_f")),
    ],
)
def test_a_message_means_the_same_however_it_is_written(message: dict[str, Any], meant: Message) -> None:
    """Strings, parts and null, old and new role names: all that clients send is understood."""
    assert _message(message) == meant


@UNTIMED
@given(text=texts)
def test_any_text_is_taken_as_it_is(text: str) -> None:
    """Not a code point of a message is changed on the way in."""
    assert _message({"role": "user", "content": text}).text == text


def test_a_byte_order_mark_is_no_part_of_the_request() -> None:
    """Windows tools put one in front of JSON; it is passed over."""
    body = b"\xef\xbb\xbf" + json.dumps({"messages": [HELLO]}).encode()
    assert _read(body).calls[0].messages == (user("Hello"),)


@pytest.mark.parametrize(
    ("fields", "stop", "max_tokens"),
    [
        ({}, (), None),
        ({"stop": None, "max_tokens": None, "max_completion_tokens": None, "n": None}, (), None),
        ({"stop": "END"}, ("END",), None),
        ({"stop": ["a", "", "b"]}, ("a", "b"), None),
        ({"stop": []}, (), None),
        ({"stop": ""}, (), None),
        ({"stop": [str(number) for number in range(16)]}, tuple(str(number) for number in range(16)), None),
        ({"max_tokens": 5}, (), 5),
        ({"max_tokens": "5"}, (), 5),
        ({"max_tokens": -1}, (), None),
        ({"max_tokens": 5, "max_completion_tokens": -1}, (), 5),
        ({"max_completion_tokens": 7}, (), 7),
        ({"max_tokens": 5, "max_completion_tokens": 7}, (), 7),
        ({"n": 1}, (), None),
        ({"n": "1"}, (), None),
        ({"tool_choice": "auto", "response_format": {"type": "text"}, "modalities": ["text"]}, (), None),
        ({"tool_choice": "none", "response_format": {}, "modalities": []}, (), None),
    ],
)
def test_parameters_are_taken_leniently(fields: dict[str, Any], stop: tuple[str, ...], max_tokens: int | None) -> None:
    """Null means absent, numbers may come as text, one stop text needs no list, the newer limit wins."""
    call = _call_with(**fields)
    assert (call.stop, call.max_tokens) == (stop, max_tokens)


@pytest.mark.parametrize(
    ("fields", "choice", "allowed", "parallel"),
    [
        ({"tools": [F, G]}, "auto", None, True),
        ({"tools": [F, G], "tool_choice": "none"}, "none", None, True),
        (
            {"tools": [F, G], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}},
            "none",
            set(),
            True,
        ),
        ({"tools": [F, G], "tool_choice": "required", "parallel_tool_calls": False}, "required", None, False),
        ({"tools": [F, G], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "required", {"g"}, True),
        (
            {
                "tools": [F, G],
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
                },
            },
            "auto",
            {"f"},
            True,
        ),
        ({"functions": [F["function"], G["function"]], "function_call": {"name": "f"}}, "required", {"f"}, False),
        ({"functions": [F["function"], G["function"]], "function_call": "none"}, "none", None, False),
        ({"tools": [F, {**G["function"], "type": "function"}]}, "auto", None, True),
        ({"tools": [F, G["function"]], "tool_choice": {"type": "function", "name": "g"}}, "required", {"g"}, True),
        (
            {"tools": [F, {"type": "custom", **G["function"]}], "tool_choice": {"type": "custom", "name": "g"}},
            "required",
            {"g"},
            True,
        ),
        (
            {
                "tools": [F, {"type": "custom", "custom": G["function"]}],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "required",
                    "tools": [{"type": "custom", "name": "g"}],
                },
            },
            "required",
            {"g"},
            True,
        ),
    ],
)
def test_every_way_to_choose_a_tool_is_understood(
    fields: dict[str, Any], choice: str, allowed: set[str] | None, parallel: bool
) -> None:
    """Words, names, allowed tools and the older functions say whether, which, and how many to call."""
    use = _call_with(**fields).tools
    assert use is not None
    assert [tool.name for tool in use.tools] == ["f", "g"]
    assert use.tools[0].parameters == {"type": "object", "properties": {}}
    assert (use.choice, use.allowed, use.parallel) == (choice, allowed, parallel)


def test_the_form_of_the_answer_is_understood() -> None:
    """`response_format` becomes a form, its schema as it came, nested or beside the type."""
    schema = {"type": "object", "properties": {"schema": {"type": "string"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}
    assert _call_with(response_format=wanted).output_format == OutputFormat("json_schema", schema, "n", strict=True)
    flat = {"type": "json_schema", "name": "n", "schema": schema, "strict": True}
    assert _call_with(response_format=flat).output_format == OutputFormat("json_schema", schema, "n", strict=True)
    assert _call_with(response_format={"type": "json_object"}).output_format == OutputFormat("json_object")
    assert _call_with(response_format={"type": "text"}).output_format == OutputFormat("text")


def test_images_are_kept_in_their_place() -> None:
    """An image part stays between the texts, knows its place in the request, and is marked in the text."""
    parts = [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
    ]
    image = Image("data:image/png;base64,AA==", "messages[0].content[1]", "low")
    assert _message({"role": "user", "content": parts}) == Message("user", "a\n[image]", parts=("a", image))


@pytest.mark.parametrize(("model", "meant"), [(None, "default-model"), ("", "default-model"), ("a/b:c", "a/b:c")])
def test_the_model_is_the_one_asked_for_or_the_default(model: str | None, meant: str) -> None:
    """A request without a model is for the default model."""
    assert _call_with(model=model).model == meant
    assert _call({"messages": [HELLO]}).model == "default-model"


def test_what_the_headers_say_becomes_part_of_the_call() -> None:
    """Session, reset, strictness, retry, key and provider are carried over."""
    headers = {
        b"x-session-id": b"s1",
        b"x-session-reset": b"true",
        b"x-session-strict": b"true",
        b"x-stainless-retry-count": b"1",
        b"idempotency-key": b"k",
        b"x-provider": b"p",
    }
    (call,) = _read({"messages": [HELLO]}, headers).calls
    assert call == ChatCall(
        "default-model",
        (user("Hello"),),
        session=SessionRef("s1", "header"),
        reset=True,
        strict=True,
        is_retry=True,
        idempotency_key="k",
        provider="p",
    )


def test_user_opens_a_session_where_it_may() -> None:
    """Where SESSION_FROM_USER is off, nothing in the body opens a session."""
    request = {"messages": [HELLO], "user": "ada"}
    assert _read(request).calls[0].session == SessionRef("ada", "user")
    assert _read(request, session_from_user=False).calls == (ChatCall("default-model", (user("Hello"),)),)


def test_other_fields_go_along_for_upstreams_that_know_them() -> None:
    """What the gateway doesn't act on itself is kept, unknown fields included, and null ones are not."""
    call = _call_with(temperature=0.5, top_k=3, seed=None, stop="x", user="u", stream=True)
    assert call.options == {"temperature": 0.5, "top_k": 3}


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [
        ({}, []),
        ({"temperature": 0.2, "top_p": 1, "seed": 1}, ["seed", "temperature", "top_p"]),
        ({"temperature": None}, []),
        ({"presence_penalty": 0, "frequency_penalty": 0}, ["frequency_penalty", "presence_penalty"]),
        (
            {"logprobs": True, "top_logprobs": 2, "logit_bias": {"50256": -100}},
            ["logit_bias", "logprobs", "top_logprobs"],
        ),
        ({"tools": [F], "tool_choice": "auto", "parallel_tool_calls": False, "response_format": {}}, []),
        ({"top_k": 3, "repetition_penalty": 1.1}, ["repetition_penalty", "top_k"]),
        ({"stop": "x", "max_tokens": 1, "max_completion_tokens": 1, "n": 1, "user": "u", "model": "m"}, []),
        ({"stream": True, "stream_options": {"include_usage": True}}, []),
        (
            {"metadata": {}, "store": True, "service_tier": "auto", "safety_identifier": "x", "prompt_cache_key": "y"},
            [],
        ),
        ({"bad\r\nname": 1, "": 1, "ümlaut": 1, "x" * 65: 1, "good-name.1": 1}, ["good-name.1"]),
    ],
)
def test_parameters_without_effect_are_named(fields: dict[str, Any], ignored: list[str]) -> None:
    """What is accepted but can't be honoured is listed, in order and only by names that can stand in a header."""
    assert list(_read({"messages": [HELLO], **fields}).ignored) == ignored


@pytest.mark.parametrize(
    ("fields", "streamed"),
    [({}, False), ({"stream": None}, False), ({"stream": False}, False), ({"stream": True}, True)],
)
def test_a_stream_is_for_those_who_ask(fields: dict[str, Any], streamed: bool) -> None:
    """An answer comes whole unless `stream` says otherwise."""
    assert _read({"messages": [HELLO], **fields}).stream is streamed


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, False),
        ({"stream_options": None}, False),
        ({"stream_options": {}}, False),
        ({"stream_options": {"include_usage": True}}, True),
    ],
)
def test_the_usage_is_streamed_to_those_who_ask(fields: dict[str, Any], wanted: bool) -> None:
    """`include_usage` reaches the encoder of the stream."""
    encoder = _read({"messages": [HELLO], "stream": True, **fields}).encoder(OPENING)
    assert (b'"usage":null' in encoder.text("Hi")) is wanted


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"functions": [F["function"]]}, b'"function_call":{'),
        ({"functions": [F["function"]], "tools": [F]}, b'"tool_calls":[{'),
        ({"tools": [F]}, b'"tool_calls":[{'),
        ({"functions": []}, b'"tool_calls":[{'),
    ],
)
def test_who_speaks_of_functions_is_answered_with_one(fields: dict[str, Any], told: bytes) -> None:
    """The older form is for those who use it alone, whole and streamed; `tools` win over `functions`."""
    exchange = _read({"messages": [HELLO], **fields})
    assert told in exchange.write([answer("", "tool_calls", tool_calls=(ToolCall("c", "f", "{}"),))])
    assert told in exchange.encoder(OPENING).tool_call(ToolCallDelta(0, "c", "f", "{}"))


def test_unknown_fields_are_passed_on_as_they_came_whatever_their_names() -> None:
    """A field that is called like something of the model class is a field like any other, and null is absent."""
    exchange = _read(b'{"messages":[{"role":"user","content":"Hi"}],"model_dump":1,"json":null,"modalities":["text"]}')
    assert exchange.calls[0].options == {"model_dump": 1}
    assert exchange.ignored == ["model_dump"]


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning_content": "Hm."},
        {"reasoning": "Hm."},
        {"thinking": "Hm."},
        {"reasoning_details": [{"type": "reasoning.text", "text": "Hm."}]},
        {"content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "So."}]},
        {"content": [{"type": "reasoning", "text": "Hm."}, {"type": "text", "text": "So."}]},
    ],
)
def test_thoughts_of_a_history_are_read_under_any_name(fields: dict[str, Any]) -> None:
    """They are the assistant's thoughts, and not what it said."""
    sent = {"role": "assistant", "content": "So.", **fields}
    message = read(CHAT_COMPLETIONS, {"messages": [HELLO, sent, HELLO]}).calls[0].messages[1]
    assert (message.text, message.reasoning) == ("So.", "Hm.")


def test_marks_for_a_cache_are_named_as_ignored() -> None:
    """They have no place in a message here; the same word within a text is none of them."""
    part = {"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}
    assert "cache_control" in read(CHAT_COMPLETIONS, {"messages": [{"role": "user", "content": [part]}]}).unserved
    quoted = {"role": "user", "content": '{"cache_control": 1}'}
    assert not read(CHAT_COMPLETIONS, {"messages": [quoted]}).unserved


def test_what_a_provider_added_comes_back_with_the_history() -> None:
    """A call's signature and the details of thoughts; other unknown fields don't. A refusal is what was said."""
    signature = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    call = {"id": "a", "function": {"name": "f", "arguments": {"x": 1}}, "index": 0, **signature}
    details = {"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}
    history = [
        HELLO,
        {"role": "assistant", "tool_calls": [call], "audio": None, "x": 1, **details},
        {"role": "assistant", "content": None, "refusal": "I can't."},
        HELLO,
    ]
    _, called, refused, _ = read(CHAT_COMPLETIONS, {"messages": history}).calls[0].messages
    assert called.tool_calls == (ToolCall("a", "f", '{"x":1}', signature),)
    assert (called.extras, refused.text) == (details, "I can't.")
