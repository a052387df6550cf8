"""The failures as tables: by name either a ready answer (`Canned`) or a way to misbehave (`Misdeed`)."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from simulator.behaviour import Behaviour
from simulator.wordpress import encode_json, localize_script, render_page, send_json_error, send_json_success

HTML: Final = "text/html"
JSON: Final = "application/json"
_BLOCK: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Canned:
    """A ready answer. `retry_after_s`: what its Retry-After says by default; None = it never has one."""

    status: int
    body: str
    content_type: str = HTML
    headers: tuple[tuple[str, str], ...] = ()
    retry_after_s: float | None = None

    def response(self, behaviour: Behaviour) -> web.Response:
        headers = dict(self.headers)
        wanted = behaviour.retry_after_s
        after = self.retry_after_s if wanted == "default" else wanted
        if self.retry_after_s is not None and after is not None:
            headers["Retry-After"] = str(after)
        return web.Response(
            status=self.status, text=self.body, content_type=self.content_type, charset="UTF-8", headers=headers
        )


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request, and what a healthy site would have answered to it."""

    request: web.Request
    behaviour: Behaviour
    healthy: Canned


Misdeed = Callable[[Exchange], Awaitable[web.StreamResponse]]


async def fail(table: Mapping[str, "Canned | Misdeed"], name: str, exchange: Exchange) -> web.StreamResponse:
    """Answer as the row `name` of a table says."""
    row = table[name]
    return row.response(exchange.behaviour) if isinstance(row, Canned) else await row(exchange)


async def _hang(_: Exchange) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets this event")


async def _reset(exchange: Exchange) -> web.StreamResponse:
    abort(exchange.request)
    return web.Response()


async def _reset_mid_body(exchange: Exchange) -> web.StreamResponse:
    body = exchange.healthy.body.encode()
    response = await _open(exchange, length=len(body))
    await response.write(body[: len(body) // 2])
    abort(exchange.request)
    return response


async def _slow_drip(exchange: Exchange) -> web.StreamResponse:
    body = exchange.healthy.body.encode()
    response = await _open(exchange, length=len(body))
    for byte in body:
        await asyncio.sleep(exchange.behaviour.drip_s)
        await response.write(bytes([byte]))
    return response


async def _huge_message(exchange: Exchange) -> web.StreamResponse:
    head, tail = send_json_success("%").encode().split(b"%")
    return await _flood(exchange, JSON, head, tail)


async def _huge_page(exchange: Exchange) -> web.StreamResponse:
    return await _flood(exchange, HTML, b"<!DOCTYPE html><html><body><p>", b"")


async def _flood(exchange: Exchange, content_type: str, head: bytes, tail: bytes) -> web.StreamResponse:
    """`huge_bytes` of filler between head and tail, without a Content-Length that would warn the client."""
    response = await _open(exchange, content_type=content_type)
    await response.write(head)
    for block in _filler(exchange.behaviour.huge_bytes):
        await response.write(block)
    await response.write(tail)
    return response


def _filler(length: int) -> Iterator[bytes]:
    block = b"x" * _BLOCK
    for start in range(0, length, _BLOCK):
        yield block[: length - start]


async def _truncated_json(exchange: Exchange) -> web.StreamResponse:
    body = exchange.healthy.body
    return Canned(200, body[: len(body) // 2], JSON).response(exchange.behaviour)


async def _open(exchange: Exchange, *, content_type: str = "", length: int | None = None) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_type = content_type or exchange.healthy.content_type
    response.charset = "UTF-8"
    response.content_length = length
    await response.prepare(exchange.request)
    return response


def abort(request: web.Request) -> None:
    """Drop the connection without another byte. aiohttp then fails to write to it, quietly."""
    transport = request.transport
    if transport is None:
        return
    connection = transport.get_extra_info("socket")
    # Lingering for 0 s makes the close a TCP reset, as from a server that died, not an orderly end.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


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
    return _refusal(f"Message is too long. Maximum {behaviour.char_limit} characters allowed.")


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
