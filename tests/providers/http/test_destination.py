"""Where a URL leads: what is asked for there, and through which proxy."""

import pytest

from app.providers.http.exceptions import InvalidProxyUrl, InvalidUrl
from tests.providers.http.server import client, reply, server

AUTHORIZATION = "Basic YWRhOnBAc3M="


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("", "GET / HTTP/1.1"),
        ("?q=1", "GET /?q=1 HTTP/1.1"),
        ("/a%20b/ä b?c=%C3#part", "GET /a%20b/%C3%A4%20b?c=%C3 HTTP/1.1"),
    ],
)
async def test_a_url_is_asked_for_as_it_is_meant(path: str, line: str) -> None:
    """What can't stand in a request line is quoted; what is quoted stays."""
    async with server(reply()) as upstream, client() as http:
        await http.get(f"http://127.0.0.1:{upstream.port}{path}", {})
        assert upstream.asked[0].line == line


async def test_a_url_may_carry_a_name_and_a_password() -> None:
    """They become an Authorization header."""
    async with server(reply()) as upstream, client() as http:
        await http.get(f"http://ada:p%40ss@127.0.0.1:{upstream.port}/", {})
        assert upstream.asked[0].headers["authorization"] == "Basic YWRhOnBAc3M="


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http://", "http://a b/", "http://h:99999/", "http://[::1/", "x"])
async def test_what_is_no_url_is_refused(url: str) -> None:
    """An upstream may have named it."""
    async with client() as http:
        with pytest.raises(InvalidUrl):
            await http.get(url, {})


async def test_http_goes_to_the_proxy_in_absolute_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy gets the URL and its own credentials; a host that is excepted is reached directly."""
    async with server(reply(b"proxied")) as proxy, server(reply(b"direct")) as upstream, client() as http:
        monkeypatch.setenv("http_proxy", f"http://ada:p%40ss@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        for _ in range(2):
            assert (await http.get("http://upstream.invalid:81/a?b=c", {})).body == b"proxied"
        assert (await http.get(upstream.url, {})).body == b"direct"
        asked = proxy.asked[0]
        assert asked.line == "GET http://upstream.invalid:81/a?b=c HTTP/1.1"
        assert (asked.headers["host"], asked.headers["proxy-authorization"]) == ("upstream.invalid:81", AUTHORIZATION)
        assert "proxy-authorization" not in upstream.asked[0].headers
        assert proxy.connections == 1


async def test_a_proxy_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """SOCKS isn't spoken here."""
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1080")
    async with client() as http:
        with pytest.raises(InvalidProxyUrl):
            await http.get("http://upstream.invalid/", {})
