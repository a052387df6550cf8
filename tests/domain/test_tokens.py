import pytest
from hypothesis import given

from app.domain.tokens import estimate, utf8_size
from tests.domain.strategies import UNTIMED, texts, wild_texts


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("月", 1), ("月月月月", 3), ("жж", 1), ("😀", 1), ("😀😀", 2)],
)
def test_a_token_is_four_bytes(text: str, tokens: int) -> None:
    """The documented estimate: four bytes of UTF-8 a token, rounded up, nothing for nothing."""
    assert estimate(text) == tokens


@UNTIMED
@given(text=texts)
def test_the_size_is_that_of_the_encoded_text(text: str) -> None:
    """The size is what the text takes on the wire."""
    assert utf8_size(text) == len(text.encode())


@UNTIMED
@given(first=wild_texts, second=wild_texts)
def test_estimates_add_up(first: str, second: str) -> None:
    """A text costs no more than its parts, at most one token less, and no text is too odd to be counted."""
    parts, whole = estimate(first) + estimate(second), estimate(first + second)
    assert parts - 1 <= whole <= parts
