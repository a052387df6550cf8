"""The site's answers to messages."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.http import HttpReply
from app.providers.kimi.reply import read_reply
from tests.domain.strategies import UNTIMED, texts, wild_texts


def _read(body: bytes) -> str:
    return read_reply(HttpReply(200, {}, body), nonce="0a1b2c3d4e")


def _success(message: object) -> bytes:
    return json.dumps({"success": True, "data": {"message": message}}).encode()


@pytest.mark.parametrize(
    "body",
    [
        _success("Hello"),
        b'{"success": true, "data": {"message": "Hello", "model": "x", "usage": {}}}',
        b'\xef\xbb\xbf{"success":true,"data":{"message":"Hello"}}\n',
        b' \n{"success":true,"data":{"message":"Hel\\u006co"}}',
        b'<br />\n<b>Warning</b>: something in <b>/plugin.php</b><br />\n{"success":true,"data":{"message":"Hello"}}',
        b'\xef\xbb\xbf\xef\xbb\xbf \xef\xbb\xbf{"success":true,"data":{"message":"Hello"}}',
        b'{"success":true,"data":{"message":"Hello"}}\n<!-- Page supported by LiteSpeed Cache 6.5 -->',
        b'{"success":true,"data":{"message":"Hello"}}0',
        b'{"success":true,"data":{"message":"Hello"}}\n<br /><b>Warning</b>: {"x": 1} in <b>/x.php</b>',
        b'<!-- {"success":false} -->\n<script>{"success":false}</script>{"data":{"message":"Hello"},"success":true}',
        b'/* {"success":false} */ {"success":true,"data":{"message":"Hello"}} /* cached */',
        b'Notice: Undefined index: kimi in /x.php on line 3 {"success":true,"data":{"message":"Hello"}}',
        b'PHP Notice: {0} {"debug":{"success":false}} {"success":true,"data":{"message":"Hello"}}',
        b'{"success":true,\n"data":{"message":"Hello","debug":"a\n\tb"}}',
        b'<b>x</b> {"success":true,"data":{"debug":"a\n\tb","message":"Hello"}}',
        b'D\xe9bogage {"success":true,"data":{"message":"Hello"}} d\xe9bogage',
    ],
)
def test_an_answer_is_read(body: bytes) -> None:
    """The text of a successful answer comes out, whatever else stands around it."""
    assert _read(body) == "Hello"


@UNTIMED
@given(text=texts.filter(str.strip), escaped=st.booleans())
def test_any_answer_comes_out_as_it_was_said(text: str, escaped: bool) -> None:
    """Whatever the text, and whether the site escapes it or not, not a code point is changed."""
    document = {"success": True, "data": {"message": text}}
    assert _read(json.dumps(document, ensure_ascii=escaped).encode()) == text


@pytest.mark.parametrize(
    ("escaped", "text"),
    [
        (r"cut off \ud83d", "cut off \ufffd"),
        (r"\ude00 at first", "\ufffd at first"),
        (r"\ud83d in the middle", "\ufffd in the middle"),
        (r"\ude00\ud83d", "\ufffd\ufffd"),
        (r"\ud83d\ude00", "😀"),
        (r"\ufeff\ud83d", "\ufeff\ufffd"),
    ],
)
def test_half_of_a_surrogate_pair_is_replaced(escaped: str, text: str) -> None:
    """What a cut-off escape leaves behind becomes a replacement character, and whole pairs stay whole."""
    assert _read(b'{"success":true,"data":{"message":"%b"}}' % escaped.encode()) == text


@UNTIMED
@given(text=wild_texts.filter(str.strip))
def test_every_answer_can_be_written_to_the_client(text: str) -> None:
    """Whatever the site's JSON holds, the answer can be encoded."""
    assert _read(_success(text)).encode().decode() != ""
