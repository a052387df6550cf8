"""A whole completion, as an OpenAI SDK reads it."""

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from app.api.openai.write import write_completion
from app.domain.chat import Completion, FinishReason, ToolCall, Usage
from tests.api.answers import answer

CALLS = (ToolCall("c1", "look", '{"at":"sky"}'), ToolCall("c2", "wait", "{}"))


def _written(text: str, reason: FinishReason = "stop", *, legacy: bool = False, **fields: Any) -> ChatCompletion:
    body = write_completion([answer(text, reason, **fields)], legacy=legacy)
    return ChatCompletion.model_validate_json(body, strict=True)


def test_an_answer_is_one_choice() -> None:
    """Text, finish reason and usage are where the SDK looks for them, and all the fields that it expects are there."""
    document = json.loads(write_completion([answer("Hi.", usage=Usage(5, 6, 1, 2))], legacy=False))
    assert document.pop("id").startswith("chatcmpl-")
    assert document.pop("created") > 0
    assert document == {
        "object": "chat.completion",
        "model": "kimi",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi.", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 6,
            "total_tokens": 11,
            "prompt_tokens_details": {"cached_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
    }


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "content_filter"])
@pytest.mark.parametrize("legacy", [False, True])
def test_why_it_ended(reason: FinishReason, legacy: bool) -> None:
    """Every reason is one of the SDK's; only clients that speak of functions are told of a function call."""
    told = "function_call" if legacy and reason == "tool_calls" else reason
    assert _written("Hi.", reason, legacy=legacy).choices[0].finish_reason == told


@pytest.mark.parametrize(("text", "content"), [("", None), ("Let me see.", "Let me see.")])
def test_calls_are_told_in_order(text: str, content: str | None) -> None:
    """Each call has its id, name and arguments; content is null only if nothing else was said."""
    message = _written(text, "tool_calls", tool_calls=CALLS).choices[0].message
    assert (message.content, message.function_call) == (content, None)
    assert [call.to_dict() for call in message.tool_calls or ()] == [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in CALLS
    ]


def test_the_older_form_has_room_for_one_call() -> None:
    """Who speaks of functions is told of the first, and of no tools."""
    message = _written("", "tool_calls", legacy=True, tool_calls=CALLS).choices[0].message
    assert message.function_call is not None
    assert message.function_call.to_dict() == {"name": "look", "arguments": '{"at":"sky"}'}
    assert message.tool_calls is None


def test_an_answer_without_words_or_calls_is_empty_text() -> None:
    """Clients that add something to the content find a text to add to."""
    assert _written("").choices[0].message.content == ""


def test_thoughts_have_a_field_of_their_own() -> None:
    """What was thought is not part of the content, and the field is there only if there is something in it."""
    thoughtful, plain = _written("Hi.", reasoning="Hm.").choices[0].message, _written("Hi.").choices[0].message
    assert (thoughtful.content, thoughtful.model_extra) == ("Hi.", {"reasoning_content": "Hm."})
    assert plain.model_extra == {}


def test_refusals_and_extras_have_fields_of_their_own() -> None:
    """A refusal is no content; annotations, signatures and logprobs come as the provider wrote them."""
    signature = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    extras = {"logprobs": {"content": []}, "reasoning_details": [{"type": "reasoning.encrypted"}]}
    calls = (ToolCall("call_1", "now", "{}", signature),)
    (choice,) = json.loads(write_completion([answer("", refusal="I can't.", extras=extras)], legacy=False))["choices"]
    assert choice["logprobs"] == {"content": []}
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": "I can't.",
        "reasoning_details": [{"type": "reasoning.encrypted"}],
    }
    (choice,) = json.loads(write_completion([answer("", "tool_calls", tool_calls=calls)], legacy=False))["choices"]
    assert choice["message"]["tool_calls"][0]["extra_content"] == signature["extra_content"]


def test_several_answers_are_choices() -> None:
    """Each with its index, its message and its reason."""
    others = (Completion("Snow.", "length"),)
    choices = json.loads(write_completion([answer("Rain.", others=others)], legacy=False))["choices"]
    told = [(choice["index"], choice["message"]["content"], choice["finish_reason"]) for choice in choices]
    assert told == [(0, "Rain.", "stop"), (1, "Snow.", "length")]
