"""Makes connections: name, socket, proxy, TLS; and says what goes wrong on the way."""

import asyncio
import re
import ssl
from collections.abc import Callable
from socket import gaierror

from aiohappyeyeballs import start_connection

from app.domain.errors import UpstreamUnavailable
from app.providers.http.connection import Connection
from app.providers.http.names import Names
from app.providers.http.route import Proxy, Route
from app.providers.http.tls import Tls

_CONNECT_SECONDS = 10.0
# So long the first address may take before the next one is tried beside it.
_HEAD_START_SECONDS = 0.25
_LONGEST_HEAD = 16 * 1024
_STATUS = re.compile(rb"HTTP/1\.\d (\d{3})\b")
_NO_CONNECTION = "No connection to the upstream can be made."


class Connector:
    """Connects to upstreams. Use it in one event loop only.

    Args:
        tls: For secure connections.
    """

    def __init__(self, tls: Tls) -> None:
        self._names = Names()
        self._tls = tls

    def close(self) -> None:
        """Stop looking names up."""
        self._names.close()

    async def connect(self, connection: Connection) -> None:
        """Open a connection.

        Raises:
            UpstreamUnavailable: It can't be had.
        """
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._connect(connection, connection.route)
        except OSError as error:
            raise _translated(error) from error

    async def _connect(self, connection: Connection, route: Route) -> None:
        if route.proxy is None:
            await self._open(lambda: connection, route.host, route.port, tls=route.tls)
        elif route.tls:
            await self._tunnel(connection, route, route.proxy)
        else:
            await self._open(lambda: connection, route.proxy.host, route.proxy.port, tls=route.proxy.tls)

    async def _open(
        self, protocol: Callable[[], asyncio.Protocol], host: str, port: int, *, tls: bool
    ) -> asyncio.Transport:
        loop = asyncio.get_running_loop()
        context = await self._tls.context() if tls else None
        addresses = await self._names.addresses(host, port)
        connected = await start_connection(addresses, happy_eyeballs_delay=_HEAD_START_SECONDS, loop=loop)
        try:
            transport, _ = await loop.create_connection(
                protocol, sock=connected, ssl=context, server_hostname=host.rstrip(".") if tls else None
            )
        except BaseException:
            connected.close()
            raise
        return transport

    async def _tunnel(self, connection: Connection, route: Route, proxy: Proxy) -> None:
        """Have the proxy connect, and speak TLS with the upstream through it."""
        tunnel = _Tunnel()
        transport = await self._open(lambda: tunnel, proxy.host, proxy.port, tls=proxy.tls)
        try:
            transport.write(_connect_request(route, proxy))
            await tunnel.opened
            # The connection comes in afterwards: before, it would hear of an end without a beginning.
            secured = await asyncio.get_running_loop().start_tls(
                transport, tunnel, await self._tls.context(), server_hostname=route.host.rstrip(".")
            )
            if secured is None or secured.is_closing():
                raise ConnectionResetError
        except BaseException:
            transport.abort()
            raise
        secured.set_protocol(connection)
        connection.connection_made(secured)


class _Tunnel(asyncio.Protocol):
    """Waits for the proxy's word."""

    def __init__(self) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._head = b""

    def data_received(self, data: bytes) -> None:
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end and len(head) <= _LONGEST_HEAD:
            return
        status = _STATUS.match(head)
        if status is not None and status[1][:1] != b"2":
            self._fail(f"The proxy on the way to the upstream refuses the connection (status {int(status[1])}).")
        # Behind the proxy nobody has been asked anything yet.
        elif status is None or not end or rest:
            self._fail("The proxy on the way to the upstream doesn't speak HTTP.")
        elif not self.opened.done():
            self.opened.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio's interface
        self._fail("The proxy on the way to the upstream closed the connection.")

    def _fail(self, message: str) -> None:
        if not self.opened.done():
            self.opened.set_exception(UpstreamUnavailable(message))
            # Whoever waits for it may have left.
            self.opened.exception()


def _connect_request(route: Route, proxy: Proxy) -> bytes:
    lines = [f"CONNECT {route.authority} HTTP/1.1", f"Host: {route.authority}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    return "\r\n".join([*lines, "", ""]).encode()


def _translated(error: OSError) -> UpstreamUnavailable:
    """Our error for one of the system's: the first row that matches, most specific ones first."""
    rows: tuple[tuple[type[OSError], str], ...] = (
        (gaierror, "The upstream's host name can't be resolved."),
        (ssl.SSLCertVerificationError, "The upstream's certificate isn't valid."),
        (ssl.SSLError, "No secure connection to the upstream can be made."),
        (TimeoutError, f"The upstream didn't take a connection within {_CONNECT_SECONDS:g} seconds."),
    )
    return UpstreamUnavailable(next((message for kind, message in rows if isinstance(error, kind)), _NO_CONNECTION))
