"""Upstreams with Gemini's form of API that answer in odd shapes: real SDKs get the answer, or a clear error."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from google import genai
from openai import OpenAI

from tests.clients import google_sdk, native_upstreams, sdk
from tests.clients.native_upstreams import GEMINI, native_gateway
from tests.ledger.upstream import answers
from tests.live import LiveGateway
from tests.providers.openai_compatible.upstream import RawUpstream, chunked, event, reply, stream

upstream, chat = native_upstreams.upstream, native_upstreams.chat

Document = dict[str, Any]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LiveGateway, RawUpstream]]:
    """One gateway for all tests; each says how the upstream answers."""
    with native_gateway(tmp_path_factory.mktemp("odd")) as both:
        yield both


@pytest.fixture
def gemini(served: tuple[LiveGateway, RawUpstream]) -> Iterator[genai.Client]:
    """Google's SDK."""
    with google_sdk.connect(served[0]) as client:
        yield client


def part_of(*parts: Document, end: str | None = None, **more: Any) -> Document:
    """A document of an answer."""
    return {"candidates": [{"content": {"role": "model", "parts": list(parts)}, "finishReason": end}], **more}


def call(**fields: Any) -> Document:
    """A part that calls."""
    return {"functionCall": fields}


def texts_of(gemini: genai.Client) -> list[str | None]:
    """What Google's SDK reads of a stream, document by document."""
    return [part.text for part in gemini.models.generate_content_stream(model=GEMINI, contents="Hi")]


def chatted(chat: OpenAI) -> Any:
    """What OpenAI's SDK makes of a stream."""
    with chat.chat.completions.stream(model=GEMINI, messages=sdk.said("Hi")) as parts:
        return parts.get_final_completion().choices[0]


ARRAY = [part_of({"text": "Rain "}), part_of({"text": "on the "}), part_of({"text": "roof."}, end="STOP")]


def test_a_stream_that_is_an_array_is_read(chat: OpenAI, gemini: genai.Client, upstream: RawUpstream) -> None:
    """That is Gemini's form for clients that don't ask for events, and of proxies that don't pass the question on."""
    answers(upstream, reply(ARRAY))
    assert chatted(chat).message.content == "Rain on the roof."
    assert chat.chat.completions.create(model=GEMINI, messages=sdk.said("Hi")).choices[0].message.content == (
        "Rain on the roof."
    )
    assert "".join(text or "" for text in texts_of(gemini)) == "Rain on the roof."


def test_an_error_within_an_array_is_an_error(chat: OpenAI, upstream: RawUpstream) -> None:
    """What came before it is no answer."""
    error = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}
    answers(upstream, reply([*ARRAY[:2], error]))
    with pytest.raises(openai.APIStatusError, match="overloaded") as caught:
        chatted(chat)
    assert caught.value.status_code == 503


def test_calls_are_told_apart_and_have_objects_as_arguments(chat: OpenAI, upstream: RawUpstream) -> None:
    """The first of two with one id keeps it, and arguments may be a text, or nothing."""
    calls = [call(id="c", name="f", args='{"city":"b"}'), call(id="c", name="f", args=None), call(name="f")]
    answers(upstream, stream(event(part_of(*calls, end="STOP"))))
    found = chatted(chat).message.tool_calls
    assert [each.function.arguments for each in found] == ['{"city":"b"}', "{}", "{}"]
    assert found[0].id == "c"
    assert len({each.id for each in found}) == len(calls)


@pytest.mark.parametrize("odd", [call(args={}), call(name="f", args=[1]), call(name="f", args="{")])
def test_calls_that_make_no_sense_are_an_error(chat: OpenAI, upstream: RawUpstream, odd: Document) -> None:
    """Nobody is told to call a function without a name, or with anything but an object."""
    answers(upstream, stream(event(part_of(odd, end="STOP"))))
    with pytest.raises(openai.APIError) as caught:
        chatted(chat)
    assert caught.value.code == "unexpected_reply"


def test_half_a_character_waits_for_its_other_half(gemini: genai.Client, upstream: RawUpstream) -> None:
    """Documents that pass as they came are no exception."""
    pieces = (
        b'{"candidates":[{"content":{"parts":[{"text":"a\\ud83d"}]}}]}',
        (b'{"candidates":[{"content":{"parts":[{"text":"\\ude00b"}]},"finishReason":"STOP"}]}'),
    )
    answers(upstream, chunked(*[b"data: " + piece + b"\n\n" for piece in pieces], b"data: [DONE]\n\n"))
    assert "".join(text or "" for text in texts_of(gemini)) == "a😀b"


def test_a_prompt_that_is_blocked_has_no_answer(gemini: genai.Client, upstream: RawUpstream) -> None:
    """A stream of nothing but the reason ends with it: no answer that stopped by itself comes behind."""
    answers(upstream, stream(event({"promptFeedback": {"blockReason": "SAFETY"}})))
    [document] = gemini.models.generate_content_stream(model=GEMINI, contents="Hi")
    assert document.prompt_feedback is not None
    assert str(document.prompt_feedback.block_reason).endswith("SAFETY")
    assert not document.candidates
