"""How connections are made, what keeps them from being made, and tunnels through proxies."""

import asyncio
import socket
import ssl

import pytest

from app.providers.http.connector import Addresses, Resolver
from app.providers.http.exceptions import (
    ConnectError,
    ConnectTimeout,
    InvalidCertificate,
    NameNotResolved,
    ProxyConnectionLost,
    ProxyProtocolError,
    ProxyRefused,
    TlsError,
)
from tests.ports import free_port
from tests.providers.http.server import Talk, client, reply, server, until

AUTHORIZATION = "Basic YWRhOnBAc3M="


def _through(scheme: str, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{scheme}_proxy", f"http://ada:p%40ss@127.0.0.1:{port}")


async def test_a_name_is_found() -> None:
    """localhost is looked up, whatever families it has."""
    async with server(reply()) as upstream, client() as http:
        url = upstream.url.replace("127.0.0.1", "localhost")
        assert [(await http.get(url, {})).body for _ in range(2)] == [b"well"] * 2
        assert upstream.asked[0].headers["host"] == f"localhost:{upstream.port}"


async def test_many_ask_for_a_name_and_it_is_looked_up_once() -> None:
    """At the same time and afterwards; a failure is told to all who wait, and not kept; who leaves takes nothing."""
    asked = []
    found: Addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))]

    async def look_up(host: str, _: int) -> Addresses:
        asked.append(host)
        await asyncio.sleep(0)
        if len(asked) == 1:
            raise socket.gaierror
        return found

    resolver = Resolver(look_up)
    failed = await asyncio.gather(*(resolver.resolve("h", 80) for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in failed] == [socket.gaierror] * 3
    leaving = asyncio.create_task(resolver.resolve("h", 80))
    waiting = [asyncio.create_task(resolver.resolve("h", 80)) for _ in range(3)]
    await until(lambda: len(asked) == 2)
    leaving.cancel()
    assert await asyncio.gather(*waiting) == [found] * 3
    assert await resolver.resolve("h", 80) == found
    assert asked == ["h", "h"]


async def test_what_keeps_a_connection_from_being_made_is_said(
    tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody there, no such name, a certificate that nobody has signed, no TLS at all."""
    plain = await asyncio.start_server(_greet, "127.0.0.1", 0)
    async with server(reply(), tls=tls) as secure, client() as http, plain:
        for url, error in {
            f"http://127.0.0.1:{free_port()}/": ConnectError,
            "http://no-such-host.invalid/": NameNotResolved,
            secure.url: InvalidCertificate,
            f"https://127.0.0.1:{plain.sockets[0].getsockname()[1]}/": TlsError,
        }.items():
            with pytest.raises(error) as raised:
                await http.get(url, {})
            assert raised.type is error
        monkeypatch.setattr("app.providers.http.connector._CONNECT_SECONDS", 0.01)
        monkeypatch.setattr(Resolver, "resolve", _never)
        with pytest.raises(ConnectTimeout, match=r"within 0\.01 seconds"):
            await http.get("http://slow.invalid/", {})


async def _greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 Welcome, and no TLS.\r\n")
    writer.close()


async def _never(*_: object) -> Addresses:
    await asyncio.Event().wait()
    return []


@pytest.mark.usefixtures("trusted")
async def test_a_secure_connection_is_used_again(tls: ssl.SSLContext) -> None:
    """With a certificate that the machine trusts; large bodies go both ways."""
    async with server(reply(b"x" * 900_000), tls=tls) as upstream, client() as http:
        for _ in range(3):
            got = await http.post_json(upstream.url, b"y" * 3_000_000, {})
            assert len(got.body) == 900_000
        assert [len(asked.body) for asked in upstream.asked] == [3_000_000] * 3
        assert upstream.connections == 1


@pytest.mark.usefixtures("trusted")
async def test_tls_goes_through_a_tunnel(tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy is told where to, once for the connection, and sees nothing of what is said."""

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", upstream.port)
        writer.write(b"HTTP/1.1 200 Connection established\r\nX-Proxy: yes\r\n\r\n")
        await asyncio.gather(_pipe(reader, back), _pipe(there, writer))

    async with server(reply(b"secret"), tls=tls) as upstream, server(tunnel) as proxy, client() as http:
        _through("https", proxy.port, monkeypatch)
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


REFUSALS: dict[str, tuple[bytes | Talk, type[ConnectError]]] = {
    "a refusal": (reply(b"no", status="407 Proxy Authentication Required"), ProxyRefused),
    "garbage": (b"\0\1\2\r\n\r\n", ProxyProtocolError),
    "a head without end": (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 20_000, ProxyProtocolError),
    "words of nobody": (b"HTTP/1.1 200 OK\r\n\r\nhello", ProxyProtocolError),
    "a goodbye": (_hang_up, ProxyConnectionLost),
    "no TLS behind it": (_garble, TlsError),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_proxy_that_makes_no_tunnel_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever reads the message knows where to look; no connection is left."""
    answer, error = REFUSALS[name]
    async with server(answer) as proxy, client() as http:
        _through("https", proxy.port, monkeypatch)
        with pytest.raises(error):
            await http.get("https://upstream.invalid/", {})
        await proxy.left.wait()
        assert http._opened.in_use == 0
    assert caplog.records == []
