"""What is printed, whatever it is printed to."""

import io
import os
import signal
import sys
import unicodedata

# As a shell tells of a program whose reader has left.
_READER_LEFT = 128 + signal.SIGPIPE
_WIDE = ("W", "F")


def accept_any_output() -> None:
    """Let characters that a terminal or a file can't have be spelled out instead of ending the command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def is_output_unicode() -> bool:
    """Whether any character can be printed."""
    return (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")


def reader_left() -> int:
    """Let what is still to be printed go nowhere, and return the exit status: `head` has seen enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _READER_LEFT


def printable(text: str) -> str:
    """A text that a terminal only shows: what somebody else has written may hold commands for it."""
    if text.isprintable():
        return text
    return "".join([one if one.isprintable() or one in "\n\t" else "�" for one in text])


def width(text: str) -> int:
    """The columns that a text takes at a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in _WIDE else 1 for one in text
    )
