import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.chunking import boundary_after, boundary_before, paced_pieces, pieces
from tests.domain.strategies import UNTIMED, ascii_texts, boundaries, graphemes, texts, wild_texts


def _ends(parts: list[str]) -> list[int]:
    places = [0]
    for part in parts:
        places.append(places[-1] + len(part))
    return places


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ("", 3, []),
        ("abcdefg", 3, ["abc", "def", "g"]),
        ("abcdef", 3, ["abc", "def"]),
        ("ab", 3, ["ab"]),
        ("a\r\nb", 2, ["a\r\n", "b"]),
        ("👩‍👩‍👧‍👦👍🏽🇩🇪🇫🇷e\u0301", 1, ["👩‍👩‍👧‍👦", "👍🏽", "🇩🇪", "🇫🇷", "e\u0301"]),
        ("👩‍👩‍👧‍👦👍🏽🇩🇪🇫🇷e\u0301", 2, ["👩‍👩‍👧‍👦👍🏽", "🇩🇪🇫🇷", "e\u0301"]),
        ("你好吗", 2, ["你好", "吗"]),
    ],
)
def test_a_text_is_cut_into_pieces_of_so_many_graphemes(text: str, size: int, expected: list[str]) -> None:
    """A piece holds `size` of what a reader sees as characters; only the last one may hold fewer."""
    assert list(pieces(text, size)) == expected


@UNTIMED
@given(text=wild_texts | ascii_texts, size=st.integers(1, 7))
def test_pieces_are_the_text_again_and_split_no_grapheme(text: str, size: int) -> None:
    """For any text the pieces join to it, end between graphemes, and all but the last are of the full size."""
    parts = list(pieces(text, size))
    assert "".join(parts) == text
    assert set(_ends(parts)) <= set(boundaries(text))
    sizes = [len(graphemes(part)) for part in parts]
    assert all(count == size for count in sizes[:-1])
    assert all(1 <= count <= size for count in sizes[-1:])


@UNTIMED
@given(
    text=st.builds(lambda text, times: text * times, texts, st.integers(1, 20)),
    size=st.integers(1, 5),
    delay_ms=st.integers(1, 500),
    ceiling_ms=st.integers(0, 3000),
)
def test_typing_out_never_takes_longer_than_its_ceiling(text: str, size: int, delay_ms: int, ceiling_ms: int) -> None:
    """Whatever the text, its pieces with a delay between each two stay within the ceiling, whole and well cut."""
    parts = list(paced_pieces(text, size=size, delay=delay_ms / 1000, ceiling=ceiling_ms / 1000))
    assert (len(parts) - 1) * delay_ms <= ceiling_ms
    assert "".join(parts) == text
    assert set(_ends(parts)) <= set(boundaries(text))


def test_a_text_that_fits_the_ceiling_keeps_its_piece_size() -> None:
    """Pieces are not made larger than they have to be."""
    assert list(paced_pieces("abcdef", size=2, delay=0.5, ceiling=1.0)) == ["ab", "cd", "ef"]


def test_a_text_too_long_for_the_ceiling_gets_larger_pieces() -> None:
    """The number of pieces falls to what the ceiling allows, by joining neighbours."""
    assert list(paced_pieces("abcdefgh", size=2, delay=0.5, ceiling=0.5)) == ["abcd", "efgh"]


def test_a_ceiling_of_nothing_shows_the_text_at_once() -> None:
    """With no time to type in, everything is one piece."""
    assert list(paced_pieces("abcdefgh", size=2, delay=0.5, ceiling=0)) == ["abcdefgh"]


def test_without_a_delay_the_ceiling_is_of_no_account() -> None:
    """Pieces that cost no time keep their size however many they are."""
    assert list(paced_pieces("abcdefgh", size=1, delay=0, ceiling=0)) == list("abcdefgh")


@pytest.mark.parametrize("delay", [0, 0.02])
@pytest.mark.parametrize("word", ["word ", "你好世界", "🇩🇪", "👩‍👩‍👧‍👦x"])
def test_a_huge_text_is_cut_as_it_is_read(word: str, delay: float) -> None:
    """The first piece comes without cutting the rest, and the pieces are never all there at once."""
    text = word * 20_000
    tracemalloc.start()
    try:
        parts = iter(paced_pieces(text, size=4, delay=delay, ceiling=3))
        assert next(parts)
        assert tracemalloc.get_traced_memory()[1] < 20_000
        assert sum(map(len, parts)) < len(text)
        assert tracemalloc.get_traced_memory()[1] < 20_000 + 5 * len(text)
    finally:
        tracemalloc.stop()


@UNTIMED
@given(text=texts, data=st.data())
def test_boundaries_are_the_nearest_ones(text: str, data: st.DataObject) -> None:
    """For any place in any text, the boundary found is the nearest one on the side asked for."""
    index = data.draw(st.integers(0, len(text)))
    places = boundaries(text)
    assert boundary_before(text, index) == max(place for place in places if place <= index)
    assert boundary_after(text, index) == min(place for place in places if place >= index)


@pytest.mark.parametrize(("index", "expected"), [(-1, 0), (0, 0), (3, 3), (4, 3)])
def test_a_place_outside_of_the_text_becomes_its_nearest_end(index: int, expected: int) -> None:
    """The boundary before a place that is not in the text is an end of the text."""
    assert boundary_before("abc", index) == expected


@pytest.mark.parametrize("lead", ["", "a", "🇫🇷", "x" * 300])
def test_flags_are_paired_from_the_first_one_on(lead: str) -> None:
    """In a run of flags, in which every code point looks alike, cuts still fall between whole flags."""
    text = lead + "🇩🇪" * 100
    places = set(boundaries(text))
    assert {boundary_before(text, index) for index in range(len(text))} <= places
    assert {boundary_after(text, index) for index in range(len(text))} <= places


@pytest.mark.parametrize("index", [255, 256, 257, 258, 399])
def test_a_cut_in_a_long_row_of_flags_splits_none_of_them(index: int) -> None:
    """Which two halves make a flag is told by the row's beginning, however far back that is."""
    flags = "x" + "🇩🇪" * 200
    assert boundary_before(flags, index) % 2 == 1
    assert boundary_after(flags, index) % 2 == 1
