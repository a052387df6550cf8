"""Real SDKs through the gateway to an upstream with Gemini's form of API."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI

from tests.clients import native_upstreams, sdk
from tests.clients.native_upstreams import GEMINI, native_gateway
from tests.ledger.upstream import answers
from tests.live import UPSTREAM_KEY, LiveGateway
from tests.providers.openai_compatible.upstream import LAST_CHUNK, RawUpstream, chunked, event, reply

upstream, claude, chat = native_upstreams.upstream, native_upstreams.claude, native_upstreams.chat

STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
SCHEMA: Any = {"type": "object", "properties": {"city": {"type": "string"}}}
CALL = {"functionCall": {"name": "weather", "args": {"city": "Köln"}}, "thoughtSignature": "c2lnbmVk+/=="}
COUNTS = {"promptTokenCount": 9, "candidatesTokenCount": 4, "thoughtsTokenCount": 6, "totalTokenCount": 19}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LiveGateway, RawUpstream]]:
    """One gateway for all tests; each says how the upstream answers."""
    with native_gateway(tmp_path_factory.mktemp("native")) as both:
        yield both


def part_of(*parts: dict[str, Any], end: str | None = None) -> dict[str, Any]:
    """A document of an answer, or a whole one."""
    candidate = {"content": {"role": "model", "parts": list(parts)}, "finishReason": end}
    return {"candidates": [candidate], **({"usageMetadata": COUNTS} if end else {})}


def will_say(upstream: RawUpstream, *parts: dict[str, Any], stream: bool) -> None:
    """Answer every request so."""
    if stream:
        documents = [*map(part_of, parts), part_of(end="STOP")]
        answers(upstream, [*chunked(*map(event, documents)), LAST_CHUNK])
    else:
        answers(upstream, reply(part_of(*parts, end="STOP")))


@STREAMED
def test_chat_completions_keep_the_signature_of_a_call(chat: OpenAI, upstream: RawUpstream, stream: bool) -> None:
    """An OpenAI client that sends a call back as it came sends its thought's signature, which Gemini insists on."""
    will_say(upstream, {"text": "Hm.", "thought": True}, {"text": "Let me see."}, CALL, stream=stream)
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
    asked: Any = [{"role": "user", "content": "Köln?"}]
    arguments: Any = {"model": GEMINI, "tools": tools, "reasoning_effort": "low", "logit_bias": {"1": 2}}
    if stream:
        options: Any = {"include_usage": True}
        with chat.chat.completions.stream(messages=asked, stream_options=options, **arguments) as parts:
            answer: Any = parts.get_final_completion()
    else:
        raw = chat.chat.completions.with_raw_response.create(messages=asked, **arguments)
        assert raw.headers["x-ignored-params"] == "logit_bias"
        answer = raw.parse()
    message: Any = answer.choices[0].message.to_dict()
    assert (message["reasoning_content"], message["content"]) == ("Hm.", "Let me see.")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (9, 10)
    assert answer.usage.completion_tokens_details.reasoning_tokens == 6
    [call] = message["tool_calls"]
    will_say(upstream, {"text": "Sunny."}, stream=False)
    result: Any = {"role": "tool", "tool_call_id": call["id"], "content": "Sun."}
    last = chat.chat.completions.create(model=GEMINI, messages=[*asked, message, result], tools=tools)
    assert last.choices[0].message.content == "Sunny."
    first, second = upstream.requests
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    assert first.line.split()[1] == f"/v1beta/models/gemini-3-own-name:{method}"
    assert first.headers["x-goog-api-key"] == UPSTREAM_KEY
    assert first.body["generationConfig"]["thinkingConfig"] == {"includeThoughts": True, "thinkingLevel": "low"}
    assert second.body["contents"][1:] == [
        {"role": "model", "parts": [{"text": "Let me see."}, CALL]},
        {"role": "user", "parts": [{"functionResponse": {"name": "weather", "response": {"result": "Sun."}}}]},
    ]


@STREAMED
def test_messages_keep_the_signature_of_a_call(claude: Anthropic, upstream: RawUpstream, stream: bool) -> None:
    """So does Anthropic's SDK, which keeps what it doesn't know in a block."""
    will_say(upstream, {"text": "Hm.", "thought": True}, CALL, stream=stream)
    asked: Any = [{"role": "user", "content": "Köln?"}]
    arguments: Any = {
        "model": GEMINI,
        "max_tokens": 2000,
        "tools": [{"name": "weather", "input_schema": SCHEMA}],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    }
    if stream:
        with claude.messages.stream(messages=asked, **arguments) as parts:
            message: Any = parts.get_final_message()
    else:
        message = claude.messages.create(messages=asked, **arguments)
    thought, call = message.content
    assert (thought.thinking, call.name, call.input) == ("Hm.", "weather", {"city": "Köln"})
    will_say(upstream, {"text": "Sunny."}, stream=False)
    answered: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "Sun."}
    history = [*asked, {"role": "assistant", "content": [block.to_dict() for block in message.content]}]
    claude.messages.create(messages=[*history, {"role": "user", "content": [answered]}], **arguments)
    assert upstream.requests[-1].body["contents"][1] == {"role": "model", "parts": [CALL]}


def test_a_stream_that_breaks_off_is_no_answer(chat: OpenAI, upstream: RawUpstream) -> None:
    """After the first word an error is an event, and nobody takes what came for the whole."""
    error = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}
    for rest in ([event(error)], []):
        answers(upstream, chunked(event(part_of({"text": "One,"})), *rest))
        stream = iter(chat.chat.completions.create(model=GEMINI, messages=sdk.said("Hi"), stream=True))
        texts = [next(stream).choices[0].delta.content for _ in range(2)]
        assert "".join(text or "" for text in texts) == "One,"
        with pytest.raises(openai.APIError) as caught:
            list(stream)
        assert json.loads(json.dumps(caught.value.body))["code"] == "upstream_unavailable"
