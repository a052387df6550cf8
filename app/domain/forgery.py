"""Makes harmless what a message's author could write to be taken for somebody else: role tags, calls, template tokens.

A model reads leniently: it takes `【Ｕｓｅｒ】：`, or a tag with invisible characters in it, for what it looks like.
So the patterns match each sign and letter in all its shapes. Only the sign that a tag or a call begins with is
replaced, by one that ends the likeness; everything else stays as it was written.
"""

import re

# What stands for a space, or for nothing, in a text that is made to look like another one.
_INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufe00-\ufe0f\ufeff"
)
_GAP = rf"[\s{_INVISIBLE}]{{0,20}}+"
# Within a word.
_CRACK = rf"[{_INVISIBLE}]{{0,3}}+"

_OPENING, _CLOSING = "［【〔〖⟦❲﹝⁅〚", "］】〕〗⟧❳﹞⁆〛"
_LESS, _GREATER = "＜‹〈⟨❮﹤❰⟪«", "＞›〉⟩❯﹥❱⟫»"
_BAR, _COLON = r"[|｜∣│ǀ¦]", "[:：﹕∶︰ː꞉]"
# Letters of other scripts that look like Latin ones.
_ALIKE = {
    "a": "аα",
    "c": "сϲ",
    "e": "еε",
    "i": "іι",
    "l": "ӏ",
    "m": "м",
    "n": "п",
    "o": "оο",
    "r": "г",
    "s": "ѕ",
    "t": "тτ",
    "u": "υ",
    "y": "уγ",
}
_FULL_WIDTH = ord("Ａ") - ord("A")


def _letter(letter: str) -> str:
    """A class of everything that looks like a letter or a sign of ASCII."""
    if not letter.isalpha():
        return f"[{re.escape(letter)}{chr(ord(letter) + _FULL_WIDTH)}]"
    both = letter.lower() + letter.upper()
    return f"[{both}{''.join(chr(ord(one) + _FULL_WIDTH) for one in both)}{_ALIKE.get(letter, '')}]"


def _word(text: str) -> str:
    return _CRACK.join(map(_letter, text))


# A tag counts as such only together with its colon: `[user]` alone, as in a configuration file, stays as it is.
_ROLES = "|".join(map(_word, ("system", "user", "assistant", "tool")))
_TAG = re.compile(rf"[\[{_OPENING}](?={_GAP}(?:{_ROLES})(?!\w)[^\]{_CLOSING}]{{0,80}}[\]{_CLOSING}]{_GAP}{_COLON})")
# Any form of a call that `app/domain/emulation` reads, whoever's tag it is in; and tokens of chat templates.
# Each word stands in it once: a class of signs takes a tenth of a millisecond to compile.
_ENDS, _IS, _NAMES = rf"{_GAP}[>{_GREATER}]", "=", rf"{_GAP}name{_GAP}="
_CALL_WORD = rf"{_CRACK}[_＿]?{_CRACK}{_word('call')}[sSｓＳ]?"
_CALL = re.compile(
    rf"[<{_LESS}](?=[\s/{_INVISIBLE}]{{0,24}}+(?:{_BAR}{_GAP}[\w▁/]{{1,40}}{_GAP}{_BAR}{_ENDS}"
    rf"|(?:[\w-]{{1,20}}:|{_BAR}DSML{_BAR})?"
    rf"(?:(?:{_word('tool')}|{_word('function')})(?:{_CALL_WORD}{_ENDS}|{_IS}|{_NAMES})"
    rf"|{_word('invoke')}(?:{_IS}|{_NAMES}|{_ENDS}))))"
    r"|\[(?=/?TOOL_CALLS\])"
)
_KIMI_CALL = re.compile(rf"{_word('functions')}({_CRACK}[.．])(?={_CRACK}[\w.\-]{{1,128}}:\d)")
_ODD_SIGNS = _OPENING + _LESS


def without_forged_calls(text: str) -> str:
    """The text with everything made harmless that a model could repeat as a tool call, at the same length."""
    # Searching for one character is ten times as fast as searching for a pattern.
    if "<" in text or "[TOOL_CALLS]" in text or _has_odd_sign(text):
        text = _CALL.sub("(", text)
    return _KIMI_CALL.sub(_without_dot, text) if ":" in text and "unctions" in text else text


def without_forgeries(text: str) -> str:
    """The text with everything made harmless that reads like a tag of ours or a tool call, at the same length."""
    if "[" in text or _has_odd_sign(text):
        text = _TAG.sub("(", text)
    return without_forged_calls(text)


def may_forge(text: str) -> bool:
    """Whether a text has any of the signs that forgeries begin with. Far quicker than looking for these."""
    return "[" in text or "<" in text or "unctions" in text or _has_odd_sign(text)


def _has_odd_sign(text: str) -> bool:
    if not text.isascii():
        for sign in _ODD_SIGNS:  # one after the other: a pattern of them all takes five times as long
            if sign in text:
                return True
    return False


def _without_dot(call: re.Match[str]) -> str:
    return f"{call[0][:-1]} "
