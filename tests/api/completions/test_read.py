"""The legacy completions dialect: what a request means, and its chunks as OpenAI's SDK reads them."""

import json
from typing import Any

import pytest
from app.api.bodies import parse_body
from app.api.completions.convert import ignored_params, prompts_of, to_calls
from app.api.completions.sse import CompletionEncoder
from app.api.headers import SessionHints
from openai._streaming import SSEDecoder
from openai.types import Completion

from app.api.completions.schemas import CompletionRequest
from app.chat.events import Ending
from app.domain.chat import ChatCall, FinishReason, Message, SessionRef, ToolCallDelta, Usage
from app.domain.errors import InvalidRequest, UpstreamTimeout

NO_HINTS = SessionHints(session=None, reset=False, strict=False, is_retry=False, idempotency_key=None, provider=None)
IN_SESSION = SessionHints(
    session=SessionRef("s", "header"), reset=False, strict=False, is_retry=False, idempotency_key=None, provider=None
)


def _parsed(**fields: Any) -> CompletionRequest:
    return parse_body(CompletionRequest, json.dumps({"prompt": "Once", **fields}).encode())


def _calls(hints: SessionHints = NO_HINTS, **fields: Any) -> list[ChatCall]:
    request = _parsed(**fields)
    return to_calls(request, prompts_of(request), hints, default_model="default")


def _encoder(*, include_usage: bool = False, echo: str = "") -> CompletionEncoder:
    return CompletionEncoder(
        completion_id="cmpl-1", created=1_700_000_000, model="kimi", include_usage=include_usage, echo=echo
    )


def _chunks(stream: bytes) -> list[dict[str, Any]]:
    *chunks, done = [event.data for event in SSEDecoder().iter_bytes(iter([stream]))]
    assert done == "[DONE]"
    return [json.loads(chunk) for chunk in chunks]


def test_a_prompt_is_a_users_message() -> None:
    """One call with the limits that the request names, and the rest for upstreams that know it."""
    [call] = _calls(model="kimi", max_tokens=7, stop=["a", ""], temperature=0.5, user="u")
    assert call.messages == (Message("user", "Once"),)
    assert (call.model, call.max_tokens, call.stop, call.session) == ("kimi", 7, ("a",), None)
    assert call.options["temperature"] == 0.5
    assert ignored_params(_parsed(temperature=0.5, user="u", frequency_penalty=1)) == [
        "frequency_penalty",
        "temperature",
    ]


def test_several_prompts_are_several_calls() -> None:
    """In their order, one conversation each."""
    assert [call.messages[0].text for call in _calls(prompt=["One", "Two"])] == ["One", "Two"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"prompt": ["x"] * 21}, "prompt"),
        ({"prompt": ["x", "y"], "stream": True}, "prompt"),
        ({"n": 2}, "n"),
        ({"best_of": 3}, "best_of"),
        ({"logprobs": 0}, None),
        ({"logprobs": 3}, "logprobs"),
        ({"suffix": "the end"}, "suffix"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ["x"] * 17}, "stop"),
    ],
)
def test_what_cant_be_done_is_refused_with_its_place(fields: dict[str, Any], param: str | None) -> None:
    """A 400 that names the field; logprobs of 0 tokens are none."""
    if param is None:
        assert _calls(**fields)
        return
    with pytest.raises(InvalidRequest) as refusal:
        _calls(**fields)
    assert refusal.value.param == param


def test_several_prompts_are_no_turns_of_a_session() -> None:
    """Nobody could say which of them came first."""
    with pytest.raises(InvalidRequest):
        _calls(IN_SESSION, prompt=["One", "Two"])
    assert _calls(IN_SESSION)[0].session == SessionRef("s", "header")


@pytest.mark.parametrize(
    ("reason", "told"), [("stop", "stop"), ("length", "length"), ("tool_calls", "stop"), ("content_filter",) * 2]
)
def test_a_stream_is_the_text_and_one_finish_reason(reason: FinishReason, told: str) -> None:
    """Pieces, then the reason; thoughts and tools leave no trace; every chunk fits the SDK's type."""
    encoder = _encoder()
    stream = encoder.opening() + encoder.reasoning("Hm") + encoder.text("Hel") + encoder.text("lo")
    stream += encoder.tool_call(ToolCallDelta(0, "c", "f")) + encoder.ending(Ending(reason, Usage(1, 2)))
    chunks = _chunks(stream)
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["Hel", "lo", ""]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, told]
    assert Completion.model_validate(chunks[-1]).id == "cmpl-1"
    assert all("usage" not in chunk for chunk in chunks)


def test_the_prompt_comes_first_if_it_is_wanted_and_the_usage_last() -> None:
    """`echo` begins the stream with the prompt, `include_usage` ends it with the usage."""
    encoder = _encoder(include_usage=True, echo="Once")
    chunks = _chunks(encoder.opening() + encoder.text(" upon") + encoder.ending(Ending("stop", Usage(1, 2))))
    assert [chunk["choices"][0]["text"] for chunk in chunks[:-1]] == ["Once", " upon", ""]
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * 3
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["total_tokens"]) == ([], 3)


def test_a_failure_is_one_event_and_no_end() -> None:
    """No `[DONE]` makes half an answer look complete."""
    events = [event.data for event in SSEDecoder().iter_bytes(iter([_encoder().failure(UpstreamTimeout("Late."))]))]
    assert [json.loads(event)["error"]["code"] for event in events] == ["upstream_timeout"]
