"""cloudscraper with limits: on bytes, on time, and an end when nobody waits any more."""

import contextlib
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from http.client import HTTPException, HTTPResponse, RemoteDisconnected, parse_headers
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import cloudscraper
import requests
import urllib3
from msgspec import Struct
from requests.utils import requote_uri
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection

from app.domain.errors import CloudflareChallenge, SiteChanged, UpstreamUnavailable
from app.providers.http import HttpReply, address_of, failure_reason, server_of

_PART_BYTES = 64 * 1024
_PAGE_BYTES = 5 * 1024 * 1024
_MOST_REDIRECTS = 5
_MOST_COOKIES = 300
# Of these nothing follows a 101, and 100 is passed over by the library.
_FIRST_INTERIM, _LAST_INTERIM = 102, 199
_MOST_INTERIM = 50
_HUNG_UP = ("connection reset", "connection closed without a reply")


class Page(Struct, frozen=True):
    """A page, and its address after redirects."""

    url: str
    http: HttpReply


def fetch_failure_reason(error: BaseException) -> str:
    """Why a page could not be fetched, in a few words: what lies at the bottom of requests' and urllib3's errors."""
    if isinstance(error, requests.exceptions.ProxyError | requests.TooManyRedirects):
        return "proxy failed" if isinstance(error, requests.exceptions.ProxyError) else "too many redirects"
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


class RedirectRefused(Exception):
    """The page redirects to where its cookies and messages must not go.

    Args:
        address: Where to, without what may be secret.
        is_downgrade: From https to http.
    """

    def __init__(self, address: str, *, is_downgrade: bool) -> None:
        super().__init__()
        self.address = address
        self.is_downgrade = is_downgrade


class _FinalResponse(HTTPResponse):
    """A response behind interim ones, such as 103 Early Hints. The standard library passes over 100 only."""

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(_MOST_INTERIM):
            version, status, reason = super()._read_status()  # type: ignore[misc]  # where the library reads it itself
            if not _FIRST_INTERIM <= status <= _LAST_INTERIM:
                return version, status, reason
            parse_headers(self.fp)
        raise HTTPException("too many interim responses")


class BoundedScraper(cloudscraper.CloudScraper):  # type: ignore[misc]  # cloudscraper ships no types
    """A scraper with a bound on a page's bytes and on the time of a whole fetch; requests' own timeout is per read.

    Until the headers have arrived, nothing makes urllib3 stop reading except the end of the connection. `abort` ends
    it.
    """

    def __init__(self) -> None:
        self._deadline = 0.0
        self._at = ""
        self._connections: dict[tuple[str, int | None], HTTPConnection] = {}
        self.aborted = False
        super().__init__()

    def visit(self, url: str, timeout: float) -> Page:
        """Fetch the chat page.

        Args:
            url: Its address.
            timeout: Seconds for each read, and for the whole body once the headers have arrived.

        Raises:
            UpstreamError: It can't be fetched.
        """
        try:
            return self._visit(url, timeout)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise UpstreamUnavailable(
                "The Kimi site's chat page can't be reached.",
                reason=fetch_failure_reason(error),
                server=server_of(url),
            ) from error
        except RedirectRefused as error:
            raise _redirect_error(error) from error
        except cloudscraper.exceptions.CloudflareException as error:
            raise CloudflareChallenge("The gateway can't pass Cloudflare's check in front of the Kimi site.") from error
        except ValueError as error:
            raise SiteChanged("The Kimi site's chat page redirects to an invalid address.") from error
        finally:
            # cloudscraper turns tracebacks off for the whole process when it raises.
            if hasattr(sys, "tracebacklimit"):
                del sys.tracebacklimit

    def _visit(self, url: str, timeout: float) -> Page:
        self._deadline = time.monotonic() + timeout
        self._at = url
        headers = {"Cache-Control": "no-cache", "Pragma": "no-cache"}
        # The parameter bypasses caches that would serve an old nonce.
        fresh = {"_": str(time.time_ns() // 1_000_000)}
        response = self._get(url, params=fresh, headers=headers, timeout=timeout)
        for _ in range(_MOST_REDIRECTS):
            target = super().get_redirect_target(response)
            if target is None:
                break
            response = self._get(urljoin(response.url, requote_uri(target)), headers=headers, timeout=timeout)
        else:
            raise requests.TooManyRedirects("The page redirects again and again.")
        if len(self.cookies) > _MOST_COOKIES:
            self.cookies.clear()
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Page(response.url, HttpReply(response.status_code, headers, response.content))

    def _get(self, url: str, **options: Any) -> requests.Response:
        """Get a URL: once more if a connection that was kept turns out to have been closed by the server meanwhile."""
        may_be_old = bool(self._connections)
        try:
            response: requests.Response = self.get(url, **options)
        except requests.ConnectionError as error:
            if self.aborted or not may_be_old or fetch_failure_reason(error) not in _HUNG_UP:
                raise
            response = self.get(url, **options)
        return response

    def abort(self) -> None:
        """Close all connections, from another thread, so that reads end now. The scraper can't be used again."""
        self.aborted = True
        for connection in tuple(self._connections.values()):
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    # Not SSLSocket.shutdown, which takes the TLS state away from the thread that reads.
                    socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Say that there is no redirect: `fetch` follows them, because requests reads their bodies without a bound."""

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """As requests does, but only to the page's own host: redirects and Cloudflare's challenges come by here."""
        url = request.url or ""
        if not _is_same_site(self._at, url):
            is_downgrade = urlsplit(self._at).hostname == urlsplit(url).hostname and url.startswith("http:")
            raise RedirectRefused(address_of(url), is_downgrade=is_downgrade)
        self._at = url
        response: requests.Response = super().send(request, **options)
        return response

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
        connection.response_class = _FinalResponse
        self._connections[connection.host, connection.port] = connection
        return connection


def _is_same_site(here: str, there: str) -> bool:
    """Whether a page may send its visitor there: to its own host, by http no more once it was https."""
    one, other = urlsplit(here), urlsplit(there)
    if one.hostname != other.hostname:
        return False
    return other.scheme == "https" if one.scheme != other.scheme else _port(one) == _port(other)


def _port(parts: SplitResult) -> int | None:
    return parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _redirect_error(refused: RedirectRefused) -> SiteChanged:
    # Where to is for the operator's log: it may be nobody else's business.
    if refused.is_downgrade:
        return SiteChanged(
            "The Kimi site's chat page redirects from https to http, where cookies and messages aren't safe. "
            "Check CHAT_PAGE_URL.",
            reason="page redirects from https to http",
            server=refused.address,
        )
    return SiteChanged(
        "The Kimi site's chat page redirects to another host. If the site is there now, set CHAT_PAGE_URL to its "
        "address there, which is in the gateway's log.",
        reason="page redirects to another host",
        server=refused.address,
    )
