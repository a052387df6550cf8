"""Cutting text where a reader would: between graphemes (Unicode UAX #29), never inside one.

A grapheme is what a person sees as one character: a letter with its accents, a flag, a family emoji.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import regex

T = TypeVar("T")

# Flags (pairs of regional indicators) come first: \X looks back over a whole run of them for each one, which takes
# minutes for a long run.
_ONE = r"[\U0001F1E6-\U0001F1FF]{2}[\p{GCB=Extend}\p{GCB=ZWJ}\p{GCB=SpacingMark}]*|\X"
_GRAPHEME = regex.compile(_ONE)
# A cut between two characters that neither join others nor are joined is safe, whatever stands around them.
_PLAIN_BOUNDARY = regex.compile(r"(?!\r\n)[\p{GCB=Other}\p{GCB=Control}\r\n]{2}")
_FLAG_HALVES = "".join(map(chr, range(0x1F1E6, 0x1F200)))
# Characters that a cut looks back for a safe place to start reading graphemes. Nobody writes longer graphemes.
_LOOK_BACK = 256
# Characters of a text that is cut at once.
_SHORT = 16_384


def pieces(text: str, size: int) -> Iterable[str]:
    """Cut a text into pieces of `size` graphemes (the last may be shorter); joined they are the text again."""
    if len(text) <= _SHORT and text.isascii() and "\r" not in text:
        # A list of slices costs a tenth of what a generator does, and most answers are short.
        return [text[start : start + size] for start in range(0, len(text), size)]
    return _pieces(text, size)


def _pieces(text: str, size: int) -> Iterator[str]:
    start = 0
    for end in _ends(text, size):
        yield text[start:end]
        start = end


def paced_pieces(text: str, *, size: int, delay: float, ceiling: float) -> Iterable[str]:
    """Pieces of a text that is to be typed out, one each `delay` seconds, in at most `ceiling` seconds.

    A text with too many pieces for the ceiling gets larger pieces instead of shorter delays: it reads the same, and a
    long answer costs no more than a short one. Without a delay all pieces keep their size. The pieces of a long text
    are cut one by one, so that megabytes don't block the event loop.
    """
    if delay <= 0:
        return pieces(text, size)
    most = _most_pieces(delay, ceiling)
    longer = len(text) > size * most and next(islice(_ends(text, size), most, None), None) is not None
    return _large_pieces(text, most) if longer else pieces(text, size)


def paced_groups(items: Sequence[T], *, delay: float, ceiling: float) -> Iterator[Sequence[T]]:
    """The same for things that can't be cut: groups of them, none of which is empty."""
    size = math.ceil(len(items) / _most_pieces(delay, ceiling))
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _most_pieces(delay: float, ceiling: float) -> int:
    # The first piece goes at once, so n pieces take n - 1 delays.
    return max(1, math.floor(ceiling / delay) + 1)


def _ends(text: str, size: int) -> Iterator[int]:
    """Where pieces of `size` graphemes end. The last piece, which may be shorter, ends with the text."""
    if text.isascii() and "\r" not in text:
        yield from range(size, len(text), size)
    else:
        yield from (match.end() for match in _graphemes(size).finditer(text) if match.end() < len(text))
    if text:
        yield len(text)


def _graphemes(count: int) -> "regex.Pattern[str]":
    """A pattern of up to `count` graphemes. (`regex` caches what it has compiled.)"""
    return regex.compile(f"(?:{_ONE}){{1,{count}}}+")


def _large_pieces(text: str, count: int) -> Iterator[str]:
    """Up to `count` pieces of about the same length."""
    start = 0
    for number in range(1, count + 1):
        end = boundary_after(text, len(text) * number // count)
        if end > start:
            yield text[start:end]
            start = end


def boundary_before(text: str, index: int) -> int:
    """The last place at or before `index` where the text may be cut without splitting a grapheme."""
    if index <= 0 or index >= len(text):
        return max(0, min(index, len(text)))
    if _PLAIN_BOUNDARY.match(text, index - 1):
        return index
    start = max(0, index - _LOOK_BACK)
    if text[start] in _FLAG_HALVES:
        # The beginning of a run of flags tells which two halves belong together.
        start -= (start - len(text[:start].rstrip(_FLAG_HALVES))) % 2
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
