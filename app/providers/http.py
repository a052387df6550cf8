"""The one place where the gateway sends HTTP to upstreams from the event loop, and where that client's errors end.

aiohttp, because a cancelled task aborts the exchange at once, and because it costs little: see docs/decisions.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import Cookie
from http.cookies import CookieError, Morsel
from urllib.parse import urlencode, urlsplit

import aiohttp
import requests.utils
from yarl import URL

from app.domain.errors import UnexpectedReply, UpstreamUnavailable

_CONNECT_SECONDS = 10.0
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_LONGEST_WAIT = 3600.0
_LONGEST_DATE = 64


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A whole answer. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """Posts forms, keeps cookies, follows no redirects. Open it inside a running event loop.

    Args:
        max_reply_bytes: A longer answer is refused.
    """

    def __init__(self, *, max_reply_bytes: int) -> None:
        self._max_reply_bytes = max_reply_bytes
        self._session: aiohttp.ClientSession | None = None
        self._proxies: dict[tuple[str, str], str | None] = {}

    async def open(self) -> None:
        """Make ready; no connection is made yet."""
        self._session = aiohttp.ClientSession(
            # How many requests run at once is decided by each provider's bulkhead.
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60),
            cookie_jar=aiohttp.CookieJar(unsafe=True, quote_cookie=False),
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
        data = urlencode(form, errors="replace").encode()
        try:
            async with self._opened.post(
                url, data=data, headers={**headers, **_FORM}, allow_redirects=False, proxy=self._proxy(url)
            ) as response:
                body = await self._read(response)
                lowered = {name.lower(): value for name, value in response.headers.items()}
                return HttpReply(response.status, lowered, body)
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
            raise _translated(error) from error

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

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for part in response.content.iter_any():
            body += part
            if len(body) > self._max_reply_bytes:
                raise UnexpectedReply(f"The upstream's answer is longer than {self._max_reply_bytes} bytes.")
        return bytes(body)


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
