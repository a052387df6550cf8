"""What has to be sent and is too long: shortened, or in several parts."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.domain.prompt import PromptLimit, Unit
from app.domain.shortening import MOST_PARTS, evenly, shortened, shortened_task, split
from tests.domain.strategies import UNTIMED, graphemes, wild_texts

LIMIT = PromptLimit(1000)
TURNS = "\n".join(f"{'USER' if turn % 2 else 'ASSISTANT'}: {'Roses need the sun. ' * 12}" for turn in range(8))
_units = st.sampled_from(list[Unit](["codepoints", "utf16", "bytes"]))
_long_texts = st.builds(lambda text, times: text * times, wild_texts.filter(bool), st.integers(1, 400))


def _task(before: str, after: str = "") -> str:
    return f"{before}\n<chat_history>\n{TURNS}\n</chat_history>{after}"


@UNTIMED
@given(text=_long_texts, size=st.integers(1, 2000), unit=_units)
def test_a_shortened_text_fits(text: str, size: int, unit: Unit) -> None:
    """It is never over its size, and what it is made of are the beginning and the end of the text."""
    limit = PromptLimit(size, unit)
    short = shortened(text, size, limit)
    assume(short is not None)
    assert short is not None
    assert limit.measure(short) <= size
    if short != text:
        head, _, tail = re.split(r"(\n\[… \d+ characters left out …\]\n|\n［……此处省略 \d+ 个字符……］\n)", short)
        assert text.startswith(head)
        assert text.endswith(tail)


def test_the_mark_says_how_much_is_missing() -> None:
    """In the language of the text."""
    assert shortened("a" * 100 + "b" * 100 + "c" * 100, 280, LIMIT) is not None
    short = shortened("x" * 1000 + "z" * 1000, 500, LIMIT)
    assert short is not None
    missing = re.search(r"\[… (\d+) characters left out …\]", short)
    assert missing is not None
    assert int(missing[1]) == 2000 - short.count("x") - short.count("z")
    assert "此处省略" in str(shortened("玫瑰需要阳光。" * 300, 500, LIMIT))


def test_a_text_that_fits_stays() -> None:
    """And one of which too little would be left is given up."""
    assert shortened("a" * 500, 500, LIMIT) == "a" * 500
    assert shortened("a" * 500, 90, LIMIT) is None


@given(sizes=st.lists(st.integers(0, 500), min_size=1, max_size=6), room=st.integers(0, 2000))
def test_what_one_leaves_the_others_get(sizes: list[int], room: int) -> None:
    """Cut to the same size, things fit together; one unit more would be too much, if anything is cut at all."""
    most = evenly(sizes, room)
    assert sum(min(size, most) for size in sizes) <= max(room, 0)
    if any(size > most for size in sizes):
        assert sum(min(size, most + 1) for size in sizes) > room


@UNTIMED
@given(
    before=_long_texts, after=_long_texts, size=st.integers(240, 3000), unit=_units, json=st.sampled_from(["", "JSON"])
)
def test_a_shortened_task_fits(before: str, after: str, size: int, unit: Unit, json: str) -> None:
    """Whatever stands around the conversation, it is never over its size."""
    limit = PromptLimit(size, unit)
    task = _task(f"{before} Give it a title. {json}", after)
    short = shortened_task(task, size, limit)
    assert short is not None
    assert limit.measure(short) <= size


def test_a_tasks_form_is_told_in_one_line() -> None:
    """JSON is asked for by its example, which may stand in the middle of long instructions; but only once."""
    form = '{ "tags": ["one", "two"] }'
    middle = _task("Find tags.\n" + "A rule. " * 100 + f"\nJSON format:\n{form}\n" + "Another rule. " * 100)
    short = shortened_task(middle, 1000, LIMIT)
    assert short is not None
    assert short.startswith("Find tags.")
    assert short.endswith(f"\nAnswer with JSON and nothing else, in this form: {form}")
    end = shortened_task(_task("Find tags.\n" + "A rule. " * 100 + f"\nJSON format: {form}"), 1000, LIMIT)
    assert end is not None
    assert end.count(form) == 1
    formless = shortened_task(_task("Find tags as JSON.\n" + "A rule. " * 200), 1000, LIMIT)
    assert formless is not None
    assert formless.endswith("Answer with JSON and nothing else.")
    plain = shortened_task(_task("Find a title.\n" + "A rule. " * 200), 1000, LIMIT)
    assert plain is not None
    assert "JSON" not in plain


@pytest.mark.parametrize("after", ["", "\nUse the main language.\n\nThe title is:"])
def test_short_instructions_stay_whole(after: str) -> None:
    """What they leave of the room is the conversation's, of which the beginning and the end stay."""
    short = shortened_task(_task("Give this chat a title.", after), 1000, LIMIT)
    assert short is not None
    assert short.startswith("Give this chat a title.\n<chat_history>\nASSISTANT: Roses")
    assert short.endswith(f"the sun. \n</chat_history>{after}")
    assert len(short) > 990


@UNTIMED
@given(text=_long_texts, size=st.integers(300, 1500), unit=_units)
def test_parts_fit_and_are_the_whole_text(text: str, size: int, unit: Unit) -> None:
    """No part is over the limit, the last one leaves room for the rest of the prompt, and nothing is lost or cut."""
    limit = PromptLimit(size, unit)
    parts = split(text, size * 2 // 3, limit)
    assume(parts is not None)
    assert parts is not None
    assert len(parts) <= MOST_PARTS
    assert all(limit.measure(part) <= size for part in parts)
    assert limit.measure(parts[-1]) <= size * 2 // 3
    bodies = [re.sub(r"\n\n(?:\(That was part \d+ of \d+|（以上是).*\Z", "", part, flags=re.DOTALL) for part in parts]
    if not re.search(r"\n\n(?:\(That|（以上)", text):
        assert all(bodies)
        assert "".join(bodies) == text
        assert [one for body in bodies for one in graphemes(body)] == graphemes(text)


def test_parts_end_where_a_reader_pauses() -> None:
    """At the end of a paragraph if there is one near, else of a line, a sentence or a word."""
    parts = split("Roses need the sun and water. " * 60, 900, LIMIT)
    assert parts is not None
    assert all(part.rpartition("\n\n(")[0].endswith("water. ") for part in parts[:-1])
    assert "part 1 of 3" in parts[0]
    assert "just say OK" in parts[0]
    assert "part 3 of 3, the last. Now answer" in parts[2]
    assert "第 1 部分，共 2 部分" in str(split("玫瑰需要阳光。" * 200, 900, LIMIT))


def test_a_text_that_takes_too_many_parts_is_given_up() -> None:
    """The site would be asked too often, and something would go wrong in between."""
    assert split("Roses. " * 1000, 900, LIMIT) is not None
    assert split("Roses. " * 1500, 900, LIMIT) is None
