"""Real SDKs through the gateway to an upstream with Anthropic's form of API."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI

from tests.clients import anthropic_sdk, native_upstreams, sdk
from tests.clients.native_upstreams import CLAUDE, event, events, native_gateway, streamed
from tests.ledger.upstream import answers
from tests.live import ALICE_KEY, UPSTREAM_KEY, LiveGateway
from tests.providers.openai_compatible.upstream import RawUpstream, chunked, reply

upstream, claude, chat = native_upstreams.upstream, native_upstreams.claude, native_upstreams.chat

STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
THOUGHT = {"type": "thinking", "thinking": "Two cities, 👋🏽 then.", "signature": "EqQBCgIYAhIM+/signed=="}
SEALED = {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3sealed="}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "rome weather"}}
FOUND = {
    "type": "web_search_tool_result",
    "tool_use_id": "srvtoolu_1",
    "content": [
        {
            "type": "web_search_result",
            "url": "https://weather.test/rome",
            "title": "Rome",
            "encrypted_content": "Eo8BCgIY",
            "page_age": None,
        }
    ],
}
CITATION = {
    "type": "web_search_result_location",
    "url": "https://weather.test/rome",
    "title": "Rome",
    "encrypted_index": "Eo8C",
    "cited_text": "It rains.",
}
CITED = {"type": "text", "text": "It rains in Rome.", "citations": [CITATION]}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Köln", "at": 1.5}}
MESSAGE: dict[str, Any] = {
    "id": "msg_own",
    "type": "message",
    "role": "assistant",
    "model": "claude-own-name",
    "content": [THOUGHT, SEALED, SEARCH, FOUND, CITED, CALL],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 10,
        "cache_creation_input_tokens": 300,
        "cache_read_input_tokens": 2000,
        "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100},
        "output_tokens": 40,
        "server_tool_use": {"web_search_requests": 1, "web_fetch_requests": 0},
        "service_tier": "standard",
    },
}
EPHEMERAL = {"type": "ephemeral", "ttl": "1h"}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0xLjQK"}}
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
REQUEST: dict[str, Any] = {
    "max_tokens": 2048,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": EPHEMERAL}],
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "tools": [
        {"name": "weather", "input_schema": WEATHER, "cache_control": EPHEMERAL},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 2},
    ],
    "metadata": {"user_id": "user_1"},
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
                {**PDF, "citations": {"enabled": True}, "cache_control": EPHEMERAL},
                {"type": "text", "text": "Rome and Köln?"},
            ],
        },
        {"role": "assistant", "content": [THOUGHT, SEALED, SEARCH, FOUND, CITED, CALL]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [PDF]}]},
        {"role": "assistant", "content": [SEALED]},
        {"role": "user", "content": [{"type": "container_upload", "file_id": "file_1"}, {"type": "text", "text": "?"}]},
    ],
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LiveGateway, RawUpstream]]:
    """One gateway for all tests; each says how the upstream answers."""
    with native_gateway(tmp_path_factory.mktemp("native"), answer_cache_seconds=600) as both:
        yield both


def will_say(upstream: RawUpstream, message: dict[str, Any], *, stream: bool) -> None:
    """Answer every request so."""
    answers(upstream, events(*streamed(message)) if stream else reply(message))


def block(text: str) -> dict[str, Any]:
    """A block of text."""
    return {"type": "text", "text": text}


def saying(*content: dict[str, Any], reason: str = "end_turn") -> dict[str, Any]:
    """A message of such blocks."""
    return {**MESSAGE, "content": list(content), "stop_reason": reason}


@STREAMED
def test_nothing_is_lost_between_the_sdk_and_anthropic(claude: Anthropic, upstream: RawUpstream, stream: bool) -> None:
    """Request and answer are what they would be without the gateway, byte for byte, but for the model's name."""
    will_say(upstream, MESSAGE, stream=stream)
    arguments = {"model": CLAUDE, **REQUEST}
    headers = {"anthropic-beta": "files-api-2025-04-14"}
    if stream:
        with claude.messages.stream(**arguments, extra_headers=headers) as parts:
            message = parts.get_final_message()
            ignored = parts.response.headers.get("x-ignored-params")
    else:
        raw = claude.messages.with_raw_response.create(**arguments, extra_headers=headers)
        message, ignored = raw.parse(), raw.headers.get("x-ignored-params")
    assert ignored is None
    [sent] = upstream.requests
    assert sent.line.split()[1].endswith("/messages")
    told = {name: value for name, value in sent.body.items() if name != "stream"}
    assert json.dumps(told, sort_keys=True) == json.dumps({**REQUEST, "model": "claude-own-name"}, sort_keys=True)
    assert json.dumps(told["messages"]) == json.dumps(REQUEST["messages"])
    assert sent.body["stream"] is stream
    assert (sent.headers["x-api-key"], sent.headers["anthropic-beta"]) == (UPSTREAM_KEY, headers["anthropic-beta"])
    assert sent.headers["anthropic-version"] == claude.default_headers["anthropic-version"]
    assert ALICE_KEY not in str(sent.headers)
    answer = json.loads(message.to_json())
    answer["usage"] = {name: value for name, value in answer["usage"].items() if value is not None}
    expected = json.loads(json.dumps({**MESSAGE, "model": CLAUDE}))
    assert {name: answer[name] for name in expected} == expected
    assert [json.dumps(each, sort_keys=True) for each in answer["content"]] == [
        json.dumps(each, sort_keys=True) for each in MESSAGE["content"]
    ]


def test_the_events_pass_one_by_one(claude: Anthropic, upstream: RawUpstream) -> None:
    """A stream's events are the upstream's own, in their order; only pings are the gateway's business."""
    will_say(upstream, MESSAGE, stream=True)
    with claude.messages.with_streaming_response.create(model=CLAUDE, **REQUEST, stream=True) as response:
        text = response.read().decode()
    documents = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    expected = [each for each in streamed(MESSAGE) if each["type"] != "ping"]
    expected[0]["message"]["model"] = CLAUDE
    assert documents == expected


@STREAMED
def test_a_kept_answer_loses_nothing_either(claude: Anthropic, upstream: RawUpstream, stream: bool) -> None:
    """Signed thoughts, citations and all counts are there again, whole and in events."""
    will_say(upstream, MESSAGE, stream=stream)
    asking = {"Cache-Control": "max-age=60"}
    told = []
    for _ in range(2):
        with claude.messages.with_streaming_response.create(
            model=CLAUDE, **REQUEST, stream=stream, extra_headers=asking
        ) as response:
            told.append((response.headers["x-cache"], response.read()))
    (first, answer), (second, again) = told
    assert (first, second) == ("MISS", "HIT")
    assert answer == again
    assert len(upstream.requests) == 1


@STREAMED
@pytest.mark.parametrize("reason", ["pause_turn", "refusal", "model_context_window_exceeded", "end_turn"])
def test_ends_that_only_anthropic_knows_stay(
    claude: Anthropic, upstream: RawUpstream, stream: bool, reason: str
) -> None:
    """An answer of nothing, or a pause of the model's, is passed on as what it is."""
    will_say(upstream, saying(reason=reason), stream=stream)
    arguments: dict[str, Any] = {"model": CLAUDE, "max_tokens": 9, "messages": anthropic_sdk.said("Hi")}
    if stream:
        with claude.messages.stream(**arguments) as parts:
            message = parts.get_final_message()
    else:
        message = claude.messages.create(**arguments)
    assert (message.content, message.stop_reason, message.id) == ([], reason, "msg_own")


def test_a_session_s_history_is_added_and_the_rest_stays(claude: Anthropic, upstream: RawUpstream) -> None:
    """With a session the gateway adds what was said before; what the client sends now is sent as it came."""
    headers = {"X-Session-Id": "ada"}
    will_say(upstream, saying(THOUGHT, block("Hello, Ada.")), stream=False)
    first = [{**block("I am Ada."), "cache_control": EPHEMERAL}]
    second = [{**block("Who am I?"), "cache_control": EPHEMERAL}, PDF]
    for content in (first, second):
        messages: Any = [{"role": "user", "content": content}]
        raw = claude.messages.with_raw_response.create(
            model=CLAUDE,
            max_tokens=9,
            system=REQUEST["system"],
            messages=messages,
            extra_headers=headers,
        )
    assert raw.headers["x-session-action"] == "continued"
    sent = upstream.requests[-1].body
    assert sent["system"] == REQUEST["system"]
    assert sent["messages"] == [
        {"role": "user", "content": [block("I am Ada.")]},
        {"role": "assistant", "content": [block("Hello, Ada.")]},
        {"role": "user", "content": second},
    ]


def test_what_only_anthropic_can_do_is_asked_of_nobody_else(claude: Anthropic, upstream: RawUpstream) -> None:
    """In a route, files and server tools pass over upstreams of other forms; alone, such an upstream refuses them."""
    will_say(upstream, MESSAGE, stream=False)
    messages: Any = [{"role": "user", "content": [PDF, block("?")]}]
    search: Any = REQUEST["tools"][1:]
    raw = claude.messages.with_raw_response.create(model="either", max_tokens=9, messages=messages, tools=search)
    assert raw.headers["x-provider"] == "claude"
    answers(upstream, reply({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "529 O"))
    with pytest.raises(anthropic.APIStatusError):
        claude.messages.create(model="either", max_tokens=9, messages=messages)
    with pytest.raises(anthropic.BadRequestError, match="files are not supported"):
        claude.messages.create(model="kimi-k2-instruct", max_tokens=9, messages=messages)
    with pytest.raises(anthropic.BadRequestError, match="web_search"):
        claude.messages.create(model="kimi-k2-instruct", max_tokens=9, messages=anthropic_sdk.said("?"), tools=search)
    assert claude.messages.count_tokens(model=CLAUDE, messages=messages, tools=search).input_tokens > 0


TOOL: Any = {"type": "function", "function": {"name": "weather", "description": "Weather.", "parameters": WEATHER}}
PICTURE: Any = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
ASKED: list[Any] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Where is it?"}, PICTURE]},
]


@STREAMED
def test_chat_completions_keep_thoughts_calls_and_images(chat: OpenAI, upstream: RawUpstream, stream: bool) -> None:
    """An OpenAI client's round of tools: what it sends back reaches the vendor with the thought's signature."""
    will_say(upstream, saying(THOUGHT, SEALED, block("Let me see."), CALL, reason="tool_use"), stream=stream)
    arguments: dict[str, Any] = {"model": CLAUDE, "tools": [TOOL], "tool_choice": "required", "temperature": 1.5}
    if stream:
        options: Any = {"include_usage": True}
        with chat.chat.completions.stream(messages=ASKED, stream_options=options, **arguments) as parts:
            answer: Any = parts.get_final_completion()
    else:
        answer = chat.chat.completions.create(messages=ASKED, **arguments)
    message: Any = answer.choices[0].message.to_dict()
    [call] = message["tool_calls"]
    assert (message["content"], message["reasoning_content"]) == ("Let me see.", THOUGHT["thinking"])
    assert (call["id"], json.loads(call["function"]["arguments"])) == ("toolu_1", CALL["input"])
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2310, 40)
    assert answer.usage.prompt_tokens_details.cached_tokens == 2000
    will_say(upstream, saying(block("Köln.")), stream=False)
    result: Any = {"role": "tool", "tool_call_id": call["id"], "content": "Sunny."}
    last = chat.chat.completions.create(model=CLAUDE, messages=[*ASKED, message, result], tools=[TOOL])
    assert last.choices[0].message.content == "Köln."
    first, second = (sent.body for sent in upstream.requests)
    assert (first["system"], first["tool_choice"], first["temperature"]) == ("Be brief.", {"type": "any"}, 1)
    assert first["tools"] == [{"name": "weather", "description": "Weather.", "input_schema": WEATHER}]
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    assert first["messages"] == [{"role": "user", "content": [block("Where is it?"), image]}]
    assert second["messages"][1:] == [
        {"role": "assistant", "content": [THOUGHT, SEALED, block("Let me see."), CALL]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "Sunny."}]},
    ]


@STREAMED
def test_responses_keep_calls_images_and_citations(chat: OpenAI, upstream: RawUpstream, stream: bool) -> None:
    """The Responses API: thoughts, cited text and a call are items of their own, which go back as they were."""
    will_say(upstream, saying(THOUGHT, CITED, CALL, reason="tool_use"), stream=stream)
    tools: Any = [{"type": "function", "name": "weather", "parameters": WEATHER, "strict": False}]
    asked: Any = [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Where?"},
                {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}"},
            ],
        }
    ]
    if stream:
        with chat.responses.stream(model=CLAUDE, input=asked, tools=tools) as parts:
            for _ in parts:
                pass
            answer: Any = parts.get_final_response()
    else:
        answer = chat.responses.create(model=CLAUDE, input=asked, tools=tools)
    assert [item.type for item in answer.output] == ["reasoning", "message", "function_call"]
    assert answer.output_text == CITED["text"]
    [note] = answer.output[1].content[0].annotations
    assert (note.url, note.start_index, note.end_index) == (CITATION["url"], 0, len(str(CITED["text"])))
    will_say(upstream, saying(block("Köln.")), stream=False)
    result: Any = {"type": "function_call_output", "call_id": "toolu_1", "output": "Sunny."}
    last = chat.responses.create(model=CLAUDE, input=[result], tools=tools, previous_response_id=answer.id)
    assert last.output_text == "Köln."
    sent = upstream.requests[-1].body["messages"]
    assert sent[0]["content"][1]["source"]["data"] == PIXEL
    assert sent[1]["content"] == [THOUGHT, block(str(CITED["text"])), CALL]
    assert sent[2]["content"] == [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "Sunny."}]


def failing(kind: str, message: str, status: str, **headers: str) -> list[bytes]:
    """An error as Anthropic sends it."""
    return reply({"type": "error", "error": {"type": kind, "message": message}}, status, **headers)


@STREAMED
@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (failing("authentication_error", "invalid x-api-key", "401 U"), 502, "api_error", "upstream_key_rejected"),
        (
            failing("rate_limit_error", "Too many tokens.", "429 T", retry_after="0"),
            *(429, "rate_limit_error", "upstream_rate_limited"),
        ),
        (failing("overloaded_error", "Overloaded", "529 O"), 503, "overloaded_error", "upstream_unavailable"),
        (failing("invalid_request_error", "thinking: no.", "400 B"), 400, "invalid_request_error", None),
    ],
    ids=["key", "rate", "overloaded", "invalid"],
)
def test_an_error_has_its_meaning_in_both_dialects(
    claude: Anthropic,
    chat: OpenAI,
    upstream: RawUpstream,
    stream: bool,
    error: list[bytes],
    status: int,
    kind: str,
    code: str | None,
) -> None:
    """Keys, limits, overload and wrong requests are told apart, and nobody's key is in the message."""
    answers(upstream, error)
    with pytest.raises(anthropic.APIStatusError) as caught:
        claude.messages.create(model=CLAUDE, max_tokens=9, messages=anthropic_sdk.said("Hi"), stream=stream)
    body: Any = caught.value.body
    assert (caught.value.status_code, body["error"]["type"]) == (status, kind)
    with pytest.raises(openai.APIStatusError) as also:
        chat.chat.completions.create(model=CLAUDE, messages=sdk.said("Hi"), stream=stream)
    assert (also.value.status_code, also.value.code) == (status, code)
    if status == 429:
        assert "retry-after" in caught.value.response.headers
    assert UPSTREAM_KEY not in f"{caught.value.body}{also.value.body}"


@pytest.mark.parametrize("ending", ["an error", "the connection's end"])
def test_a_stream_that_breaks_off_is_no_answer(claude: Anthropic, upstream: RawUpstream, ending: str) -> None:
    """After the first word an error is an event, and nothing makes the answer look complete."""
    parts = list(streamed(saying(block("One, two."))))[:4]
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    answers(upstream, chunked(*map(event, [*parts, *([overloaded] if ending == "an error" else [])])))
    arguments: Any = {"model": CLAUDE, "max_tokens": 9, "messages": anthropic_sdk.said("Hi"), "stream": True}
    told = iter(claude.messages.create(**arguments))
    seen = [next(told).type for _ in range(3)]
    assert seen == ["message_start", "content_block_start", "content_block_delta"]
    with pytest.raises(anthropic.APIStatusError) as caught:
        next(told)
    body: Any = caught.value.body
    assert body["error"]["type"] == "overloaded_error"


def test_a_stream_that_fails_before_a_word_has_its_status(claude: Anthropic, upstream: RawUpstream) -> None:
    """An error right after the message's beginning is an HTTP error: nothing has been said yet."""
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    begun = next(iter(streamed(saying(block("One.")))))
    answers(upstream, events(begun, {"type": "ping"}, overloaded))
    with pytest.raises(anthropic.APIStatusError) as caught:
        claude.messages.create(model=CLAUDE, max_tokens=9, messages=anthropic_sdk.said("Hi"), stream=True)
    assert caught.value.status_code == 503


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"Model": "another"}, "Model is not a field"),
        ({"models": ["another"]}, "models is not passed on"),
        ({"plugins": [{"id": "fusion", "model": "another"}]}, "plugins is not passed on"),
        ({"tools": [{"type": "advisor_20260301", "name": "advisor", "model": "another"}]}, "tools.0.model"),
    ],
)
def test_no_other_model_is_sent(claude: Anthropic, upstream: RawUpstream, fields: dict[str, Any], named: str) -> None:
    """Under no spelling, in no list and in no tool: another model than the one that was allowed could answer."""
    with pytest.raises(anthropic.BadRequestError, match=named):
        claude.messages.create(model=CLAUDE, max_tokens=9, messages=anthropic_sdk.said("Hi"), extra_body=fields)
    assert upstream.requests == []
