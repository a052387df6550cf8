"""Upstreams that imitate Anthropic's API, and get it wrong: real SDKs get the answer all the same, or a clear error."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI

from tests.clients import native_upstreams, sdk
from tests.clients.native_upstreams import CLAUDE, events, native_gateway
from tests.ledger.upstream import answers
from tests.live import LiveGateway
from tests.providers.openai_compatible.upstream import DONE, RawUpstream, delta, reply, stream

upstream, claude, chat = native_upstreams.upstream, native_upstreams.claude, native_upstreams.chat

Event = dict[str, Any]
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}}
BEGUN: Event = {"type": "message_start", "message": {"id": "msg_own", "type": "message", "role": "assistant",
                "model": "own", "content": [], "usage": {"input_tokens": 7, "output_tokens": 1}}}  # fmt: skip
LAST: Event = {"type": "message_stop"}
BETA = {"type": "tool_use", "name": "weather", "id": "b"}


def first(index: int | None, kind: str, **fields: Any) -> Event:
    """The beginning of a block."""
    return {"type": "content_block_start", "index": index, "content_block": {"type": kind, **fields}}


def said(index: int | None, text: str) -> Event:
    """A piece of text."""
    return {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": text}}


def put(index: int, piece: str) -> Event:
    """A piece of a call's input."""
    return {"type": "content_block_delta", "index": index, "delta": {"type": "input_json_delta", "partial_json": piece}}


def stop(index: int) -> Event:
    """The end of a block."""
    return {"type": "content_block_stop", "index": index}


def end(reason: str | None, **usage: int) -> Event:
    """The end of the message."""
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage or None}


TEXT, CALL = first(0, "text", text=""), first(1, "tool_use", name="weather", id="a", input={})
ENDED = (end("tool_use", output_tokens=9), LAST)
SPOKEN: list[Any] = [
    pytest.param([TEXT, said(0, "Let me "), said(0, "see."), CALL, put(1, '{"city":"Köln"}'), *ENDED], id="no-ends"),
    pytest.param([said(0, "Let me "), said(0, "see."), stop(0), CALL, put(1, '{"city":"Köln"}'), stop(1), *ENDED],
                 id="no-beginning"),
    pytest.param([TEXT, CALL, said(0, "Let me "), put(1, '{"city":'), said(0, "see."), put(1, '"Köln"}'), stop(0),
                  stop(1), *ENDED], id="two-blocks-at-a-time"),
    pytest.param([first(4, "text", text="Let me "), said(4, "see."), stop(4), {**CALL, "index": 9},
                  put(9, '{"city":"Köln"}'), stop(9), *ENDED], id="numbers-with-gaps"),
    pytest.param([TEXT, said(0, "Let me see."), stop(0), {**CALL, "index": 0}, put(0, '{"city":"Köln"}'), stop(0),
                  *ENDED], id="one-number-for-all"),
    pytest.param([TEXT, said(None, "Let me "), said(None, "see."), first(None, "tool_use", name="weather", id="a"),
                  {**put(0, '{"city":"Köln"}'), "index": None}, *ENDED], id="no-numbers"),
    pytest.param([TEXT, said(0, "Let me see."), stop(0), first(1, "tool_use", name="weather", id="a",
                  input={"city": "Köln"}), stop(1), *ENDED], id="input-with-the-beginning"),
    pytest.param([TEXT, said(0, "Let me see."), stop(0), CALL, put(1, '{"city":"Köln"}'), stop(1),
                  end(None, output_tokens=9), LAST], id="no-reason"),
    pytest.param([TEXT, said(0, "Let me see."), stop(0), CALL, put(1, '{"city":"Köln"}'), stop(1),
                  end("tool_use"), {"type": "message_delta", "usage": {"output_tokens": 9}}, LAST],
                 id="usage-by-itself"),
    pytest.param([{"type": ["x"]}, {"type": 5}, TEXT, said(0, "Let me see."), stop(0), CALL,
                  put(1, '{"city":"Köln"}'), stop(1), *ENDED], id="events-of-no-type"),
]  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LiveGateway, RawUpstream]]:
    """One gateway for all tests; each says how the upstream answers."""
    with native_gateway(tmp_path_factory.mktemp("odd")) as both:
        yield both


def asked(claude: Anthropic) -> anthropic.types.Message:
    """What Anthropic's SDK makes of a stream."""
    tools: Any = [{"name": "weather", "input_schema": WEATHER}]
    messages: Any = [{"role": "user", "content": "Köln?"}]
    with claude.messages.stream(model=CLAUDE, max_tokens=100, messages=messages, tools=tools) as parts:
        return parts.get_final_message()


def chatted(chat: OpenAI) -> Any:
    """What OpenAI's SDK makes of a stream."""
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}]
    with chat.chat.completions.stream(model=CLAUDE, messages=sdk.said("Köln?"), tools=tools) as parts:
        return parts.get_final_completion().choices[0]


@pytest.mark.parametrize("document", SPOKEN)
def test_an_odd_stream_is_read_as_it_was_meant(
    claude: Anthropic, chat: OpenAI, upstream: RawUpstream, document: list[Event]
) -> None:
    """Blocks come one after the other, each with its beginning and end, and with all that was said in them."""
    answers(upstream, events(BEGUN, *document))
    message = asked(claude)
    texts = "".join(block.text for block in message.content if block.type == "text")
    [call] = [block for block in message.content if block.type == "tool_use"]
    assert (texts, call.id, call.name, call.input) == ("Let me see.", "a", "weather", {"city": "Köln"})
    assert (message.stop_reason, message.usage.output_tokens) == ("tool_use", 9)
    choice = chatted(chat)
    assert (choice.message.content, choice.finish_reason) == ("Let me see.", "tool_calls")
    [called] = choice.message.tool_calls
    assert (called.id, called.function.name) == ("a", "weather")
    assert json.loads(called.function.arguments) == {"city": "Köln"}


def test_calls_at_a_time_come_one_after_the_other(claude: Anthropic, chat: OpenAI, upstream: RawUpstream) -> None:
    """Their pieces are never mixed, and the first of two with one id keeps it."""
    begun = [first(index, "tool_use", name="weather", id="a", input={}) for index in (0, 1)]
    mixed = [*begun, put(1, '{"city":"\ud83c'), put(0, '{"city":'), put(1, '\udf27"}'), put(0, '"b"}')]
    mixed += [stop(1), stop(0)]
    answers(upstream, events(BEGUN, *mixed, *ENDED))
    calls = [block for block in asked(claude).content if block.type == "tool_use"]
    assert [call.input for call in calls] == [{"city": "b"}, {"city": "🌧"}]
    assert calls[0].id == "a" != calls[1].id
    found = chatted(chat).message.tool_calls
    assert [call.function.arguments for call in found] == ['{"city":"b"}', '{"city":"🌧"}']
    assert len({call.id for call in found}) == 2


def test_half_a_character_waits_for_its_other_half(claude: Anthropic, upstream: RawUpstream) -> None:
    """Text that passes as it came is no exception."""
    answers(upstream, events(BEGUN, TEXT, said(0, "a\ud83d"), said(0, "\ude00b"), stop(0), end("end_turn"), LAST))
    [block] = asked(claude).content
    assert (block.type, getattr(block, "text", "")) == ("text", "a😀b")


def test_a_beginning_without_usage_has_an_estimate(claude: Anthropic, upstream: RawUpstream) -> None:
    """The SDK can't do without: it adds to what the beginning told."""
    begun = {"type": "message_start", "message": {"id": None, "content": None, "usage": None}}
    answers(upstream, events(begun, TEXT, said(0, "Hi."), stop(0), end("end_turn"), LAST))
    message = asked(claude)
    assert message.usage.input_tokens > 0
    assert message.usage.output_tokens > 0


def test_an_odd_message_is_read_whole(claude: Anthropic, chat: OpenAI, upstream: RawUpstream) -> None:
    """An input that is a text, blocks of nothing, one id for two calls, and neither usage nor reason."""
    content = [None, {"type": "text"}, {**BETA, "input": '{"city":"b"}'}, {**BETA, "input": None}]
    answers(upstream, reply({"content": content, "stop_reason": None}))
    messages: Any = [{"role": "user", "content": "Köln?"}]
    message = claude.messages.create(model=CLAUDE, max_tokens=100, messages=messages)
    calls = [block for block in message.content if block.type == "tool_use"]
    assert len(calls) == len(message.content)
    assert [call.input for call in calls] == [{"city": "b"}, {}]
    assert calls[0].id == "b" != calls[1].id
    assert (message.stop_reason, message.type, message.usage.output_tokens > 0) == ("tool_use", "message", True)
    completion = chat.chat.completions.create(model=CLAUDE, messages=sdk.said("Köln?"))
    found: Any = completion.choices[0].message.tool_calls
    assert [call.function.arguments for call in found] == ['{"city":"b"}', "{}"]


@pytest.mark.parametrize(
    "document",
    [
        pytest.param([first(0, "tool_use", id="a", input={}), stop(0), *ENDED], id="a-call-without-a-name"),
        pytest.param([put(3, '{"city":"b"}'), *ENDED], id="an-input-of-no-call"),
        pytest.param([CALL, put(1, '{"city":'), stop(1), *ENDED], id="an-input-without-end"),
        pytest.param([CALL, put(1, "[1]"), stop(1), *ENDED], id="an-input-that-is-no-object"),
        pytest.param([TEXT, stop(0), end("end_turn"), LAST], id="nothing-at-all"),
    ],
)
def test_what_makes_no_sense_is_an_error(chat: OpenAI, upstream: RawUpstream, document: list[Event]) -> None:
    """It is neither passed on nor dropped in silence."""
    answers(upstream, events(BEGUN, *document))
    with pytest.raises(openai.APIError) as caught:
        chatted(chat)
    assert caught.value.code in ("unexpected_reply", "empty_reply")


def test_a_stream_in_another_form_is_no_empty_message(claude: Anthropic, upstream: RawUpstream) -> None:
    """An upstream that speaks chat completions has none of the events that a message consists of."""
    answers(upstream, stream(delta(content="Hi."), delta("stop"), DONE))
    with pytest.raises(anthropic.APIStatusError, match="empty answer"):
        asked(claude)
