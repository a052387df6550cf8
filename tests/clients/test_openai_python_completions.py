"""Legacy completions with the official Python SDK, against a running gateway."""

import pytest
from openai import BadRequestError, OpenAI

from simulator.live import LiveSimulator
from tests.clients.sdk import MODEL


def test_a_completion_plain_and_streamed(openai_client: OpenAI, site: LiveSimulator) -> None:
    """The same text both ways; `echo` begins it with the prompt, `stop` ends it."""
    site.site.update(reply="upon a time. The end.")
    plain = openai_client.completions.create(model=MODEL, prompt="Once ", echo=True, stop=" The")
    chunks = list(openai_client.completions.create(model=MODEL, prompt="Once ", echo=True, stop=" The", stream=True))
    assert plain.choices[0].text == "".join(chunk.choices[0].text for chunk in chunks) == "Once upon a time."
    assert plain.choices[0].finish_reason == chunks[-1].choices[0].finish_reason == "stop"
    assert (plain.object, plain.model, {chunk.id for chunk in chunks}) == (
        "text_completion",
        MODEL,
        {chunks[0].id},
    )


def test_several_prompts_get_an_answer_each(openai_client: OpenAI, site: LiveSimulator) -> None:
    """One choice for each, in order, and the usage of all together."""
    site.site.update(reply="yes")
    completion = openai_client.completions.create(model=MODEL, prompt=["One?", "Two?"], max_tokens=10)
    assert [(choice.index, choice.text) for choice in completion.choices] == [(0, "yes"), (1, "yes")]
    assert [message.message for message in site.site.messages] == ["One?", "Two?"]
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 2


def test_a_prompt_that_is_too_long_is_named_as_the_prompt(openai_client: OpenAI) -> None:
    """The error speaks of the field that was sent, streamed or not."""
    for stream in (False, True):
        with pytest.raises(BadRequestError) as refusal:
            openai_client.completions.create(model=MODEL, prompt="x" * 2000, stream=stream)
        assert (refusal.value.param, refusal.value.code) == ("prompt", "context_length_exceeded")
