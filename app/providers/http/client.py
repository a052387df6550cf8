"""The client: prepares request heads, finds a connection, and hands out replies."""

import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing, asynccontextmanager
from http.cookiejar import Cookie
from typing import Any

from msgspec import Struct

from app.providers.http.connection import Connection
from app.providers.http.connector import Connector, Tls
from app.providers.http.cookies import Cookies
from app.providers.http.decoding import ACCEPTED
from app.providers.http.destination import Destination, ParsedUrl, parse_url
from app.providers.http.exceptions import HttpError, InvalidHeader
from app.providers.http.pool import Pool
from app.providers.http.replies import HttpReply, HttpStream

_DEFAULT_HEADERS = {"Accept": "*/*", "Accept-Encoding": ACCEPTED, "User-Agent": "kimi-ai-2api"}
# Framing and the fate of the connection are for the client to say; the caller's are left out.
CLIENT_HEADERS = frozenset(
    {"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
_TOKEN = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
# Line breaks, and halves of surrogate pairs but for those that stand for bytes of the environment.
_FORBIDDEN_IN_VALUE = re.compile("[\r\n\0\ud800-\udc7f\udd00-\udfff]")
# One for each URL with its headers: a handful in practice.
_MAX_HEADS = 64


class RequestHead(Struct, frozen=True):
    """What requests with the same method, URL and headers have in common.

    Args:
        destination: Where they go.
        lines: Their heads up to the lines for cookies and length.
    """

    destination: Destination
    lines: bytes


class Upload(Struct, frozen=True):
    """A body that is sent piece by piece.

    Args:
        content_type: Of the body.
        length: Bytes of all pieces together.
        pieces: Makes the pieces.
    """

    content_type: str
    length: int
    pieces: Callable[[], AsyncGenerator[bytes, None]]


class HttpClient:
    """Posts forms and JSON, keeps cookies, follows no redirects. Open it in a running event loop.

    Args:
        max_reply_bytes: Longer bodies are refused.
        keep_cookies: False for a client that several upstreams share.
        tls: Shared with other clients; without it the client has its own.
    """

    def __init__(self, *, max_reply_bytes: int, keep_cookies: bool = True, tls: Tls | None = None) -> None:
        self._max_reply_bytes = max_reply_bytes
        self._cookies = Cookies() if keep_cookies else None
        self._tls = tls or Tls()
        self._pool: Pool | None = None
        self._heads: dict[object, RequestHead] = {}

    async def open(self) -> None:
        """Get ready; connections are made when they are needed."""
        self._pool = Pool(Connector(self._tls))

    async def aclose(self) -> None:
        """Close all connections."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.aclose()

    def keep_cookies(self, page_url: str, cookies: tuple[Cookie, ...], *, instead: bool = False) -> None:
        """Send these cookies from now on, to the hosts and paths that they are for.

        Args:
            page_url: The page that they came with.
            instead: Forget all others.
        """
        if self._cookies is None:
            return
        if instead:
            self._cookies.clear()
        self._cookies.keep(page_url, cookies)

    # Plain functions that return a coroutine: an `async def` around it would be one more for each request.

    def post_form(self, url: str, form: bytes, headers: Mapping[str, str]) -> Coroutine[Any, Any, HttpReply]:
        """Post an encoded form, and read the whole reply, whatever its status.

        Raises:
            HttpError: Any but `ProxyError` without a proxy; see `exceptions`.
        """
        return self._request("POST", url, "application/x-www-form-urlencoded", headers, form)

    def post_json(
        self, url: str, body: bytes, headers: Mapping[str, str], ends: tuple[bytes, ...] = ()
    ) -> Coroutine[Any, Any, HttpReply]:
        """Post JSON, and read the whole reply, whatever its status. Raises as `post_form`.

        Args:
            ends: See `HttpStream.whole`.
        """
        return self._request("POST", url, "application/json", headers, body, ends)

    def get(self, url: str, headers: Mapping[str, str]) -> Coroutine[Any, Any, HttpReply]:
        """Get a URL, and read the whole reply, whatever its status. Raises as `post_form`."""
        return self._request("GET", url, "", headers, None)

    @asynccontextmanager
    async def stream_json(self, url: str, body: bytes, headers: Mapping[str, str]) -> AsyncGenerator[HttpStream, None]:
        """Post JSON; the context gives the reply, whatever its status, as soon as its head has arrived.

        Leaving the context drops the connection unless the reply has been received to its end.

        Raises:
            HttpError: As `post_form`, but `ReplyTooLong` and `DecodingError`, which reading may raise.
        """
        pool = self._opened
        head = self._head("POST", url, "application/json", headers)
        connection = pool.take(head.destination) or await pool.connect(head.destination)
        try:
            stream = connection.send(self._bytes(head, url, body), self._max_reply_bytes)
            while not stream.status:
                await stream.wait()
            if stream.set_cookies:
                self._take_cookies(url, stream)
            yield stream
        except HttpError as error:
            error.server = head.destination.server
            raise
        finally:
            pool.give_back(connection)

    @asynccontextmanager
    async def stream_upload(
        self, url: str, upload: Upload, headers: Mapping[str, str]
    ) -> AsyncGenerator[HttpStream, None]:
        """Post a body that comes in pieces, as `stream_json` posts JSON.

        A server may answer before it has all of it; then the rest isn't sent. Each upload has a connection of its own:
        where its pieces can't be had again, one that the server is just closing would be its end.

        Raises:
            HttpError: As `stream_json`.
            ValueError: The pieces are not of the length that was announced.
        """
        pool = self._opened
        parsed = parse_url(url)
        # Not by `_head`: the type has a boundary in it, which is another one each time.
        head = RequestHead(parsed.destination, _head_lines("POST", parsed, upload.content_type, headers))
        connection = await pool.connect(head.destination)
        try:
            stream = connection.send(self._bytes(head, url, b"", upload.length), self._max_reply_bytes, is_whole=False)
            async with aclosing(upload.pieces()) as pieces:
                await _send_pieces(connection, stream, pieces, upload.length)
            while not stream.status:
                await stream.wait()
            if stream.set_cookies:
                self._take_cookies(url, stream)
            yield stream
        except HttpError as error:
            error.server = head.destination.server
            raise
        finally:
            pool.give_back(connection)

    async def _request(
        self,
        method: str,
        url: str,
        content_type: str,
        headers: Mapping[str, str],
        body: bytes | None,
        ends: tuple[bytes, ...] = (),
    ) -> HttpReply:
        # `stream_json` and its `whole` in one: a context manager costs more than the whole way through the pool.
        pool = self._opened
        head = self._head(method, url, content_type, headers)
        connection = pool.take(head.destination) or await pool.connect(head.destination)
        try:
            stream = connection.send(self._bytes(head, url, body), self._max_reply_bytes)
            while not stream.status:
                await stream.wait()
            if stream.set_cookies:
                self._take_cookies(url, stream)
            return await stream.whole(ends)
        except HttpError as error:
            error.server = head.destination.server
            raise
        finally:
            pool.give_back(connection)

    def _bytes(self, head: RequestHead, url: str, body: bytes | None, length: int | None = None) -> bytes:
        """The whole request. Cookies are looked up last: they may have changed while a connection was made.

        Args:
            length: Of the body, if it is not all here.
        """
        cookies = self._cookies
        cookie_line = b"" if cookies is None or cookies.is_empty else cookies.header(url)
        if body is None:
            return b"%b%b\r\n" % (head.lines, cookie_line)
        length = len(body) if length is None else length
        return b"%b%bContent-Length: %d\r\n\r\n%b" % (head.lines, cookie_line, length, body)

    def _take_cookies(self, url: str, stream: HttpStream) -> None:
        if self._cookies is not None:
            self._cookies.take(url, stream.set_cookies)

    def _head(self, method: str, url: str, content_type: str, headers: Mapping[str, str]) -> RequestHead:
        key = (method, url, content_type, *headers, *headers.values())
        head = self._heads.get(key)
        if head is None:
            parsed = parse_url(url)
            head = RequestHead(parsed.destination, _head_lines(method, parsed, content_type, headers))
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            self._heads[key] = head
        return head

    @property
    def _opened(self) -> Pool:
        if self._pool is None:
            raise RuntimeError("The HTTP client has not been opened.")
        return self._pool


async def _send_pieces(
    connection: Connection, stream: HttpStream, pieces: AsyncGenerator[bytes, None], length: int
) -> None:
    """Send a body, as fast as the server takes it, until it answers."""
    sent = 0
    async for piece in pieces:
        if stream.status or stream.ended:
            return
        sent += len(piece)
        await connection.send_more(piece)
    if sent != length:
        raise ValueError(f"The body has {sent} bytes, not {length}.")
    connection.end_request()


def _head_lines(method: str, url: ParsedUrl, content_type: str, headers: Mapping[str, str]) -> bytes:
    """The head of a request without the lines for cookies and length, and without the empty line.

    Raises:
        InvalidHeader: A header can't be sent.
    """
    own = {"Content-Type": content_type} if content_type else {}
    own |= {"Authorization": url.authorization} if url.authorization else {}
    fields: dict[str, tuple[str, str]] = {}
    # The last one wins, however its name is spelt.
    for name, value in (*_DEFAULT_HEADERS.items(), *own.items(), *headers.items()):
        if not _TOKEN.fullmatch(name) or _FORBIDDEN_IN_VALUE.search(value):
            raise InvalidHeader(name)
        fields[name.lower()] = (name, value)
    lines = [f"{method} {url.target} HTTP/1.1", f"Host: {url.host}"]
    lines += [f"{name}: {value}" for key, (name, value) in fields.items() if key not in CLIENT_HEADERS]
    proxy = url.destination.proxy
    if proxy is not None and proxy.authorization and not url.destination.tls:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    return "\r\n".join([*lines, ""]).encode("utf-8", "surrogateescape")
