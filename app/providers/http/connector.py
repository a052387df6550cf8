"""Makes connections: host name, socket, proxy, TLS."""

import asyncio
import contextlib
import ipaddress
import re
import socket
import ssl
from collections.abc import Callable, Coroutine, Sequence
from typing import TypeAlias

from aiohappyeyeballs import AddrInfoType, start_connection

from app.providers.http.connection import Connection
from app.providers.http.destination import Destination, Proxy
from app.providers.http.exceptions import (
    ConnectError,
    ConnectTimeout,
    InvalidCertificate,
    NameNotResolved,
    ProxyConnectionLost,
    ProxyError,
    ProxyProtocolError,
    ProxyRefused,
    TlsError,
)
from app.providers.http.reasons import failure_reason

_CONNECT_SECONDS = 10.0
# How long the first address is tried alone before the next one is tried as well.
_HEAD_START_SECONDS = 0.25
_ADDRESS_SECONDS = 60.0
_MAX_HEAD = 16 * 1024
_STATUS_LINE = re.compile(rb"HTTP/1\.\d (\d{3})\b")

Addresses: TypeAlias = Sequence[AddrInfoType]
LookUp: TypeAlias = Callable[[str, int], Coroutine[None, None, Addresses]]


class Tls:
    """Trusts the certificate authorities of this machine. They are read on first use, in a thread: it takes a while.

    Share one among clients. Use it in one event loop only.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._context: ssl.SSLContext | None = None

    async def context(self) -> ssl.SSLContext:
        """Return the context for connections to servers."""
        async with self._lock:
            if self._context is None:
                self._context = await asyncio.to_thread(_make_context)
            return self._context


class Resolver:
    """Resolves host names: one lookup for all who ask at the same time, and in the minute after. One event loop only.

    Args:
        look_up: Asks the name server; the system's resolver by default.
    """

    def __init__(self, look_up: LookUp | None = None) -> None:
        self._look_up = look_up or _look_up
        self._known: dict[tuple[str, int], tuple[float, Addresses]] = {}
        self._running: dict[tuple[str, int], asyncio.Task[Addresses]] = {}

    def close(self) -> None:
        """Cancel the lookups that are running."""
        for task in self._running.values():
            task.cancel()

    async def resolve(self, host: str, port: int) -> Addresses:
        """Return the addresses of a host.

        Raises:
            OSError: The name is unknown, or no name server can tell.
        """
        key = (host, port)
        loop = asyncio.get_running_loop()
        until, addresses = self._known.get(key, (0.0, []))
        if loop.time() < until:
            return addresses
        if _is_address(host):
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = loop.create_task(self._look_up(host, port))
            task.add_done_callback(lambda done: self._resolved(key, done))
        # Shielded: whoever gives up waiting doesn't end the lookup for the others.
        return await asyncio.shield(task)

    def _resolved(self, key: tuple[str, int], task: "asyncio.Task[Addresses]") -> None:
        del self._running[key]
        # Reading the exception marks it as seen: everybody who waited may have left.
        if not task.cancelled() and task.exception() is None:
            self._known[key] = (asyncio.get_running_loop().time() + _ADDRESS_SECONDS, task.result())


class Connector:
    """Opens connections. Use it in one event loop only.

    Args:
        tls: For https, and for proxies that are reached by TLS.
    """

    def __init__(self, tls: Tls) -> None:
        self._resolver = Resolver()
        self._tls = tls

    def close(self) -> None:
        """Stop resolving names."""
        self._resolver.close()

    async def connect(self, connection: Connection) -> None:
        """Open a connection to its destination.

        Raises:
            ConnectError: It can't be opened.
        """
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._connect(connection, connection.destination)
        except ConnectError as error:  # the proxy's
            error.server = connection.destination.server
            raise
        except OSError as error:
            failure = _connect_error(error)
            failure.server = connection.destination.server
            raise failure from error

    async def _connect(self, connection: Connection, destination: Destination) -> None:
        proxy = destination.proxy
        if proxy is None:
            await self._open(lambda: connection, destination.host, destination.port, tls=destination.tls)
        elif destination.tls:
            await self._open_tunnel(connection, destination, proxy)
        else:
            await self._open(lambda: connection, proxy.host, proxy.port, tls=proxy.tls)

    async def _open(
        self, protocol: Callable[[], asyncio.Protocol], host: str, port: int, *, tls: bool
    ) -> asyncio.Transport:
        loop = asyncio.get_running_loop()
        context = await self._tls.context() if tls else None
        addresses = await self._resolver.resolve(host, port)
        connected = await start_connection(addresses, happy_eyeballs_delay=_HEAD_START_SECONDS, loop=loop)
        try:
            transport, _ = await loop.create_connection(
                protocol, sock=connected, ssl=context, server_hostname=host.rstrip(".") if tls else None
            )
        except BaseException:
            connected.close()
            raise
        return transport

    async def _open_tunnel(self, connection: Connection, destination: Destination, proxy: Proxy) -> None:
        """Have the proxy connect, then speak TLS with the server through it."""
        tunnel = _Tunnel()
        transport = await self._open(lambda: tunnel, proxy.host, proxy.port, tls=proxy.tls)
        try:
            transport.write(_connect_request(destination, proxy))
            await tunnel.established
            # The connection takes over afterwards: during the handshake it could be lost before it was made.
            secured = await asyncio.get_running_loop().start_tls(
                transport, tunnel, await self._tls.context(), server_hostname=destination.host.rstrip(".")
            )
            if secured is None or secured.is_closing():
                raise ConnectionResetError
        except BaseException:
            transport.abort()
            raise
        secured.set_protocol(connection)
        connection.connection_made(secured)


class _Tunnel(asyncio.Protocol):
    """Waits for the proxy's answer to `CONNECT`."""

    def __init__(self) -> None:
        self.established: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end and len(head) <= _MAX_HEAD:
            return
        status = _STATUS_LINE.match(head)
        if status is not None and status[1][:1] != b"2":
            self._fail(ProxyRefused(int(status[1])))
        # Anything behind the head can't come from the server: nothing has been said to it yet.
        elif status is None or not end or rest:
            self._fail(ProxyProtocolError())
        elif not self.established.done():
            self.established.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio's interface
        self._fail(ProxyConnectionLost())

    def _fail(self, error: ProxyError) -> None:
        if not self.established.done():
            self.established.set_exception(error)
            # Reading it marks it as seen: the task that waited may have left.
            self.established.exception()


def _connect_error(error: OSError) -> ConnectError:
    reason = failure_reason(error)
    # All of them are OSErrors: the most specific ones come first.
    if isinstance(error, socket.gaierror):
        return NameNotResolved(reason=reason)
    if isinstance(error, ssl.SSLCertVerificationError):
        return InvalidCertificate(reason=reason)
    if isinstance(error, ssl.SSLError):
        return TlsError(reason=reason)
    return ConnectTimeout(_CONNECT_SECONDS) if isinstance(error, TimeoutError) else ConnectError(reason=reason)


def _connect_request(destination: Destination, proxy: Proxy) -> bytes:
    lines = [f"CONNECT {destination.authority} HTTP/1.1", f"Host: {destination.authority}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    return "\r\n".join([*lines, "", ""]).encode()


async def _look_up(host: str, port: int) -> Addresses:
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _make_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    with contextlib.suppress(NotImplementedError):  # an OpenSSL without ALPN
        context.set_alpn_protocols(["http/1.1"])
    return context
