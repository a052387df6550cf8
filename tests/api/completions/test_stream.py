"""The chunks of a legacy completion as OpenAI's SDK reads them."""

import json
from typing import Any

import pytest
from openai._streaming import SSEDecoder
from openai.types import Completion

from app.api.completions.stream import CompletionEncoder
from app.domain.chat import FinishReason, ToolCallDelta, Usage
from app.domain.errors import UpstreamTimeout
from tests.api.answers import OPENING, ending


def _events(stream: bytes) -> list[str]:
    return [event.data for event in SSEDecoder().iter_bytes(iter([stream]))]


def _chunks(stream: bytes) -> list[dict[str, Any]]:
    *chunks, done = _events(stream)
    assert done == "[DONE]"
    return [json.loads(chunk) for chunk in chunks]


@pytest.mark.parametrize(
    ("reason", "told"), [("stop", "stop"), ("length", "length"), ("tool_calls", "stop"), ("content_filter",) * 2]
)
def test_a_stream_is_the_text_and_one_finish_reason(reason: FinishReason, told: str) -> None:
    """Pieces, then the reason; thoughts and tools leave no trace, and the SDK's type fits."""
    encoder = CompletionEncoder(OPENING, include_usage=False)
    stream = encoder.opening() + encoder.reasoning("Hm") + encoder.text("Hel") + encoder.text("lo")
    stream += encoder.tool_call(ToolCallDelta(0, "c", "f")) + encoder.ending(ending(reason))
    chunks = _chunks(stream)
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["Hel", "lo", ""]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, told]
    assert Completion.model_validate(chunks[-1]).model == "kimi"
    assert len({(chunk["id"], chunk["created"], chunk["object"]) for chunk in chunks}) == 1
    assert chunks[0]["id"].startswith("cmpl-")
    assert all("usage" not in chunk for chunk in chunks)


def test_the_prompt_comes_first_if_it_is_wanted_and_the_usage_last() -> None:
    """`echo` begins the stream with the prompt, `include_usage` ends it with the usage."""
    encoder = CompletionEncoder(OPENING, include_usage=True, echo="Once")
    chunks = _chunks(encoder.opening() + encoder.text(" upon") + encoder.ending(ending(usage=Usage(1, 2))))
    assert [chunk["choices"][0]["text"] for chunk in chunks[:-1]] == ["Once", " upon", ""]
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * 3
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["total_tokens"]) == ([], 3)


def test_a_failure_is_one_event_and_no_end() -> None:
    """No `[DONE]` makes half an answer look complete."""
    [event] = _events(
        CompletionEncoder(OPENING, include_usage=False).failure(UpstreamTimeout("Late.", param="messages"))
    )
    error = json.loads(event)["error"]
    assert (error["code"], error["param"]) == ("upstream_timeout", "prompt")
