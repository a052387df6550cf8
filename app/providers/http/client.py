"""The client itself: prepares heads, finds a connection, and hands answers out."""

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from http.cookiejar import Cookie
from urllib.parse import urlsplit

import requests.utils
from msgspec import Struct

from app.domain.errors import UnexpectedReply
from app.providers.http.connecting import Connector
from app.providers.http.connection import Connection
from app.providers.http.cookies import Cookies
from app.providers.http.decoding import ACCEPTED
from app.providers.http.form import encode_form
from app.providers.http.pool import Pool
from app.providers.http.reply import HttpReply, HttpStream
from app.providers.http.route import Route, Target, read_url
from app.providers.http.tls import Tls

_DEFAULTS = {"Accept": "*/*", "Accept-Encoding": ACCEPTED, "User-Agent": "kimi-ai-2api"}
# How a message is framed, and what happens to its connection, is ours to say.
_OURS = frozenset(
    {"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
_CONTROLS = re.compile(r"[\r\n\0]")
# Heads are as many as there are URLs with their headers: one each.
_MOST_HEADS = 64


class _Prepared(Struct, frozen=True):
    """What all requests with the same URL and headers share."""

    route: Route
    head: bytes


class HttpClient:
    """Posts forms and JSON, keeps cookies, follows no redirects. Open it inside a running event loop.

    Args:
        max_reply_bytes: A longer answer is refused.
        keep_cookies: Not wanted where clients of several upstreams share one client.
        tls: May be shared with other clients; one of its own without.
    """

    def __init__(self, *, max_reply_bytes: int, keep_cookies: bool = True, tls: Tls | None = None) -> None:
        self._max_reply_bytes = max_reply_bytes
        self._cookies = Cookies() if keep_cookies else None
        self._tls = tls or Tls()
        self._pool: Pool | None = None
        self._proxies: dict[tuple[str, str], str | None] = {}
        self._heads: dict[object, _Prepared] = {}

    async def open(self) -> None:
        """Make ready; no connection is made yet."""
        self._connector = Connector(self._tls)
        self._pool = Pool()

    async def aclose(self) -> None:
        """Close all connections."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            self._connector.close()
            await pool.aclose()

    def keep_cookies(self, page_url: str, cookies: tuple[Cookie, ...], *, instead: bool = False) -> None:
        """Send these cookies along from now on, to the hosts and paths that they are meant for.

        Args:
            instead: And none of those that were kept before.
        """
        if self._cookies is None:
            return
        if instead:
            self._cookies.clear()
        self._cookies.keep(page_url, cookies)

    async def post_form(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> HttpReply:
        """Send a form; returns the whole answer, whatever its status.

        Raises:
            UpstreamUnavailable: No connection, or it was lost on the way.
            UnexpectedReply: The answer is too long, or no HTTP.
        """
        return await self._whole("POST", url, "application/x-www-form-urlencoded", headers, encode_form(form))

    async def get(self, url: str, headers: Mapping[str, str]) -> HttpReply:
        """Fetch something; returns the whole answer, whatever its status. Raises as `post_form`."""
        return await self._whole("GET", url, "", headers, None)

    async def post_json(self, url: str, body: bytes, headers: Mapping[str, str]) -> HttpReply:
        """Send JSON; returns the whole answer, whatever its status. Raises as `post_form`."""
        return await self._whole("POST", url, "application/json", headers, body)

    @asynccontextmanager
    async def stream_json(self, url: str, body: bytes, headers: Mapping[str, str]) -> AsyncGenerator[HttpStream, None]:
        """Send JSON; gives the answer, whatever its status, as soon as its headers are there.

        Leaving the context drops the connection unless the answer has come to its end.

        Raises:
            UpstreamUnavailable: No connection, or it was lost on the way.
            UnexpectedReply: The answer is no HTTP.
        """
        pool = self._opened
        prepared = self._prepared("POST", url, "application/json", headers)
        connection = pool.take(prepared.route) or await self._connected(pool, prepared.route)
        try:
            yield await self._asked(connection, prepared, url, body)
        finally:
            pool.give_back(connection)

    async def _whole(
        self, method: str, url: str, kind: str, headers: Mapping[str, str], body: bytes | None
    ) -> HttpReply:
        pool = self._opened
        prepared = self._prepared(method, url, kind, headers)
        connection = pool.take(prepared.route) or await self._connected(pool, prepared.route)
        try:
            stream = await self._asked(connection, prepared, url, body)
            return await stream.whole()
        finally:
            pool.give_back(connection)

    async def _asked(self, connection: Connection, prepared: _Prepared, url: str, body: bytes | None) -> HttpStream:
        """Send a request, and wait for the head of its answer."""
        cookies = self._cookies
        # Looked up last: while the connection was made they may have changed.
        line = cookies.header(url) if cookies is not None else b""
        end = b"\r\n" if body is None else b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        answer = connection.send(prepared.head + line + end)
        await answer.begun()
        if answer.new_cookies and cookies is not None:
            cookies.take(url, answer.new_cookies)
        return HttpStream(answer, self._max_reply_bytes)

    async def _connected(self, pool: Pool, route: Route) -> Connection:
        connection = Connection(route, pool)
        try:
            await self._connector.connect(connection)
        except BaseException:
            pool.lost(connection)
            raise
        if pool is not self._pool:  # closed in the meantime
            connection.abort()
        return connection

    def _prepared(self, method: str, url: str, kind: str, headers: Mapping[str, str]) -> _Prepared:
        key = (method, url, kind, *headers, *headers.values())
        prepared = self._heads.get(key)
        if prepared is None:
            target = read_url(url, self._proxy(url))
            prepared = _Prepared(target.route, _head(method, target, kind, headers))
            if len(self._heads) >= _MOST_HEADS:
                self._heads.clear()
            self._heads[key] = prepared
        return prepared

    def _proxy(self, url: str) -> str | None:
        """The proxy that the environment names for a URL, as cloudscraper's requests would find it.

        Looked up once for each host.
        """
        try:
            parts = urlsplit(url)
            place = (parts.scheme, parts.netloc)
            if place not in self._proxies:
                proxies = requests.utils.get_environ_proxies(url)
                self._proxies[place] = requests.utils.select_proxy(url, proxies)
        except ValueError as error:
            raise UnexpectedReply("The upstream's address is no valid URL.") from error
        return self._proxies[place]

    @property
    def _opened(self) -> Pool:
        if self._pool is None:
            raise RuntimeError("The HTTP client has not been opened.")
        return self._pool


def _head(method: str, target: Target, kind: str, headers: Mapping[str, str]) -> bytes:
    """The head of a request, but for its cookies, its length and the empty line.

    Raises:
        ValueError: A header has a line break in it.
    """
    ours = {"Content-Type": kind} if kind else {}
    ours |= {"Authorization": target.authorization} if target.authorization else {}
    fields: dict[str, tuple[str, str]] = {}
    # The last one wins, however it is spelt.
    for name, value in (*_DEFAULTS.items(), *ours.items(), *headers.items()):
        fields[name.lower()] = (name, value)
    lines = [f"{method} {target.resource} HTTP/1.1", f"Host: {target.host}"]
    lines += [f"{name}: {value}" for key, (name, value) in fields.items() if key not in _OURS]
    proxy = target.route.proxy
    if proxy is not None and proxy.authorization and not target.route.tls:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    if any(_CONTROLS.search(line) for line in lines):
        raise ValueError("A header of a request has a line break in it.")
    return "\r\n".join([*lines, ""]).encode("utf-8", "surrogateescape")
