"""Cloudflare's browser check, told from answers."""

import pytest

from app.providers.cloudflare import is_challenge
from app.providers.http import HttpReply

JUST_A_MOMENT = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head><body></body></html>"
PAGE = b"<!DOCTYPE html><html><head><title>Oops</title></head></html>"


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, JUST_A_MOMENT), (202, b""), (403, JUST_A_MOMENT), (429, b""), (503, PAGE), (403, b"-2"), (200, PAGE)],
)
@pytest.mark.parametrize("value", ["challenge", "Challenge"])
def test_the_header_alone_decides(status: int, body: bytes, value: str) -> None:
    """`cf-mitigated: challenge` is a challenge with any status and body."""
    assert is_challenge(HttpReply(status, {"cf-mitigated": value}, body))


@pytest.mark.parametrize("status", [202, 403, 429, 503])
@pytest.mark.parametrize(
    "body",
    [
        JUST_A_MOMENT,
        b'<html><script src="/cdn-cgi/challenge-platform/h/b/orchestrate/chl_page/v1"></script></html>',
        b"<html><script>window._cf_chl_opt = {};</script></html>",
        b'<html><form id="challenge-form" class="cf-chl-form"></form></html>',
    ],
)
def test_the_page_is_known_without_the_header(status: int, body: bytes) -> None:
    """Any of its usual marks is enough."""
    assert is_challenge(HttpReply(status, {}, body))


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (200, b'{"message": "They write <title>Just a moment</title> and _cf_chl_opt"}', {}),
        (403, PAGE, {}),
        (403, b"-1", {"cf-mitigated": ""}),
        (503, PAGE, {"server": "cloudflare"}),
        (520, b'<html><script src="/cdn-cgi/challenge-platform/scripts/jsd/main.js"></script></html>', {}),
        (403, b" " * 60_000 + JUST_A_MOMENT, {}),
    ],
)
def test_other_answers_are_no_challenge(status: int, body: bytes, headers: dict[str, str]) -> None:
    """Neither an answer that talks of challenges nor a plain error behind Cloudflare is one."""
    assert not is_challenge(HttpReply(status, headers, body))
