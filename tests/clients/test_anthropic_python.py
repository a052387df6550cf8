"""Anthropic's Python SDK against a running gateway, when all goes well."""

from collections.abc import Iterator
from typing import Any, TextIO

import httpx
import pytest
from anthropic import Anthropic
from anthropic.types import Message, MessageParam, ModelInfo, ToolParam
from pydantic import BaseModel

from app.domain.chat import Completion, ToolCall, Usage
from app.domain.chat import Message as DomainMessage
from simulator.live import LiveSimulator
from tests.clients.anthropic_sdk import able, connect, gateway_with, in_parts, is_valid, said
from tests.live import ALICE_KEY, LiveGateway

MODEL = "kimi-k2-instruct-0905"
ABLE = "able-model"
WEATHER: ToolParam = {
    "name": "weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CALLS = (ToolCall("call_1", "weather", '{"city":"Köln"}'), ToolCall("call_2", "weather", '{"city":"Rome"}'))
TOOL_ANSWER = Completion("Let me see.", "tool_calls", Usage(50, 20, 10, 5), CALLS, "Two cities.")


@pytest.fixture
def claude(gateway: LiveGateway) -> Iterator[Anthropic]:
    """Anthropic's SDK with Alice's key, at a gateway with default settings."""
    with connect(gateway) as client:
        yield client


def text_of(message: Message) -> str:
    """All text of a message."""
    return "".join(block.text for block in message.content if block.type == "text")


def test_a_plain_message(claude: Anthropic, site: LiveSimulator) -> None:
    """A message is the site's reply in one text block, of the asked model, and valid in all its fields."""
    site.site.update(reply="Good day to you.")
    message = claude.messages.create(model=MODEL, max_tokens=100, messages=said("Hello"))
    Message.model_validate(message.to_dict(mode="json"), strict=True)
    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": "Good day to you."}]
    assert (message.model, message.role, message.stop_reason) == (MODEL, "assistant", "end_turn")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (2, 4)
    assert message.id.startswith("msg_")
    assert message._request_id


def test_a_stream(claude: Anthropic, site: LiveSimulator) -> None:
    """All events are valid, and the SDK makes of them what the message would be whole."""
    site.site.update(reply="Good day, 👋🏽 and goodbye.")
    with claude.messages.stream(model=MODEL, max_tokens=100, messages=said("Hello")) as stream:
        pieces = list(stream.text_stream)
        message = stream.get_final_message()
    raw = claude.messages.create(model=MODEL, max_tokens=100, messages=said("Hello"), stream=True)
    events = list(raw)
    assert all(is_valid(event) for event in events)
    assert [event.type for event in events[:2]] == ["message_start", "content_block_start"]
    assert "".join(pieces) == text_of(message) == "Good day, 👋🏽 and goodbye."
    assert len(pieces) > 3
    assert (message.stop_reason, message.usage.output_tokens) == ("end_turn", 8)
    assert message.usage.input_tokens == 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_sequence(claude: Anthropic, site: LiveSimulator, stream: bool) -> None:
    """The answer ends before the first stop sequence, and says which it was."""
    site.site.update(reply="one two three")
    arguments: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": 100,
        "messages": said("Count"),
        "stop_sequences": ["nine", " three"],
    }
    if stream:
        with claude.messages.stream(**arguments) as events:
            message: Message = events.get_final_message()
    else:
        message = claude.messages.create(**arguments)
    assert text_of(message) == "one two"
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", " three")


def test_max_tokens(claude: Anthropic, site: LiveSimulator) -> None:
    """The answer is cut after as many tokens as were asked for."""
    site.site.update(reply="x" * 100)
    message = claude.messages.create(model=MODEL, max_tokens=5, messages=said("Hello"))
    assert (text_of(message), message.stop_reason) == ("x" * 20, "max_tokens")


def test_a_whole_conversation_reaches_the_site(claude: Anthropic, site: LiveSimulator) -> None:
    """System prompt, turns and tool results stand in the one text that the site gets."""
    use = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "Rain."}
    messages: list[Any] = [
        {"role": "user", "content": "Rome?"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]
    claude.messages.create(model=MODEL, max_tokens=100, system="Be brief.", messages=messages)
    [sent] = site.site.messages
    assert all(words in sent.message for words in ("Be brief.", "Rome?", '{"city":"Rome"}', "Rain."))


def test_the_beta_client_is_served_too(claude: Anthropic, site: LiveSimulator) -> None:
    """`?beta=true` and its headers change nothing; fields without effect are named, others not."""
    site.site.update(reply="Hello.")
    response = claude.beta.messages.with_raw_response.create(
        model=MODEL,
        max_tokens=100,
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]}
        ],
        betas=["context-management-2025-06-27"],
        context_management={"edits": []},
        metadata={"user_id": "user_1"},
        extra_body={"temperature": 0.5},
    )
    assert response.headers["x-ignored-params"] == "context_management, temperature"
    assert response.headers["x-session-action"] == "stateless"
    assert response.headers["request-id"] == response.headers["x-request-id"]
    assert response.parse().content[0].to_dict() == {"type": "text", "text": "Hello."}


def test_a_session_by_its_header(claude: Anthropic, site: LiveSimulator) -> None:
    """Two lone turns under one X-Session-Id are one conversation."""
    headers = {"X-Session-Id": "ada"}
    for text in ("My name is Ada.", "What is my name?"):
        response = claude.messages.with_raw_response.create(
            model=MODEL, max_tokens=100, messages=said(text), extra_headers=headers
        )
    assert response.headers["x-session-action"] == "continued"
    assert "My name is Ada." in site.site.messages[-1].message


@pytest.mark.parametrize("stream", [False, True])
def test_a_round_of_tools(site: LiveSimulator, log_stream: TextIO, stream: bool) -> None:
    """Thoughts, text and calls come as blocks; sent back with results they are what the model said before."""
    provider = able(in_parts(TOOL_ANSWER) if stream else TOOL_ANSWER)
    arguments: dict[str, Any] = {
        "model": ABLE,
        "max_tokens": 500,
        "tools": [WEATHER],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": False},
    }
    conversation: list[MessageParam] = said("Weather?")
    with gateway_with(provider, site, log_stream) as gateway, connect(gateway) as client:
        if stream:
            with client.messages.stream(messages=conversation, **arguments) as events:
                assert all(is_valid(event) for event in events if event.type.startswith(("message", "content_block_d")))
                message: Message = events.get_final_message()
        else:
            message = client.messages.create(messages=conversation, **arguments)
        results: list[Any] = [
            {"type": "tool_result", "tool_use_id": block.id, "content": f"Rain in {block.input['city']}."}
            for block in message.content
            if block.type == "tool_use"
        ]
        conversation += [{"role": "assistant", "content": message.content}, {"role": "user", "content": results}]
        provider.answer = Completion("Rain.")
        last = client.messages.create(messages=conversation, **arguments)
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert message.stop_reason == "tool_use"
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (40, 10)
    assert text_of(last) == "Rain."
    first, second = provider.requests
    assert first.tools is not None
    assert [tool.name for tool in first.tools.tools] == ["weather"]
    assert second.messages == (
        DomainMessage("user", "Weather?"),
        DomainMessage("assistant", "Let me see.", tool_calls=CALLS, reasoning="Two cities."),
        DomainMessage("tool", "Rain in Köln.", tool_call_id="call_1"),
        DomainMessage("tool", "Rain in Rome.", tool_call_id="call_2"),
    )


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_at_the_site(claude: Anthropic, site: LiveSimulator, stream: bool) -> None:
    """The web chat, which knows no tools, can call one all the same."""
    call = '<|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>{"city":"Rome"}<|tool_call_end|>'
    site.site.update(reply=f"<|tool_calls_section_begin|>{call}<|tool_calls_section_end|>")
    arguments: dict[str, Any] = {"model": MODEL, "max_tokens": 100, "messages": said("Rome?"), "tools": [WEATHER]}
    if stream:
        with claude.messages.stream(**arguments) as events:
            message: Message = events.get_final_message()
    else:
        message = claude.messages.create(**arguments)
    [block] = message.content
    assert block.type == "tool_use"
    assert (block.name, block.input, message.stop_reason) == ("weather", {"city": "Rome"}, "tool_use")


def test_thoughts_are_only_for_those_who_want_them(site: LiveSimulator, log_stream: TextIO) -> None:
    """Without `thinking` the first block is the text, whole and streamed."""
    provider = able(in_parts(Completion("Yes.", reasoning="Hm.")))
    with gateway_with(provider, site, log_stream) as gateway, connect(gateway) as client:
        with client.messages.stream(model=ABLE, max_tokens=100, messages=said("So?")) as events:
            streamed = events.get_final_message()
        provider.answer = Completion("Yes.", reasoning="Hm.")
        whole = client.messages.create(model=ABLE, max_tokens=100, messages=said("So?"))
    assert [block.to_dict() for block in streamed.content] == [block.to_dict() for block in whole.content]
    assert [block.to_dict() for block in whole.content] == [{"type": "text", "text": "Yes."}]


class Weather(BaseModel):
    """What a model is to answer."""

    city: str
    rain: bool


def test_an_answer_by_a_schema(site: LiveSimulator, log_stream: TextIO) -> None:
    """The SDK's `parse` sends a schema, which reaches the model, and reads the answer by it."""
    provider = able(Completion('{"city":"Rome","rain":true}'))
    with gateway_with(provider, site, log_stream) as gateway, connect(gateway) as client:
        message = client.messages.parse(model=ABLE, max_tokens=100, messages=said("Rome?"), output_format=Weather)
    assert message.parsed_output == Weather(city="Rome", rain=True)
    [request] = provider.requests
    assert request.output_format.kind == "json_schema"
    assert request.output_format.schema is not None
    assert "rain" in str(request.output_format.schema["properties"])


def test_an_image_reaches_a_model_that_can_see(site: LiveSimulator, log_stream: TextIO) -> None:
    """A base64 image becomes a data URL."""
    provider = able(Completion("A dot."))
    source: Any = {"type": "base64", "media_type": "image/gif", "data": "R0lGODlhAQABAAAAACw="}
    content: Any = [{"type": "image", "source": source}, {"type": "text", "text": "What is this?"}]
    with gateway_with(provider, site, log_stream) as gateway, connect(gateway) as client:
        client.messages.create(model=ABLE, max_tokens=100, messages=[{"role": "user", "content": content}])
    [image] = provider.requests[0].messages[0].images
    assert image.url == "data:image/gif;base64,R0lGODlhAQABAAAAACw="


def test_a_silent_model_is_covered_by_pings(site: LiveSimulator, log_stream: TextIO) -> None:
    """The stream opens after the grace time and pings until there is something to say."""
    provider = able(in_parts(Completion("At last.")))
    provider.hold.clear()
    settings = {"stream_grace_seconds": 0.05, "heartbeat_seconds": 0.05}
    body = {"model": ABLE, "max_tokens": 100, "messages": said("Hello"), "stream": True}
    with (
        gateway_with(provider, site, log_stream, **settings) as gateway,
        gateway.client() as http,
        http.stream("POST", "/v1/messages", json=body) as response,
    ):
        kinds = []
        for line in response.iter_lines():
            if line.startswith("event: "):
                kinds.append(line.removeprefix("event: "))
            if kinds.count("ping") == 2 and not provider.hold.is_set():
                gateway.loop.call_soon_threadsafe(provider.hold.set)
                kinds.append("…")
    assert kinds[:2] == ["message_start", "ping"]
    assert kinds[-1] == "message_stop"
    assert "content_block_start" in kinds[kinds.index("…") :]


def test_tokens_are_counted(claude: Anthropic, site: LiveSimulator) -> None:
    """The count grows with system prompt and tools, and nothing is sent to the site."""
    count = claude.messages.count_tokens(model=MODEL, messages=said("x" * 400))
    more = claude.messages.count_tokens(model=MODEL, messages=said("x" * 400), system="Be brief.", tools=[WEATHER])
    assert count.input_tokens == 100
    assert more.input_tokens > 120
    assert site.site.messages == ()


def test_the_models_page_by_page(claude: Anthropic, gateway: LiveGateway) -> None:
    """The SDK finds every model that OpenAI's clients find, over as many pages as it takes, forwards and backwards."""
    with gateway.client() as http:
        openai = http.get("/v1/models").json()
    expected = [model["id"] for model in openai["data"]]
    assert openai["object"] == "list"
    models = list(claude.models.list(limit=1))
    assert [model.id for model in models] == expected
    assert [ModelInfo.model_validate_json(model.to_json(), strict=True).type for model in models] == ["model"] * 3
    before = claude.models.list(limit=1, before_id=expected[-1])
    assert [model.id for model in before.data] == [expected[-2]]
    assert (before.has_more, before.first_id, before.last_id) == (True, expected[-2], expected[-2])
    assert claude.models.retrieve("kimi").display_name == "kimi"


def test_the_probes_of_claude_code(gateway: LiveGateway) -> None:
    """HEAD answers on the bare address without a key, and on the messages with one, in either header."""
    assert httpx.head(f"{gateway.base_url}/", trust_env=False).status_code == 200
    for headers in ({"x-api-key": ALICE_KEY}, {"Authorization": f"Bearer {ALICE_KEY}"}):
        answer = httpx.head(f"{gateway.base_url}/v1/messages?beta=true", headers=headers, trust_env=False)
        assert answer.status_code == 200
