"""cloudscraper, with an end: for so many bytes, so much time, and when nobody waits any more."""

import contextlib
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import cloudscraper
import requests
from msgspec import Struct
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection

from app.providers.http import HttpReply

_PART_BYTES = 64 * 1024
_PAGE_BYTES = 5 * 1024 * 1024


class Page(Struct, frozen=True):
    """What came, and the address that it came from in the end."""

    url: str
    http: HttpReply


class BoundedScraper(cloudscraper.CloudScraper):  # type: ignore[misc]  # cloudscraper ships no types
    """A scraper that reads no more than so many bytes for so long: requests' own timeout is only for each read.

    Until a page's head is there nothing but the connection's end makes urllib3 stop reading: that is what `abort` is
    for.
    """

    def __init__(self) -> None:
        self._deadline = 0.0
        self._connections: dict[tuple[str, int | None], HTTPConnection] = {}
        self.aborted = False
        super().__init__()

    def fetch(self, url: str, timeout: float) -> Page:
        """The page, within so many seconds as soon as its head is there.

        Raises:
            requests.RequestException, urllib3.exceptions.HTTPError, ValueError: It can't be had.
            cloudscraper.exceptions.CloudflareException: It is behind a challenge.
        """
        self._deadline = time.monotonic() + timeout
        response = self.get(
            url,
            params={"_": str(time.time_ns() // 1_000_000)},  # past caches that would serve an old nonce
            headers={"Cache-Control": "no-cache", "Pragma": "no-cache"},
            timeout=timeout,
        )
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Page(response.url, HttpReply(response.status_code, headers, response.content))

    def abort(self) -> None:
        """Hang up, from another thread: whatever is being read ends now. The scraper is of no further use."""
        self.aborted = True
        for connection in tuple(self._connections.values()):
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    # Not SSLSocket's own: it takes the TLS state away from the thread that reads.
                    socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)

    def perform_request(self, method: str, url: str, **options: object) -> requests.Response:
        """As cloudscraper's, reading the body."""
        response: requests.Response = super().perform_request(method, url, **{**options, "stream": True})
        body = bytearray()
        with response:
            # read1 gives what is there: iter_content would wait for a whole part, for as long as a page drips.
            while part := response.raw.read1(_PART_BYTES, decode_content=True):
                body += part
                if len(body) > _PAGE_BYTES or time.monotonic() > self._deadline:
                    raise requests.Timeout("The page is endless.")
        response._content = bytes(body)  # noqa: SLF001 - where requests keeps a body that has been read
        return response

    def mount(self, prefix: str, adapter: Any) -> None:
        """As requests', noting the connections that the adapter makes."""
        adapter.get_connection_with_tls_context = partial(self._pool, adapter.get_connection_with_tls_context)
        super().mount(prefix, adapter)

    def _pool(self, find: Callable[..., Any], *arguments: object, **options: object) -> HTTPConnectionPool:
        pool: HTTPConnectionPool = find(*arguments, **options)
        kind: Any = type(pool).ConnectionCls
        pool.ConnectionCls = partial(self._connection, kind)  # type: ignore[assignment]  # it is only ever called
        return pool

    def _connection(self, kind: type[HTTPConnection], **options: Any) -> HTTPConnection:
        if self.aborted:
            raise requests.Timeout("Nobody waits for the page any more.")
        connection = kind(**options)
        self._connections[connection.host, connection.port] = connection
        return connection
