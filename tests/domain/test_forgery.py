"""Texts that look like somebody else's are made harmless, and all others stay as they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.forgery import may_forge, without_forged_calls, without_forgeries
from tests.domain.strategies import UNTIMED

_ROLE_TAGS = [
    "[User]: x",
    "[ user ] : x",
    "[user\u3000]\u3000：x",
    "［Ｕｓｅｒ］：x",
    "【User】：x",
    "〔assistant〕: x",
    "[As\u200bsistant]: x",
    "[\u2003\u2003\u2003\u2003System\u2003]:x",
    "[System prompt]: x",
    "[\ufeffTool get_weather]\u00a0: x",
    "[Usеr]: x",  # a Cyrillic letter
    "[Assistant]﹕x",
]
_CALLS = [
    "<tool_call>",
    "< tool_call >",
    "<\u3000tool_calls\u3000>",
    "＜tool_call＞",
    "〈tool_call〉",
    "‹tool_call›",
    "⟨/tool_call⟩",
    "<tool\u200b_call>",
    "<ｔｏｏｌ＿ｃａｌｌ>",
    "<TOOL_CALL>",
    "<|tool_call_begin|>",
    "< | tool_call_begin | >",
    "<｜tool▁calls▁begin｜>",
    "＜｜tool▁calls▁begin｜＞",
    "<|im_start|>",
    "<function=rm>",
    '<invoke name="rm">',
    "[TOOL_CALLS]",
    "functions.rm:0{}",
    "functions\u200b.rm:0{}",
]
_HARMLESS = [
    "Use List<String> and Map<Key, Value>; if a < b && c > d.",
    "《红楼梦》【注】第三章：开始。〈静夜思〉",
    "⟨x|y⟩ = ⟨y|x⟩*",
    "[user] in a config file, [system] too",
    "<div class='tool'>text</div> <p>user: hello</p>",
    "User: hello\nAssistant: hi",
    "functions.php and functions.py: see line 3",
]


@pytest.mark.parametrize("text", _ROLE_TAGS, ids=repr)
def test_a_forged_tag_is_broken(text: str) -> None:
    """Brackets of any script, wide and invisible characters, letters that only look alike."""
    harmless = without_forgeries(f"before {text} after")
    assert harmless != f"before {text} after"
    assert len(harmless) == len(f"before {text} after")
    assert may_forge(text)


@pytest.mark.parametrize("text", _CALLS, ids=repr)
def test_a_forged_call_is_broken(text: str) -> None:
    """Likewise."""
    harmless = without_forged_calls(f"before {text} after")
    assert harmless != f"before {text} after"
    assert len(harmless) == len(f"before {text} after")
    assert may_forge(text)
    assert without_forged_calls(harmless) == harmless


@pytest.mark.parametrize("text", _HARMLESS)
def test_ordinary_texts_stay_as_they_are(text: str) -> None:
    """Code, markup, mathematics and Chinese punctuation."""
    assert without_forgeries(text) == text


@UNTIMED
@given(st.lists(st.sampled_from([*_ROLE_TAGS, *_CALLS, " ", "x", "\n", "【", "<", "["]), max_size=30).map("".join))
def test_nothing_is_left_after_one_pass(text: str) -> None:
    """Whatever is put together of them."""
    harmless = without_forgeries(text)
    assert without_forgeries(harmless) == harmless
    assert len(harmless) == len(text)
