"""Where a request goes: its URL taken apart, and the proxy on the way."""

import importlib
import re
from base64 import b64encode
from urllib.parse import SplitResult, quote, unquote, urlsplit
from urllib.request import getproxies

from msgspec import Struct

from app.providers.http.exceptions import InvalidProxyUrl, InvalidUrl

_DEFAULT_PORTS = {"http": 80, "https": 443}
# As requests does it: what is already quoted stays as it is.
_UNQUOTED = "!#$%&'()*+,/:;=?@[]~"
_LONGEST_ADDRESS = 200
_NOT_IN_HOST = re.compile(r"[^\w.:~-]")


class Proxy(Struct, frozen=True):
    """An HTTP proxy. `authorization` is the value of its header, or empty."""

    host: str
    port: int
    tls: bool
    authorization: str


# Its hash is cached: the pool looks destinations up twice for each request.
class Destination(Struct, frozen=True, cache_hash=True):
    """What a connection leads to; requests to the same destination may share one. `host` is ASCII, without brackets."""

    host: str
    port: int
    tls: bool
    proxy: Proxy | None

    @property
    def authority(self) -> str:
        """Host and port, as a proxy is told them."""
        return f"{_bracketed(self.host)}:{self.port}"

    @property
    def server(self) -> str:
        """Host and port, and those of the proxy on the way, for the operator."""
        if self.proxy is None:
            return self.authority
        return f"{self.authority} by proxy {_bracketed(self.proxy.host)}:{self.proxy.port}"


class ParsedUrl(Struct, frozen=True):
    """A URL in the terms of a request.

    Args:
        destination: Where to connect to.
        target: What the request line asks for.
        host: The `Host` header.
        authorization: The `Authorization` header that the URL's user and password stand for, or empty.
    """

    destination: Destination
    target: str
    host: str
    authorization: str


def parse_url(url: str) -> ParsedUrl:
    """Take a URL apart, and look up the proxy that the environment names for it.

    Raises:
        InvalidUrl: It is malformed, or not http or https.
        InvalidProxyUrl: The proxy's is.
    """
    try:
        parts = urlsplit(url)
        host, port = _host_and_port(parts)
        path_and_query = quote(parts.path or "/", safe=_UNQUOTED)
        if parts.query:
            path_and_query += f"?{quote(parts.query, safe=_UNQUOTED)}"
        authorization = _basic_authorization(parts)
    except ValueError as error:
        raise InvalidUrl from error
    proxy_url = _proxy_url(url)
    proxy = parse_proxy_url(proxy_url) if proxy_url else None
    destination = Destination(host, port, parts.scheme == "https", proxy)
    authority = _bracketed(host) if port == _DEFAULT_PORTS[parts.scheme] else destination.authority
    is_absolute = proxy is not None and not destination.tls
    target = f"http://{authority}{path_and_query}" if is_absolute else path_and_query
    return ParsedUrl(destination, target, authority, authorization)


def server_of(url: str) -> str:
    """Host and port of a URL, for the operator; empty if it is malformed."""
    try:
        host, port = _host_and_port(urlsplit(url))
    except ValueError:
        return ""
    return f"{_bracketed(host)}:{port}"


def address_of(url: str) -> str:
    """A URL that somebody else has named, for the operator: without credentials and parameters, and shortened."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    authority = _bracketed(host) if port is None else f"{_bracketed(host)}:{port}"
    text = f"{parts.scheme}://{authority}{parts.path}" if authority else parts.path
    return quote(text[:_LONGEST_ADDRESS], safe=_UNQUOTED + "%")


def parse_proxy_url(url: str) -> Proxy:
    """Take the URL of a proxy apart; it may lack the scheme.

    Raises:
        InvalidProxyUrl: It is malformed, or not http or https.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        return Proxy(*_host_and_port(parts), parts.scheme == "https", _basic_authorization(parts))
    except ValueError as error:
        raise InvalidProxyUrl from error


def _proxy_url(url: str) -> str | None:
    """The proxy for a URL by the environment's variables, as requests reads them."""
    if not getproxies():
        return None
    requests = importlib.import_module("requests.utils")  # only now: it is large, and few have a proxy
    proxy: str | None = requests.select_proxy(url, requests.get_environ_proxies(url))
    return proxy


def _host_and_port(parts: SplitResult) -> tuple[str, int]:
    host = parts.hostname or ""
    if not host.isascii():
        host = host.encode("idna").decode()
    if parts.scheme not in _DEFAULT_PORTS or not host or _NOT_IN_HOST.search(host):
        raise ValueError("not an http or https URL")
    port = parts.port
    return host, _DEFAULT_PORTS[parts.scheme] if port is None else port


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _basic_authorization(parts: SplitResult) -> str:
    if parts.username is None:
        return ""
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"Basic {b64encode(credentials.encode()).decode()}"
