"""What browsers ask for."""

import pytest

from app.api.pages.browsers import address_as_seen, preferred_language, wants_page

FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "page"),
    [
        (FIREFOX, True),
        ("text/html", True),
        ("TEXT/HTML ; Q=0.5, application/json;q=0.4", True),
        ("application/json, text/html;q=0.9", False),
        ("text/html;q=0, */*", False),
        ("text/html;q=nonsense, */*", False),
        ("*/*", False),
        ("application/json", False),
        ("text/*", False),
        ("", False),
        (",;q=1,,", False),
    ],
)
def test_a_page_is_for_those_who_ask_for_one(accept: str, page: bool) -> None:
    """Browsers name text/html; what takes anything, or would rather have JSON, is no browser."""
    assert wants_page(accept) is page


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-US,en;q=0.9,zh;q=0.8", "en"),
        ("de,zh-Hant;q=0.5,en;q=0.3", "zh"),
        ("zh;q=0, en;q=0.1", "en"),
        ("fr", "en"),
        ("", "en"),
        ("*", "en"),
    ],
)
def test_the_language_is_the_one_that_is_liked_best(header: str, language: str) -> None:
    """Of those that there are; else the first."""
    assert preferred_language(header, ("en", "zh")) == language


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ({b"host": b"llm.example.org"}, "http://llm.example.org/kimi"),
        ({b"host": b"localhost:8088"}, "http://localhost:8088/kimi"),
        ({b"host": b"[::1]:8088"}, "http://[::1]:8088/kimi"),
        ({b"host": b"h", b"x-forwarded-proto": b"https"}, "https://h/kimi"),
        ({b"host": b"h", b"x-forwarded-proto": b"HTTPS, http"}, "https://h/kimi"),
        ({b"host": b"h", b"x-forwarded-proto": b"javascript"}, "http://h/kimi"),
        ({b"host": b'"><script>alert(1)</script>'}, "http://10.0.0.1:8000/kimi"),
        ({b"host": b"h; rm -rf /"}, "http://10.0.0.1:8000/kimi"),
        ({b"host": b"-h"}, "http://10.0.0.1:8000/kimi"),
        ({b"host": b"h$(id)"}, "http://10.0.0.1:8000/kimi"),
        ({b"host": "bücher.example".encode()}, "http://10.0.0.1:8000/kimi"),
        ({}, "http://10.0.0.1:8000/kimi"),
    ],
)
def test_the_address_is_the_browser_s(headers: dict[bytes, bytes], address: str) -> None:
    """A host that is none, and could do harm in a page or a shell, is not repeated."""
    assert address_as_seen("http", headers, "/kimi", ("10.0.0.1", 8000)) == address


def test_an_address_without_a_host_header_is_the_socket_s() -> None:
    """IPv6 addresses are bracketed, and unix sockets have no port."""
    assert address_as_seen("http", {}, "", ("::1", 8000)) == "http://[::1]:8000"
    assert address_as_seen("http", {}, "", ("localhost", None)) == "http://localhost"
