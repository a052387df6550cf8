"""Proxies of the environment: in absolute form for HTTP, as a tunnel for TLS."""

import asyncio
import ssl

import pytest

from app.domain.errors import UpstreamUnavailable
from tests.providers.http.server import Talk, client, reply, server

AUTHORIZATION = "Basic YWRhOnBAc3M="


def through(scheme: str, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{scheme}_proxy", f"http://ada:p%40ss@127.0.0.1:{port}")


async def test_http_goes_to_the_proxy_in_absolute_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy gets the URL and its own credentials; a host that is excepted is reached directly."""
    async with server(reply(b"proxied")) as proxy, server(reply(b"direct")) as upstream, client() as http:
        through("http", proxy.port, monkeypatch)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        for _ in range(2):
            assert (await http.get("http://upstream.invalid:81/a?b=c", {})).body == b"proxied"
        assert (await http.get(upstream.url, {})).body == b"direct"
        asked = proxy.asked[0]
        assert asked.line == "GET http://upstream.invalid:81/a?b=c HTTP/1.1"
        assert (asked.headers["host"], asked.headers["proxy-authorization"]) == ("upstream.invalid:81", AUTHORIZATION)
        assert "proxy-authorization" not in upstream.asked[0].headers
        assert proxy.connections == 1


@pytest.mark.usefixtures("trusted")
async def test_tls_goes_through_a_tunnel(tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy is told where to, once for the connection, and sees nothing of what is said."""

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", upstream.port)
        writer.write(b"HTTP/1.1 200 Connection established\r\nX-Proxy: yes\r\n\r\n")
        await asyncio.gather(_pipe(reader, back), _pipe(there, writer))

    async with server(reply(b"secret"), tls=tls) as upstream, server(tunnel) as proxy, client() as http:
        through("https", proxy.port, monkeypatch)
        for _ in range(2):
            assert (await http.post_json(upstream.url, b"{}", {})).body == b"secret"
        (asked,) = proxy.asked
        assert asked.line == f"CONNECT 127.0.0.1:{upstream.port} HTTP/1.1"
        assert asked.headers["proxy-authorization"] == AUTHORIZATION
        assert [one.line for one in upstream.asked] == ["POST /ask HTTP/1.1"] * 2
        assert "proxy-authorization" not in upstream.asked[0].headers


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(2**16):
        writer.write(data)
        await writer.drain()
    writer.close()


async def _hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def _garble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    await reader.read(1)
    writer.write(b"220 Welcome, and no TLS.\r\n")
    await reader.read()
    raise ConnectionResetError


REFUSALS: dict[str, tuple[bytes | Talk, str]] = {
    "a refusal": (reply(b"no", status="407 Proxy Authentication Required"), r"refuses the connection \(status 407\)"),
    "garbage": (b"\0\1\2\r\n\r\n", "doesn't speak HTTP"),
    "a head without end": (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 20_000, "doesn't speak HTTP"),
    "words of nobody": (b"HTTP/1.1 200 OK\r\n\r\nhello", "doesn't speak HTTP"),
    "a goodbye": (_hang_up, "closed the connection"),
    "no TLS behind it": (_garble, "No secure connection"),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_proxy_that_makes_no_tunnel_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever reads the message knows where to look; no connection is left."""
    answer, words = REFUSALS[name]
    async with server(answer) as proxy, client() as http:
        through("https", proxy.port, monkeypatch)
        with pytest.raises(UpstreamUnavailable, match=words):
            await http.get("https://upstream.invalid/", {})
        await proxy.left.wait()
        assert http._opened.in_use == 0
    assert caplog.records == []


async def test_a_proxy_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """SOCKS isn't spoken here."""
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1080")
    async with client() as http:
        with pytest.raises(UpstreamUnavailable, match="proxy that the environment names"):
            await http.get("http://upstream.invalid/", {})
