import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.domain.chat import FinishReason
from app.domain.output_limiter import OutputLimiter
from app.domain.tokens import BYTES_PER_TOKEN, estimate
from tests.domain.strategies import UNTIMED, boundaries, graphemes

# Few letters, so that stop texts are met often; some graphemes are of several code points.
_GRAPHEMES = ("a", "b", "c", "月", "e\u0301", "🇩🇪", "👩‍👧", "\r\n")
_answers = st.lists(st.sampled_from(_GRAPHEMES), max_size=30).map("".join)
_any_stops = st.lists(st.lists(st.sampled_from("abc月"), min_size=1, max_size=4).map("".join), max_size=3)
# Of two stop texts, one in the middle of the other, the first to begin is not the first to be over.
_stops = _any_stops.filter(lambda stops: not any(one in other[1:-1] for one in stops for other in stops))
_limits = st.none() | st.integers(1, 12)


def _limited(parts: list[str], stop: list[str], max_tokens: int | None) -> tuple[str, FinishReason | None]:
    limiter = OutputLimiter(stop, max_tokens)
    text = "".join(limiter.feed(part) for part in parts) + limiter.finish()
    return text, limiter.finish_reason


def _reference(text: str, stop: list[str], max_tokens: int | None) -> tuple[str, FinishReason | None]:
    """The same for a whole text, said as plainly as possible."""
    found = min((text.index(one) for one in stop if one in text), default=None)
    shown = text if found is None else text[:found]
    if max_tokens is not None and len(shown.encode()) > max_tokens * BYTES_PER_TOKEN:
        fitting = [end for end in boundaries(shown) if len(shown[:end].encode()) <= max_tokens * BYTES_PER_TOKEN]
        return shown[: fitting[-1]], "length"
    return shown, None if found is None else "stop"


@pytest.mark.parametrize(
    ("parts", "stop", "max_tokens", "shown", "reason"),
    [
        (["Hello"], [], None, "Hello", None),
        (["Hello END world"], ["END"], None, "Hello ", "stop"),
        (["Hello E", "N", "D world"], ["END"], None, "Hello ", "stop"),
        (["Hello E", "N", "T"], ["END"], None, "Hello ENT", None),
        (["Hello EN"], ["END"], None, "Hello EN", None),
        (["aab"], ["ab"], None, "a", "stop"),
        (["a", "a", "b"], ["ab"], None, "a", "stop"),
        (["one two three"], ["three", "two"], None, "one ", "stop"),
        (["END"], ["END"], None, "", "stop"),
        (["Hello"], ["", "l"], None, "He", "stop"),
        (["Hello"], [""], None, "Hello", None),
        (["abcdefgh"], [], 2, "abcdefgh", None),
        (["abcdefghi"], [], 2, "abcdefgh", "length"),
        (["abcd", "efgh", "i"], [], 2, "abcdefgh", "length"),
        (["月月月"], [], 1, "月", "length"),
        (["👩‍👧👩‍👧"], [], 3, "👩‍👧", "length"),
        (["👩‍👧"], [], 1, "", "length"),
        (["abcdefgh END"], ["END"], 2, "abcdefgh", "length"),
        (["abcdefghEND"], ["END"], 2, "abcdefgh", "stop"),
        (["abcdefghE", "ND"], ["END"], 2, "abcdefgh", "stop"),
        (["abcdefghE", "NT"], ["END"], 2, "abcdefgh", "length"),
        (["abcdENDxxxxxxxxxxxxxx"], ["END"], 2, "abcd", "stop"),
    ],
)
def test_an_answer_ends_where_the_client_wants_it_to(
    parts: list[str], stop: list[str], max_tokens: int | None, shown: str, reason: FinishReason | None
) -> None:
    """The answer ends at the first stop text or the token limit, whichever comes first, and says which it was."""
    assert _limited(parts, stop, max_tokens) == (shown, reason)


@UNTIMED
@given(text=_answers, stop=_stops, max_tokens=_limits)
def test_a_whole_answer_is_cut_as_the_plain_rule_says(text: str, stop: list[str], max_tokens: int | None) -> None:
    """For any answer, the text shown and the reason given are those of the rule applied to the whole."""
    assert _limited([text], stop, max_tokens) == _reference(text, stop, max_tokens)


@UNTIMED
@given(text=_answers, stop=_stops, max_tokens=_limits, data=st.data())
def test_how_an_answer_is_split_makes_no_difference(
    text: str, stop: list[str], max_tokens: int | None, data: st.DataObject
) -> None:
    """An answer that comes in parts, cut between graphemes, is shown exactly as when it comes whole."""
    cuts = sorted(data.draw(st.lists(st.sampled_from(boundaries(text)), max_size=8)))
    parts = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert _limited(parts, stop, max_tokens) == _reference(text, stop, max_tokens)


@UNTIMED
@given(text=_answers, stop=_any_stops, max_tokens=_limits)
def test_what_is_shown_keeps_within_what_was_asked(text: str, stop: list[str], max_tokens: int | None) -> None:
    """Grapheme by grapheme, what is shown is a beginning of the answer, holds no stop text and not too many tokens."""
    shown, reason = _limited(graphemes(text), stop, max_tokens)
    assert text.startswith(shown)
    assert not any(one in shown for one in stop)
    assert max_tokens is None or estimate(shown) <= max_tokens
    assert (reason is None) == (shown == text)


@UNTIMED
@given(text=_answers, stop=_any_stops)
def test_nothing_is_held_back_that_is_no_beginning_of_a_stop_text(text: str, stop: list[str]) -> None:
    """While an answer comes, all is shown at once but an end that could still become a stop text."""
    assume(not any(one in text for one in stop))
    limiter = OutputLimiter(stop)
    shown = limiter.feed(text)
    held = text[len(shown) :]
    assert len(held) < max((len(one) for one in stop), default=1)
    assert not held or any(one.startswith(held) for one in stop)
    assert shown + limiter.finish() == text


def test_what_is_shown_while_an_answer_comes_splits_no_grapheme() -> None:
    """If a stop text could begin inside a grapheme, the whole grapheme waits."""
    limiter = OutputLimiter(["\u0301!"])
    assert [limiter.feed("cafe\u0301"), limiter.feed(" ok"), limiter.finish()] == ["caf", "e\u0301 ok", ""]


def test_after_the_end_nothing_more_is_shown() -> None:
    """Whatever comes after a stop text is swallowed, and the reason stays."""
    limiter = OutputLimiter(["END"], 100)
    assert limiter.feed("a END b") == "a "
    assert (limiter.feed(" END c"), limiter.finish(), limiter.finish_reason) == ("", "", "stop")


def test_what_was_held_back_is_shown_once() -> None:
    """Finishing twice doesn't repeat the end of the answer."""
    limiter = OutputLimiter(["END"])
    assert limiter.feed("a EN") == "a "
    assert (limiter.finish(), limiter.finish(), limiter.finish_reason) == ("EN", "", None)


@pytest.mark.parametrize("parts", [["abcd"], ["a", "b", "c", "d"], ["ab", "cd"]])
def test_of_two_stop_texts_the_one_that_is_complete_first_counts(parts: list[str]) -> None:
    """One stop text within another gives the same answer however it comes."""
    limiter = OutputLimiter(["abcd", "bc"])
    assert "".join(limiter.feed(part) for part in parts) + limiter.finish() == "a"
    assert limiter.finish_reason == "stop"
