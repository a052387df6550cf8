"""Cutting text where a reader would: between graphemes (Unicode UAX #29), never inside one.

A grapheme is what a person sees as one character: a letter with its accents, a flag, a family emoji.
"""

import math

import regex

# Flags (pairs of regional indicators) are taken first: \X looks back over a whole run of them for each one, which
# takes minutes for a long one.
_GRAPHEME = regex.compile(r"[\U0001F1E6-\U0001F1FF]{2}[\p{GCB=Extend}\p{GCB=ZWJ}\p{GCB=SpacingMark}]*|\X")
_FLAG_HALVES = ("\U0001f1e6", "\U0001f1ff")
# How far back a cut looks for a safe place to start reading graphemes from. Longer ones are no text that anyone wrote.
_LOOK_BACK = 256


def pieces(text: str, size: int) -> list[str]:
    """Cut a text into pieces of `size` graphemes (the last may be shorter); joined they are the text again."""
    if text.isascii() and "\r" not in text:
        return [text[start : start + size] for start in range(0, len(text), size)]
    graphemes = _GRAPHEME.findall(text)
    return ["".join(graphemes[start : start + size]) for start in range(0, len(graphemes), size)]


def paced_pieces(text: str, *, size: int, delay: float, ceiling: float) -> list[str]:
    """Pieces of a text that is to be typed out, one each `delay` seconds, in at most `ceiling` seconds.

    A text with too many pieces for the ceiling gets larger pieces rather than shorter delays: the reader sees the same,
    and a long answer costs no more than a short one. Without a delay all pieces keep their size.
    """
    parts = pieces(text, size)
    if delay <= 0:
        return parts
    # The first piece goes at once, so n pieces take n - 1 delays.
    most = max(1, math.floor(ceiling / delay) + 1)
    if len(parts) <= most:
        return parts
    group = -(-len(parts) // most)
    return ["".join(parts[start : start + group]) for start in range(0, len(parts), group)]


def boundary_before(text: str, index: int) -> int:
    """The last place at or before `index` where the text may be cut without splitting a grapheme."""
    if index <= 0 or index >= len(text):
        return max(0, min(index, len(text)))
    start = max(0, index - _LOOK_BACK)
    while start > 0 and _FLAG_HALVES[0] <= text[start] <= _FLAG_HALVES[1]:
        start -= 1  # in a run of flags only its beginning tells which two belong together
    for match in _GRAPHEME.finditer(text, start):
        if match.end() > index:
            return index if match.start() == index else int(match.start())
    return index


def boundary_after(text: str, index: int) -> int:
    """The first place at or after `index` where the text may be cut without splitting a grapheme."""
    before = boundary_before(text, index)
    if before == index:
        return index
    match = _GRAPHEME.match(text, before)
    return int(match.end()) if match else index
