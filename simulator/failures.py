"""The failures as tables: by name either a ready answer (`Canned`) or a way to misbehave (`Misdeed`)."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp

from simulator.answers import characters
from simulator.behaviour import Behaviour
from simulator.responses import END, HTML, JSON, Canned, Messages, Streamed, piece, start
from simulator.server import RESET
from simulator.wordpress import encode_json, localize_script, render_page, send_json_error, send_json_success

_BLOCK: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Exchange:
    """How the site behaves towards one request, and what a healthy one would have answered."""

    behaviour: Behaviour
    healthy: Canned


Misdeed = Callable[[Exchange], Messages]


def failing(table: Mapping[str, "Canned | Misdeed"], name: str, exchange: Exchange) -> ASGIApp:
    """The answer that the row `name` of a table describes."""
    row = table[name]
    return row.response(exchange.behaviour) if isinstance(row, Canned) else Streamed(row(exchange))


async def _hang(_: Exchange) -> Messages:
    await asyncio.Event().wait()
    yield END  # never: nobody sets the event


async def _reset(_: Exchange) -> Messages:
    yield RESET


async def _reset_mid_body(exchange: Exchange) -> Messages:
    body = exchange.healthy.body.encode()
    yield start(exchange.healthy.content_type, len(body))
    yield piece(body[: len(body) // 2])
    yield RESET


async def _slow_drip(exchange: Exchange) -> Messages:
    body = exchange.healthy.body.encode()
    yield start(exchange.healthy.content_type, len(body))
    for byte in body:
        await asyncio.sleep(exchange.behaviour.drip_s)
        yield piece(bytes([byte]))
    yield END


def _huge_message(exchange: Exchange) -> Messages:
    head, tail = send_json_success("%").encode().split(b"%")
    return _flood(exchange, JSON, head, tail)


def _huge_page(exchange: Exchange) -> Messages:
    return _flood(exchange, HTML, b"<!DOCTYPE html><html><body><p>", b"")


async def _flood(exchange: Exchange, content_type: str, head: bytes, tail: bytes) -> Messages:
    """`huge_bytes` of filler between head and tail, without a Content-Length that would warn the client."""
    yield start(content_type)
    yield piece(head)
    for block in _filler(exchange.behaviour.huge_bytes):
        yield piece(block)
    yield piece(tail)
    yield END


def _filler(length: int) -> Iterator[bytes]:
    block = b"x" * _BLOCK
    for begin in range(0, length, _BLOCK):
        yield block[: length - begin]


async def _truncated_json(exchange: Exchange) -> Messages:
    body = exchange.healthy.body.encode()
    half = body[: len(body) // 2]
    yield start(JSON, len(half))
    yield piece(half)
    yield END


def _error_page(status: int, title: str, retry_after_s: float | None = None) -> Canned:
    body = f"<!DOCTYPE html><html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n"
    return Canned(status, body, retry_after_s=retry_after_s)


def _refusal(data: object, status: int = 200) -> Canned:
    return Canned(status, send_json_error(data), JSON)


def _challenge(status: int, *, marked: bool = True) -> Canned:
    body = (
        '<!DOCTYPE html><html lang="en-US"><head><title>Just a moment...</title></head><body>'
        "<noscript>Enable JavaScript and cookies to continue</noscript><script>window._cf_chl_opt={cType:'managed'};"
        "a.src='/cdn-cgi/challenge-platform/h/g/orchestrate/chl_page/v1';</script></body></html>\n"
    )
    mark = (("cf-mitigated", "challenge"),) if marked else ()
    return Canned(status, body, headers=(("Server", "cloudflare"), *mark))


def too_long(behaviour: Behaviour) -> Canned:
    """The refusal of a message over the limit."""
    return _refusal(f"Message is too long. Maximum {characters(behaviour.char_limit)} allowed.")


# Answers that the page and the message endpoint share.
_SERVER_ERROR: Final = _error_page(500, "Internal Server Error")
_MAINTENANCE: Final = _error_page(503, "Briefly unavailable for scheduled maintenance. Check back in a minute.", 600)
_NONCE_REFUSED: Final = Canned(403, "-1")
_UNKNOWN_ACTION: Final = Canned(400, "0")

REFUSALS: Final[Mapping[str, Canned]] = {
    "unknown_visitor": _challenge(403),
    "unknown_action": _UNKNOWN_ACTION,
    "nonce_refused": _NONCE_REFUSED,
    "empty": _refusal({"message": "Message cannot be empty"}),
    "invalid_model": _refusal("Invalid model selected."),
}

MESSAGE_FAILURES: Final[Mapping[str, Canned | Misdeed]] = {
    "nonce_refused": _NONCE_REFUSED,
    "nonce_refused_json": _refusal("Security check failed. Please refresh the page."),
    "refused": _refusal("The message could not be processed."),
    "refused_object": _refusal({"message": "The message could not be processed."}),
    "refused_list": _refusal([{"code": "kimi_failed", "message": "The message could not be processed."}]),
    "refused_without_data": Canned(200, encode_json({"success": False}), JSON),
    "refused_html": _refusal('<p>The message <b>could not</b> be processed.</p><script>alert("x")</script>'),
    "moderated": _refusal("Your message violates our content policy."),
    "unknown_action": _UNKNOWN_ACTION,
    "html": _error_page(200, "Kimi Chat"),
    "other_json": Canned(200, encode_json({"status": "ok"}), JSON),
    "database_down": _error_page(200, "Error establishing a database connection"),
    "php_fatal": Canned(500, "<p>There has been a critical error on this website.</p>"),
    "maintenance": _MAINTENANCE,
    "server_error": _SERVER_ERROR,
    "bad_gateway": _error_page(502, "Bad Gateway"),
    "gateway_timeout": _error_page(504, "Gateway Time-out"),
    "cloudflare_timeout": _error_page(524, "A timeout occurred"),
    "too_large": _error_page(413, "Request Entity Too Large"),
    "rate_limited": _error_page(429, "Too Many Requests", 1),
    "rate_limited_json": _refusal("Too many requests. Please slow down.", 429),
    "overloaded": _error_page(503, "Service Temporarily Unavailable", 1),
    "challenge": _challenge(403),
    "challenge_202": _challenge(202),
    "challenge_429": _challenge(429),
    "just_a_moment": _challenge(403, marked=False),
    "forbidden": _error_page(403, "403 Forbidden"),
    "redirect": Canned(301, "", headers=(("Location", "/elsewhere/"),)),
    "empty_message": Canned(200, send_json_success(""), JSON),
    "reset": _reset,
    "reset_mid_body": _reset_mid_body,
    "truncated_json": _truncated_json,
    "slow_drip": _slow_drip,
    "huge": _huge_message,
    "hang": _hang,
}

PAGE_FAILURES: Final[Mapping[str, Canned | Misdeed]] = {
    "challenge": _challenge(403),
    "no_nonce": Canned(200, render_page("")),
    "broken_json": Canned(200, render_page(localize_script('{"ajax_url":"\\/wp-admin\\/admin-ajax.php","nonce":'))),
    "server_error": _SERVER_ERROR,
    "maintenance": _MAINTENANCE,
    "empty": Canned(200, ""),
    "hang": _hang,
    "reset": _reset,
    "slow_drip": _slow_drip,
    "huge": _huge_page,
}
