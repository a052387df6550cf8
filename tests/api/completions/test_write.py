"""Whole legacy completions, as OpenAI's SDK reads them."""

import pytest
from openai.types import Completion

from app.api.completions.write import write_completion
from app.domain.chat import FinishReason, ToolCall, Usage
from tests.api.answers import answer


def test_several_answers_are_the_choices_of_one_completion() -> None:
    """Each in its place, after what it is to begin with; their usage is added up."""
    answers = [answer("a", usage=Usage(1, 2)), answer("b", "length", usage=Usage(3, 4))]
    completion = Completion.model_validate_json(write_completion(answers, echoed=["One ", ""]), strict=True)
    assert [(choice.index, choice.text, choice.finish_reason) for choice in completion.choices] == [
        (0, "One a", "stop"),
        (1, "b", "length"),
    ]
    assert completion.id.startswith("cmpl-")
    assert (completion.object, completion.model) == ("text_completion", "kimi")
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (4, 6)


@pytest.mark.parametrize(
    ("reason", "told"), [("stop", "stop"), ("length", "length"), ("tool_calls", "stop"), ("content_filter",) * 2]
)
def test_thoughts_and_tools_have_no_place_here(reason: FinishReason, told: str) -> None:
    """Only the text is told, and a reason to end that this dialect knows."""
    whole = answer("Hi.", reason, reasoning="Hm.", tool_calls=(ToolCall("c", "look", "{}"),))
    body = write_completion([whole], echoed=[""])
    assert Completion.model_validate_json(body).choices[0].finish_reason == told
    assert b"look" not in body
    assert b"Hm." not in body
