"""Cookies: which are kept, where they go, and when they no longer do."""

from http.cookiejar import Cookie

import pytest
import requests.cookies

from app.providers.http.cookies import Cookies
from tests.providers.http.server import client, reply, server

PAGE = "https://chat.example.com/chat/"
AJAX = "https://chat.example.com/wp-admin/admin-ajax.php"


def cookie(name: str = "id", value: str = "1", **fields: object) -> Cookie:
    made: Cookie = requests.cookies.create_cookie(name, value, **fields)  # type: ignore[no-untyped-call]
    return made


@pytest.mark.parametrize(
    ("set_cookie", "url", "sent"),
    [
        ("id=1", AJAX, b"Cookie: id=1\r\n"),
        ('id=a b=c"d, e; HttpOnly', AJAX, b'Cookie: id=a b=c"d, e\r\n'),
        ("id=\xe4", AJAX, b"Cookie: id=\xe4\r\n"),
        ("id=1", "https://www.chat.example.com/", b""),
        ("id=1", "https://example.com/", b""),
        ("id=1; Domain=example.com", "https://www.example.com/", b"Cookie: id=1\r\n"),
        ("id=1; Domain=example.com", "https://badexample.com/", b""),
        ("id=1; Domain=other.org", "https://other.org/", b""),
        ("id=1; Domain=com", "https://other.com/", b""),
        ("id=1; Path=/chat", AJAX, b""),
        ("id=1; Path=/wp-admin", AJAX, b"Cookie: id=1\r\n"),
        ("id=1; Secure", "http://chat.example.com/", b""),
        ("id=1; Secure", AJAX, b"Cookie: id=1\r\n"),
        ("id=1; Max-Age=0", AJAX, b""),
        ("id=1; Max-Age=100", AJAX, b"Cookie: id=1\r\n"),
        ("id=1; Expires=Wed, 21 Oct 2015 07:28:00 GMT", AJAX, b""),
        ("id=1; Expires=nonsense", AJAX, b"Cookie: id=1\r\n"),
        ("", AJAX, b""),
    ],
)
def test_a_cookie_that_was_set_goes_where_it_belongs(set_cookie: str, url: str, sent: bytes) -> None:
    """Host, domain, path, TLS and expiry decide."""
    cookies = Cookies()
    cookies.take("https://chat.example.com/", [set_cookie.encode("latin-1")])
    assert cookies.header(url) == sent


@pytest.mark.parametrize(
    ("set_cookie", "url", "kept"),
    [
        ("__Secure-id=1; Secure", "https://chat.example.com/", True),
        ("__Secure-id=1; Secure; Domain=example.com", "https://chat.example.com/", True),
        ("__Secure-id=1", "https://chat.example.com/", False),
        ("__SECURE-id=1; Secure", "http://chat.example.com/", False),
        ("__Host-id=1; Secure; Path=/", "https://chat.example.com/", True),
        ("__Host-id=1; Secure; Path=/", "http://chat.example.com/", False),
        ("__host-id=1; Path=/", "https://chat.example.com/", False),
        ("__Host-id=1; Secure", "https://chat.example.com/", False),
        ("__Host-id=1; Secure; Path=/wp-admin", "https://chat.example.com/", False),
        ("__Host-id=1; Secure; Path=/; Domain=chat.example.com", "https://chat.example.com/", False),
        ("=__Host-id=1", "https://chat.example.com/", False),
    ],
)
def test_a_cookie_s_name_is_no_lie(set_cookie: str, url: str, kept: bool) -> None:
    """What is called `__Secure-` or `__Host-` was set as RFC 6265bis asks for, or is not kept."""
    cookies = Cookies()
    cookies.take(url, [set_cookie.encode()])
    assert cookies.header(AJAX) == (f"Cookie: {set_cookie.partition(';')[0]}\r\n".encode() if kept else b"")


@pytest.mark.parametrize(
    ("cookies_set", "sent"),
    [
        (["id=" + "v" * 4094], 1),
        (["id=" + "v" * 4095], 0),
        ([f"id{number}={'v' * 1000}" for number in range(16)], 16),
        ([f"id{number}={'v' * 1000}" for number in range(17)], 0),
        ([f"id{number}=" for number in range(301)], 0),
    ],
)
def test_cookies_are_no_larger_than_servers_take_them(cookies_set: list[str], sent: int) -> None:
    """One that is too large is not kept; too many, or too much together, and none is."""
    cookies = Cookies()
    for set_cookie in cookies_set:
        cookies.take("https://chat.example.com/", [set_cookie.encode()])
    assert cookies.header(AJAX).count(b"=") == sent


def test_a_secure_cookie_is_not_taken_by_http() -> None:
    """Whoever is on the way could have set it."""
    cookies = Cookies()
    cookies.take("http://chat.example.com/", [b"id=1; Secure"])
    assert cookies.header(AJAX) == b""


@pytest.mark.parametrize(("page", "kept"), [(PAGE, True), (PAGE.replace("https", "http"), False)])
def test_a_page_s_cookies_do_not_lie_either(page: str, kept: bool) -> None:
    """Those that another cookie jar has taken by http are not kept."""
    cookies = Cookies()
    cookies.keep(page, [cookie("__Host-id", secure=True), cookie("__Secure-id", secure=True)])
    assert (b"__Secure-id=1" in cookies.header(AJAX)) == kept
    assert (b"__Host-id=1" in cookies.header(AJAX)) == kept


def test_cookies_of_a_page_are_kept_and_replaced() -> None:
    """One without a host is of the page's host; control characters never reach a head; the header follows changes."""
    cookies = Cookies()
    assert cookies.header(AJAX) == b""
    cookies.keep(PAGE, [cookie(), cookie("b", "2\r\nX: y", domain="chat.example.com")])
    assert cookies.header(AJAX) == b"Cookie: id=1; b=2X: y\r\n"
    assert cookies.header("https://example.com/") == b""
    cookies.take(AJAX, [b"b=3; Path=/", b"id=; Path=/; Max-Age=0"])
    assert cookies.header(AJAX) == b"Cookie: b=3\r\n"
    cookies.clear()
    assert cookies.header(AJAX) == b""


def test_a_cookie_expires_while_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prepared header doesn't outlive it by more than a second."""
    now = 1000.0
    monkeypatch.setattr("time.time", lambda: now)
    monkeypatch.setattr("time.monotonic", lambda: now)
    cookies = Cookies()
    cookies.take(AJAX, [b"id=1; Max-Age=10"])
    assert cookies.header(AJAX) == b"Cookie: id=1\r\n"
    now += 12
    assert cookies.header(AJAX) == b""


def test_a_site_that_sets_cookies_without_end_has_none_kept() -> None:
    """Their number is bounded, and so is the header."""
    cookies = Cookies()
    for number in range(400):
        cookies.take(AJAX, [b"c%d=1" % number])
    assert cookies.header(AJAX).count(b"=") <= 300


@pytest.mark.parametrize("keep", [True, False])
async def test_a_client_sends_back_what_it_was_given(keep: bool) -> None:
    """Cookies of a page and of answers; a client that keeps none sends none."""
    async with (
        server(reply(b"", "Set-Cookie: a=1; Path=/", "Set-Cookie: b=2; Path=/"), reply()) as upstream,
        client(keep_cookies=keep) as http,
    ):
        http.keep_cookies(upstream.url, (cookie(domain="127.0.0.1"),))
        await http.get(upstream.url, {})
        await http.get(upstream.url, {})
        http.keep_cookies(upstream.url, (cookie("new", domain="127.0.0.1"),), instead=True)
        await http.get(upstream.url, {})
        sent = [asked.headers.get("cookie") for asked in upstream.asked]
        assert sent == (["id=1", "id=1; a=1; b=2", "new=1"] if keep else [None] * 3)
