"""Stored documents."""

import json
import zlib

import pytest

from app.domain.documents import UnreadableDocument, pack, unpack

VALUE = {"id": "s1", "turns": [["user", "hi 月"], ["assistant", "hello"]]}
JSON = json.dumps(VALUE, ensure_ascii=False).encode()


@pytest.mark.parametrize("text", ["short", "long 月 " * 10_000, "\ud83d\ude00 \ud83d lone", "\ud83d" * 5_000])
def test_a_document_comes_back_as_it_was(text: str) -> None:
    """Of any length, and with any characters."""
    assert unpack(pack([text, None, 1.5])) == [text, None, 1.5]


def test_large_documents_are_compressed() -> None:
    """A conversation takes a fraction of its size; a small document isn't worth the work."""
    assert len(pack("word " * 2_000)) < 1_000
    assert pack(VALUE).startswith(b"\x01j{")


@pytest.mark.parametrize(
    "stored",
    [b"\x01j" + JSON, b"\x01z" + zlib.compress(JSON, 1), b"\x01" + zlib.compress(JSON, 1)],
    ids=["plain session", "compressed session", "kept response"],
)
def test_what_earlier_releases_have_stored_is_read(stored: bytes) -> None:
    """An update loses neither sessions nor kept responses."""
    assert unpack(stored) == VALUE


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"\x01",
        b"\x01j",
        b"\x01j{",
        b"\x01zno",
        b"\x01xno",
        b"\x02j{}",
        b"{}",
        b"\x01?{",
        b"\x01j" + b"[" * 100_000,
    ],
)
def test_what_cannot_be_read_says_so_and_quotes_nothing(stored: bytes) -> None:
    """Damage and other versions are one kind of error, whose text can be logged."""
    with pytest.raises(UnreadableDocument, match=r"^(unknown format|damaged) [\w() ]+$"):
        unpack(stored)
