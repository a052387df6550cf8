"""cloudscraper with limits: on bytes, on time, and an end when nobody waits any more."""

import contextlib
import socket
import time
from collections.abc import Callable
from functools import partial
from http.client import RemoteDisconnected
from typing import Any

import cloudscraper
import requests
import urllib3
from msgspec import Struct
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection

from app.providers.http import HttpReply, failure_reason

_PART_BYTES = 64 * 1024
_PAGE_BYTES = 5 * 1024 * 1024


class Page(Struct, frozen=True):
    """A page, and its address after redirects."""

    url: str
    http: HttpReply


def fetch_failure_reason(error: BaseException) -> str:
    """Why a page could not be fetched, in a few words: what lies at the bottom of requests' and urllib3's errors."""
    if isinstance(error, requests.exceptions.ProxyError):
        return "proxy failed"
    beneath: list[object] = [error]
    seen: set[int] = set()
    while beneath:
        one = beneath.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, RemoteDisconnected):
            return "connection closed without a reply"
        if isinstance(one, OSError) and not isinstance(one, requests.RequestException):
            return failure_reason(one)
        beneath += [one.__cause__, getattr(one, "reason", None), *one.args, one.__context__]
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    is_http = isinstance(error, urllib3.exceptions.ProtocolError | requests.exceptions.ChunkedEncodingError)
    return "invalid HTTP" if is_http else "request failed"


class BoundedScraper(cloudscraper.CloudScraper):  # type: ignore[misc]  # cloudscraper ships no types
    """A scraper with a bound on a page's bytes and on the time of a whole fetch; requests' own timeout is per read.

    Until the headers have arrived, nothing makes urllib3 stop reading except the end of the connection. `abort` ends
    it.
    """

    def __init__(self) -> None:
        self._deadline = 0.0
        self._connections: dict[tuple[str, int | None], HTTPConnection] = {}
        self.aborted = False
        super().__init__()

    def fetch(self, url: str, timeout: float) -> Page:
        """Fetch a page.

        Args:
            url: Its address.
            timeout: Seconds for each read, and for the whole body once the headers have arrived.

        Raises:
            requests.RequestException, urllib3.exceptions.HTTPError, ValueError: The page can't be fetched.
            cloudscraper.exceptions.CloudflareException: Cloudflare's check can't be passed.
        """
        self._deadline = time.monotonic() + timeout
        response = self.get(
            url,
            params={"_": str(time.time_ns() // 1_000_000)},  # bypasses caches that would serve an old nonce
            headers={"Cache-Control": "no-cache", "Pragma": "no-cache"},
            timeout=timeout,
        )
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Page(response.url, HttpReply(response.status_code, headers, response.content))

    def abort(self) -> None:
        """Close all connections, from another thread, so that reads end now. The scraper can't be used again."""
        self.aborted = True
        for connection in tuple(self._connections.values()):
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    # Not SSLSocket.shutdown, which takes the TLS state away from the thread that reads.
                    socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)

    def perform_request(self, method: str, url: str, **options: object) -> requests.Response:
        """As cloudscraper does, but read the body within the bounds."""
        response: requests.Response = super().perform_request(method, url, **{**options, "stream": True})
        body = bytearray()
        with response:
            # read1 returns what has arrived; iter_content would wait for a full part, however slowly the page drips.
            while part := response.raw.read1(_PART_BYTES, decode_content=True):
                body += part
                if len(body) > _PAGE_BYTES or time.monotonic() > self._deadline:
                    raise requests.Timeout("The page is too long or too slow.")
        response._content = bytes(body)  # noqa: SLF001 - where requests keeps the body once it has been read
        return response

    def mount(self, prefix: str, adapter: Any) -> None:
        """As requests does, but keep track of the connections that the adapter opens."""
        adapter.get_connection_with_tls_context = partial(self._pool, adapter.get_connection_with_tls_context)
        super().mount(prefix, adapter)

    def _pool(self, find: Callable[..., Any], *arguments: object, **options: object) -> HTTPConnectionPool:
        pool: HTTPConnectionPool = find(*arguments, **options)
        kind: Any = type(pool).ConnectionCls
        pool.ConnectionCls = partial(self._connection, kind)  # type: ignore[assignment]  # it is only ever called
        return pool

    def _connection(self, kind: type[HTTPConnection], **options: Any) -> HTTPConnection:
        if self.aborted:
            raise requests.Timeout("The fetch was aborted.")
        connection = kind(**options)
        self._connections[connection.host, connection.port] = connection
        return connection
