"""Pages and answers of the site that were made to take long: they are read in a time that grows with their length."""

import pytest

from app.domain.errors import GatewayError
from app.providers.http import HttpReply
from app.providers.kimi.reply import read_reply
from app.providers.kimi.script import script_values

# Looking for the end of each of so many beginnings would take hours.
LENGTH = 2 * 1024 * 1024


@pytest.mark.parametrize(
    "again",
    [
        "kimi_ajax=",
        "kimi_ajax=/*",
        "kimi_ajax={",
        'kimi_ajax={"',
        "kimi_ajax = {a:/*",
        "kimi_ajax.nonce='",
        "/*",
        "<!--",
    ],
)
@pytest.mark.parametrize("begin", ["", "kimi_ajax={"])
def test_a_page_without_a_nonce_is_read_in_linear_time(begin: str, again: str) -> None:
    """However often it begins with what it doesn't end."""
    page = begin + again * (LENGTH // len(again))
    assert not [values for values in script_values(page) if "0a1b2c3d4e" in values.values()]


@pytest.mark.parametrize("again", ['\\"', "\\'", "/*", '"'])
def test_an_object_without_an_end_is_read_in_linear_time(again: str) -> None:
    """Texts and comments that don't end are looked for a few times only."""
    assert not [values for values in script_values("kimi_ajax={" + again * (LENGTH // 2)) if values]


@pytest.mark.parametrize(
    "again",
    ["<!--", "<script>", "<pre", " /*", '{"', '{"a":', '{"a":[0,0,', '{"success":true,', '{"a":{},', "{ ", "</script "],
)
@pytest.mark.parametrize("begin", [b"", b"x"])
def test_an_answer_that_is_none_is_read_in_linear_time(begin: bytes, again: str) -> None:
    """It is an error, and soon one: it is read on the event loop."""
    body = begin + (again * (LENGTH // len(again))).encode()
    with pytest.raises(GatewayError):
        read_reply(HttpReply(200, {}, body), nonce="0a1b2c3d4e")


def test_an_answer_behind_asides_without_an_end_is_found() -> None:
    """A comment that never ends hides nothing from whoever looks for JSON."""
    body = b'<!-- <pre> /* {"no": 1} <script \n' * 10 + b'{"success": true, "data": {"message": "Hi"}}'
    assert read_reply(HttpReply(200, {}, body), nonce="0a1b2c3d4e") == "Hi"
