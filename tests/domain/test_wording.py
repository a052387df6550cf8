"""What the gateway says within a chat."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.wording import is_chinese, message_too_long, notice, without_notice
from tests.domain.strategies import wild_texts

_numbers = st.integers(0, 99)


@pytest.mark.parametrize(
    ("text", "chinese"),
    [
        ("你好", True),
        ("請介紹一下 Python 的生成器", True),
        ("用 JSON 回答：北京今天天气怎么样？", True),
        ("Hello", False),
        ("How do I write 你好 in a letter to my friends?", False),
        ("こんにちは、元気ですか", False),
        ("漢字とかなを混ぜて書く", False),
        ("안녕하세요 大韓民國", False),
        ("Привет", False),
        ("", False),
        ("123 😀", False),
    ],
)
def test_chinese_is_told_from_other_languages(text: str, chinese: bool) -> None:
    """By its characters: some words in Latin letters don't make it another one, nor do some of its make Chinese."""
    assert is_chinese(text) == chinese


def test_a_long_message_is_refused_in_its_language() -> None:
    """With both sizes, and what may be done."""
    chinese = message_too_long("玫瑰", 1800, 1000, unit="characters", setting="MY_SETTING", are_results=False)
    english = message_too_long("Roses", 1800, 1000, unit="characters", setting="MY_SETTING", are_results=False)
    for words in (chinese, english):
        assert all(part in words for part in ("1800", "1000", "LONG_MESSAGES=shorten", "MY_SETTING"))
    assert chinese.startswith("您的消息共有 1800 个字符")
    assert english.startswith("Your message has 1800 characters; this model takes 1000 at a time.")


@given(
    answer=wild_texts, dropped=_numbers, shortened=_numbers, tools=_numbers, question=st.sampled_from(["Hi", "你好"])
)
def test_a_notice_can_be_taken_off(answer: str, dropped: int, shortened: int, tools: int, question: str) -> None:
    """An answer that comes back with its notice is the answer again, but for white space at its end."""
    below = notice(question, dropped=dropped, shortened=shortened, tools=tools)
    assert bool(below) == bool(dropped or shortened or tools)
    assert without_notice(answer + below + ("\n" if below else "")) == (answer.rstrip() if below else answer)


def test_a_notice_counts_what_is_missing() -> None:
    """In the conversation's language."""
    assert notice("Hi", dropped=1, shortened=2, tools=0) == (
        "\n\n> ⓘ Not everything fit: 1 earlier message left out, 2 messages shortened."
    )
    assert (
        notice("你好", dropped=3, shortened=0, tools=17)
        == "\n\n> ⓘ 内容超出长度限制：省略了 3 条较早的消息，省略了 17 个工具。"
    )


@pytest.mark.parametrize("answer", ["> ⓘ Not everything fit: see below.\nMore.", "> ⓘ Note: read this.", "ⓘ"])
def test_what_only_looks_like_a_notice_stays(answer: str) -> None:
    """A model may quote, and may use the sign."""
    assert without_notice(answer) == answer


def test_a_long_text_with_a_mark_in_it_is_read_at_once() -> None:
    """What a client sends as an earlier answer may be anything; this would take hours if it were looked at twice."""
    text = " \n" * 500_000 + "> ⓘ x"
    assert without_notice(text) == text
