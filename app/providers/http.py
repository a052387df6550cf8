"""The one place where the gateway sends HTTP to upstreams from the event loop, and where that client's errors end.

aiohttp, because a cancelled task aborts the exchange at once, and because it costs little: see docs/decisions.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import Cookie
from http.cookies import CookieError, Morsel
from urllib.parse import urlsplit

import aiohttp
import requests.utils
from yarl import URL

from app.domain.errors import UnexpectedReply, UpstreamUnavailable

_CONNECT_SECONDS = 10.0
_LONGEST_WAIT = 3600.0
_LONGEST_DATE = 64
_FINISH_SECONDS = 0.1
_TROUBLE = (aiohttp.ClientError, OSError, asyncio.IncompleteReadError)


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A whole answer. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpStream:
    """An answer that is read part by part. Header names are in lower case."""

    def __init__(self, response: aiohttp.ClientResponse, max_reply_bytes: int) -> None:
        self._response = response
        self._max_reply_bytes = max_reply_bytes
        self.status = response.status
        self.headers: Mapping[str, str] = _lowered(response)

    async def next_part(self) -> bytes:
        """The next bytes as they come in; none at all at the end.

        Raises:
            UpstreamUnavailable: The connection was lost.
        """
        try:
            return await self._response.content.readany()
        except _TROUBLE as error:
            raise _translated(error) from error

    async def whole(self) -> HttpReply:
        """The answer, read to its end.

        Raises:
            UpstreamUnavailable: The connection was lost.
            UnexpectedReply: The answer is too long.
        """
        body = bytearray()
        while part := await self.next_part():
            body += part
            if len(body) > self._max_reply_bytes:
                raise UnexpectedReply(f"The upstream's answer is longer than {self._max_reply_bytes} bytes.")
        return HttpReply(self.status, self.headers, bytes(body))

    async def finish(self) -> None:
        """Read the end, if it comes at once: then the connection can be used again."""
        with contextlib.suppress(TimeoutError, UpstreamUnavailable):
            async with asyncio.timeout(_FINISH_SECONDS):
                while await self.next_part():
                    pass


class HttpClient:
    """Posts forms and JSON, keeps cookies, follows no redirects. Open it inside a running event loop.

    Args:
        max_reply_bytes: A longer answer is refused.
        keep_cookies: Not wanted where clients of several upstreams share one client.
    """

    def __init__(self, *, max_reply_bytes: int, keep_cookies: bool = True) -> None:
        self._max_reply_bytes = max_reply_bytes
        self._keep_cookies = keep_cookies
        self._session: aiohttp.ClientSession | None = None
        self._proxies: dict[tuple[str, str], str | None] = {}

    async def open(self) -> None:
        """Make ready; no connection is made yet."""
        jar = aiohttp.CookieJar(unsafe=True, quote_cookie=False) if self._keep_cookies else aiohttp.DummyCookieJar()
        self._session = aiohttp.ClientSession(
            # How many requests run at once is decided by each provider's bulkhead.
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60),
            cookie_jar=jar,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
        )

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    def keep_cookies(self, page_url: str, cookies: tuple[Cookie, ...], *, instead: bool = False) -> None:
        """Send these cookies along from now on, to the hosts and paths that they are meant for.

        Args:
            instead: And none of those that were kept before.
        """
        if instead:
            self._opened.cookie_jar.clear()
        for cookie in cookies:
            morsel: Morsel[str] = Morsel()
            try:
                morsel.set(cookie.name, cookie.value or "", cookie.value or "")
            except CookieError:
                continue
            morsel["path"] = cookie.path
            if cookie.domain_specified:
                morsel["domain"] = cookie.domain.lstrip(".")
            self._opened.cookie_jar.update_cookies([(cookie.name, morsel)], URL(page_url))

    async def post_form(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> HttpReply:
        """Send a form; returns the whole answer, whatever its status.

        Raises:
            UpstreamUnavailable: No connection, or it was lost on the way.
            UnexpectedReply: The answer is too long, or no HTTP.
        """
        async with self._exchange("POST", url, headers, form) as stream:
            return await stream.whole()

    async def get(self, url: str, headers: Mapping[str, str]) -> HttpReply:
        """Fetch something; returns the whole answer, whatever its status. Raises as `post_form`."""
        async with self._exchange("GET", url, headers, None) as stream:
            return await stream.whole()

    async def post_json(self, url: str, body: bytes, headers: Mapping[str, str]) -> HttpReply:
        """Send JSON; returns the whole answer, whatever its status. Raises as `post_form`."""
        async with self.stream_json(url, body, headers) as stream:
            return await stream.whole()

    def stream_json(self, url: str, body: bytes, headers: Mapping[str, str]) -> AbstractAsyncContextManager[HttpStream]:
        """Send JSON; gives the answer, whatever its status, as soon as its headers are there.

        Leaving the context drops the connection unless the answer has been read to its end.

        Raises:
            UpstreamUnavailable: No connection, or it was lost on the way.
            UnexpectedReply: The answer is no HTTP.
        """
        return self._exchange("POST", url, {"Content-Type": "application/json", **headers}, body)

    @asynccontextmanager
    async def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], data: Mapping[str, str] | bytes | None
    ) -> AsyncGenerator[HttpStream, None]:
        try:
            response = await self._opened.request(
                method, url, data=data, headers=headers, allow_redirects=False, proxy=self._proxy(url)
            )
        except _TROUBLE as error:
            raise _translated(error) from error
        async with response:
            yield HttpStream(response, self._max_reply_bytes)

    def _proxy(self, url: str) -> str | None:
        """The proxy that the environment names for a URL, as cloudscraper's requests would find it.

        Looked up once for each host; aiohttp's own `trust_env` does it in a thread for every request.
        """
        parts = urlsplit(url)
        place = (parts.scheme, parts.netloc)
        if place not in self._proxies:
            proxies = requests.utils.get_environ_proxies(url)
            self._proxies[place] = requests.utils.select_proxy(url, proxies)
        return self._proxies[place]

    @property
    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("The HTTP client has not been opened.")
        return self._session


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the `Retry-After` header asks for (it may also give a date), at most an hour; None without one."""
    value = headers.get("retry-after", "").strip()[:_LONGEST_DATE]
    if value.isascii() and value.isdigit():
        return min(float(value), _LONGEST_WAIT)
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        wait = (moment - datetime.now(UTC)).total_seconds()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, wait), _LONGEST_WAIT)


def _lowered(response: aiohttp.ClientResponse) -> Mapping[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _translated(error: Exception) -> UpstreamUnavailable | UnexpectedReply:
    """Our error for one of aiohttp's: the first row that matches, most specific ones first."""
    rows: tuple[tuple[type[Exception], str], ...] = (
        (aiohttp.ClientConnectorDNSError, "The upstream's host name can't be resolved."),
        (aiohttp.ClientConnectorCertificateError, "The upstream's certificate isn't valid."),
        (aiohttp.ClientSSLError, "No secure connection to the upstream can be made."),
        (aiohttp.ConnectionTimeoutError, f"The upstream didn't take a connection within {_CONNECT_SECONDS:g} seconds."),
        (aiohttp.ClientConnectorError, "No connection to the upstream can be made."),
        (aiohttp.ClientPayloadError, "The upstream broke off in the middle of its answer."),
        (aiohttp.ClientConnectionError, "The upstream closed the connection without an answer."),
        (OSError, "The connection to the upstream was lost."),
    )
    for kind, message in rows:
        if isinstance(error, kind):
            return UpstreamUnavailable(message)
    return UnexpectedReply("The upstream's answer is not valid HTTP.")
