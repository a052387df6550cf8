"""What OpenAI's two chat dialects share."""

import pytest

from app.api.wire.openai import stop_texts, usage_object
from app.domain.chat import Usage
from app.domain.errors import InvalidRequest


def test_usage_adds_up() -> None:
    """The total is the sum of what was read and written; details are there only if an upstream tells some."""
    assert usage_object(Usage(5, 0)) == {"prompt_tokens": 5, "completion_tokens": 0, "total_tokens": 5}
    assert usage_object(Usage(5, 4, cached_tokens=3))["prompt_tokens_details"] == {"cached_tokens": 3}
    assert usage_object(Usage(5, 4, reasoning_tokens=2))["completion_tokens_details"] == {"reasoning_tokens": 2}


@pytest.mark.parametrize(
    ("stop", "texts"), [(None, ()), ("", ()), ("END", ("END",)), ([], ()), (["a", "", "b"], ("a", "b"))]
)
def test_stop_texts_come_alone_or_as_a_list(stop: str | list[str] | None, texts: tuple[str, ...]) -> None:
    """Empty ones, which would end every answer before it began, are left out."""
    assert stop_texts(stop) == texts


def test_there_is_a_number_of_stop_texts_that_is_too_many() -> None:
    """The refusal says how many may come."""
    assert len(stop_texts(["x"] * 16)) == 16
    with pytest.raises(InvalidRequest, match="maximum length 16") as caught:
        stop_texts(["x"] * 17)
    assert caught.value.param == "stop"
