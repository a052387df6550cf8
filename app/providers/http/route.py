"""Where a request goes, read off its URL once."""

import re
from base64 import b64encode
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

from msgspec import Struct

from app.domain.errors import UnexpectedReply, UpstreamUnavailable

_PORTS = {"http": 80, "https": 443}
# As requests does it: what is quoted already stays as it is.
_UNQUOTED = "!#$%&'()*+,/:;=?@[]~"
_NO_HOST = re.compile(r"[^\w.:~-]")


class Proxy(NamedTuple):
    """A proxy; `authorization` is the value of its header, empty without one."""

    host: str
    port: int
    tls: bool
    authorization: str


class Route(NamedTuple):
    """Requests with the same route may use the same connection. `host` is ASCII, without brackets."""

    host: str
    port: int
    tls: bool
    proxy: Proxy | None

    @property
    def authority(self) -> str:
        """Host and port, as a proxy is told them."""
        return f"{_bracketed(self.host)}:{self.port}"


class Target(Struct, frozen=True):
    """A URL, taken to pieces.

    Args:
        route: Where to connect to.
        resource: What the request line names.
        host: The `Host` header.
        authorization: The `Authorization` header that the URL's userinfo stands for; empty without one.
    """

    route: Route
    resource: str
    host: str
    authorization: str


def read_url(url: str, proxy_url: str | None) -> Target:
    """The target that a URL means.

    Args:
        proxy_url: The proxy on the way, if there is one.

    Raises:
        UnexpectedReply: It is no URL with HTTP (it may be one that an upstream has named).
        UpstreamUnavailable: The proxy's is none.
    """
    try:
        parts = urlsplit(url)
        host, port = _place(parts)
    except ValueError as error:
        raise UnexpectedReply("The upstream's address is no valid URL.") from error
    route = Route(host, port, parts.scheme == "https", read_proxy(proxy_url) if proxy_url else None)
    authority = _bracketed(host) if port == _PORTS[parts.scheme] else route.authority
    resource = quote(parts.path or "/", safe=_UNQUOTED) + (
        f"?{quote(parts.query, safe=_UNQUOTED)}" if parts.query else ""
    )
    if route.proxy is not None and not route.tls:
        resource = f"http://{authority}{resource}"
    return Target(route, resource, authority, _basic(parts))


def read_proxy(url: str) -> Proxy:
    """The proxy that a URL of the environment means.

    Raises:
        UpstreamUnavailable: It is none with HTTP.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = _place(parts)
    except ValueError as error:
        raise UpstreamUnavailable("The proxy that the environment names is not one that speaks HTTP.") from error
    return Proxy(host, port, parts.scheme == "https", _basic(parts))


def _place(parts: SplitResult) -> tuple[str, int]:
    host = parts.hostname or ""
    if not host.isascii():
        host = host.encode("idna").decode()
    if parts.scheme not in _PORTS or not host or _NO_HOST.search(host):
        raise ValueError("no address with HTTP")
    port = parts.port
    return host, _PORTS[parts.scheme] if port is None else port


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _basic(parts: SplitResult) -> str:
    if parts.username is None:
        return ""
    userinfo = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"Basic {b64encode(userinfo.encode()).decode()}"
