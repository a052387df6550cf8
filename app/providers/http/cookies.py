"""The cookies that upstreams have set, and the header that carries them back."""

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

# A header is made anew after so long, for cookies come of age.
_FRESH_SECONDS = 1.0
# An upstream that sets more of them than any browser keeps has none kept.
_MOST_COOKIES = 300
_MOST_URLS = 64
_CONTROLS = re.compile(r"[\r\n\0]")


class Cookies:
    """Keeps cookies as a browser does: each goes only to its host and path, if secure by TLS, until it expires."""

    def __init__(self) -> None:
        self._jar = CookieJar(DefaultCookiePolicy(strict_ns_domain=DefaultCookiePolicy.DomainStrictNonDomain))
        self._is_empty = True
        self._headers: dict[str, tuple[float, bytes]] = {}

    def clear(self) -> None:
        """Forget all."""
        self._jar.clear()
        self._changed()

    def keep(self, page_url: str, cookies: Iterable[Cookie]) -> None:
        """Add cookies that came with a page."""
        host = urlsplit(page_url).hostname or ""
        for cookie in cookies:
            if not cookie.domain:
                cookie = copy.copy(cookie)  # noqa: PLW2901 - the same one, at its host
                cookie.domain = host if "." in host else f"{host}.local"  # as cookie jars have it
            self._jar.set_cookie(cookie)
        self._changed()

    def take(self, url: str, set_cookies: Sequence[str]) -> None:
        """Keep what an answer has set.

        Args:
            url: What was asked for.
            set_cookies: The values of its `Set-Cookie` headers.
        """
        self._jar.extract_cookies(cast("HTTPResponse", _Answer(set_cookies)), _request(url))
        self._changed()

    def header(self, url: str) -> bytes:
        """The line of a request's head with the cookies for it, or nothing."""
        if self._is_empty:
            return b""
        until, line = self._headers.get(url, (0.0, b""))
        now = time.monotonic()
        if now >= until:
            line = self._line(url)
            if len(self._headers) >= _MOST_URLS:
                self._headers.clear()
            self._headers[url] = (now + _FRESH_SECONDS, line)
        return line

    def _line(self, url: str) -> bytes:
        request = _request(url)
        self._jar.add_cookie_header(request)
        cookies = _CONTROLS.sub("", request.get_header("Cookie") or "")
        return b"Cookie: %b\r\n" % cookies.encode("latin-1", "replace") if cookies else b""

    def _changed(self) -> None:
        if len(self._jar) > _MOST_COOKIES:
            self._jar.clear()
        self._is_empty = len(self._jar) == 0
        self._headers.clear()


class _Answer:
    """What a cookie jar wants to know of an answer."""

    def __init__(self, set_cookies: Sequence[str]) -> None:
        self._fields = Message()
        for value in set_cookies:
            self._fields["Set-Cookie"] = value

    def info(self) -> Message:
        return self._fields


def _request(url: str) -> Request:
    """What a cookie jar wants to know of a request; it is never sent."""
    return Request(url)  # noqa: S310
