"""Cookies that servers have set, and the header that carries them back."""

import copy
import re
import time
from collections.abc import Iterable, Sequence
from email.message import Message
from http.client import HTTPResponse
from http.cookiejar import Cookie, CookieJar, DefaultCookiePolicy
from typing import cast
from urllib.parse import urlsplit
from urllib.request import Request

# A header is made anew after this time: cookies expire.
_HEADER_SECONDS = 1.0
# A server that sets more of them than any browser would keep, or than any server would take, has none kept.
_MAX_COOKIES = 300
_MAX_BYTES = 16 * 1024
# As in browsers, of name and value together.
_MAX_COOKIE_BYTES = 4096
_MAX_URLS = 64
_CONTROLS = re.compile(r"[\r\n\0]")


class CookiePolicy(DefaultCookiePolicy):
    """As the standard library's, and as RFC 6265bis has it: names can promise how a cookie was set."""

    def __init__(self) -> None:
        super().__init__(strict_ns_domain=DefaultCookiePolicy.DomainStrictNonDomain)

    def set_ok(self, cookie: Cookie, request: Request) -> bool:
        """Whether a server may set a cookie."""
        return _is_acceptable(cookie, request.type) and super().set_ok(cookie, request)


class Cookies:
    """Keeps cookies as a browser does: each goes only to its host and path, if secure over TLS, until it expires.

    `is_empty` is there for speed: most upstreams set none, and each request looks.
    """

    def __init__(self) -> None:
        self._jar = CookieJar(CookiePolicy())
        self.is_empty = True
        self._headers: dict[str, tuple[float, bytes]] = {}

    def clear(self) -> None:
        """Forget all cookies."""
        self._jar.clear()
        self._changed()

    def keep(self, page_url: str, cookies: Iterable[Cookie]) -> None:
        """Add cookies that came with a page, from another cookie jar."""
        page = urlsplit(page_url)
        host = page.hostname or ""
        for cookie in cookies:
            if not _is_acceptable(cookie, page.scheme):
                continue
            if not cookie.domain:
                cookie = copy.copy(cookie)  # noqa: PLW2901 - the same one, at its host
                cookie.domain = host if "." in host else f"{host}.local"  # as cookie jars have it
            self._jar.set_cookie(cookie)
        self._changed()

    def take(self, url: str, set_cookies: Sequence[bytes]) -> None:
        """Keep what a reply has set.

        Args:
            url: The URL of the request.
            set_cookies: The values of the reply's `Set-Cookie` headers.
        """
        self._jar.extract_cookies(cast("HTTPResponse", _SetCookies(set_cookies)), _jar_request(url))
        self._changed()

    def header(self, url: str) -> bytes:
        """Return the `Cookie` line of a request's head, or nothing."""
        until, line = self._headers.get(url, (0.0, b""))
        now = time.monotonic()
        if now >= until:
            line = self._line(url)
            if len(self._headers) >= _MAX_URLS:
                self._headers.clear()
            self._headers[url] = (now + _HEADER_SECONDS, line)
        return line

    def _line(self, url: str) -> bytes:
        request = _jar_request(url)
        self._jar.add_cookie_header(request)
        cookies = _CONTROLS.sub("", request.get_header("Cookie") or "")
        return b"Cookie: %b\r\n" % cookies.encode("latin-1", "replace") if cookies else b""

    def _changed(self) -> None:
        if len(self._jar) > _MAX_COOKIES or sum(_size(cookie) for cookie in self._jar) > _MAX_BYTES:
            self._jar.clear()
        self.is_empty = len(self._jar) == 0
        self._headers.clear()


class _SetCookies:
    """A response, as far as a cookie jar looks at it."""

    def __init__(self, set_cookies: Sequence[bytes]) -> None:
        self._fields = Message()
        for value in set_cookies:
            self._fields["Set-Cookie"] = value.decode("latin-1")

    def info(self) -> Message:
        return self._fields


def _jar_request(url: str) -> Request:
    """A request, as far as a cookie jar looks at it; it is never sent."""
    return Request(url)  # noqa: S310


def _size(cookie: Cookie) -> int:
    return len(cookie.name) + len(cookie.value or "")


def _is_acceptable(cookie: Cookie, scheme: str) -> bool:
    """Whether a cookie is as small as cookies are, and was set in the way that its name and `Secure` promise."""
    if _size(cookie) > _MAX_COOKIE_BYTES or (cookie.secure and scheme != "https"):
        return False
    return _keeps_promise(cookie, scheme)


def _keeps_promise(cookie: Cookie, scheme: str) -> bool:
    """Whether a cookie was set in the way that a prefix of its name promises."""
    # One without a name is sent as its value alone, which could pass for a name.
    name = (cookie.name or cookie.value or "").lower()
    if not name.startswith(("__secure-", "__host-")):
        return True
    if not cookie.secure or scheme != "https":
        return False
    if name.startswith("__secure-"):
        return True
    return not cookie.domain_specified and cookie.path_specified and cookie.path == "/"
