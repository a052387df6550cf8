"""Everything that can go wrong with a request, as one tree.

    HttpError
    ├── InvalidUrl                 the URL is malformed, or not http or https
    ├── InvalidHeader              a header's name or value can't be sent
    ├── ConnectError               no connection could be made
    │   ├── NameNotResolved        the host name is unknown, or nobody can tell
    │   ├── ConnectTimeout
    │   ├── TlsError               the TLS handshake failed
    │   │   └── InvalidCertificate
    │   └── ProxyError             the proxy made no connection
    │       ├── InvalidProxyUrl
    │       ├── ProxyRefused
    │       ├── ProxyProtocolError
    │       └── ProxyConnectionLost
    ├── ConnectionLost             the connection ended before the reply did
    │   ├── NoReply                not even the reply's head had arrived
    │   │   └── ConnectionReset
    │   └── IncompleteReply
    ├── ProtocolError              the reply is not valid HTTP
    ├── DecodingError              the body is not what its Content-Encoding says
    └── ReplyTooLong               the body is longer than the client accepts

Messages name no URL, header value or credential: they may be logged.
"""

from typing import ClassVar


class HttpError(Exception):
    """Base of all errors of this package.

    Attributes:
        message: What an error of the class says by default.
        reason: What went wrong, in a few words for the operator; it names no host.
        server: Where, as `host:port`, and the proxy on the way; empty where nobody was asked.
    """

    message: ClassVar[str] = "The request failed."
    reason: str = "request failed"
    server: str = ""

    def __init__(self, message: str = "", *, reason: str = "") -> None:
        super().__init__(message or self.message)
        if reason:
            self.reason = reason


class InvalidUrl(HttpError):
    """The URL is malformed, or its scheme is neither http nor https."""

    message = "The URL is not a valid http or https URL."
    reason = "invalid address"


class InvalidHeader(HttpError):
    """A request header that HTTP can't carry: its name is not a token, or its value has a line break or NUL in it."""

    reason = "invalid header"

    def __init__(self, name: str) -> None:
        super().__init__(f"The header {name!r} can't be sent.")
        self.name = name


class ConnectError(HttpError):
    """No connection could be made; nothing has been sent."""

    message = "The server can't be reached."
    reason = "connection failed"


class NameNotResolved(ConnectError):
    """The host name has no address, or no name server can tell."""

    message = "The host name can't be resolved."
    reason = "name not found"


class ConnectTimeout(ConnectError):
    """Name lookup, connection, proxy and TLS handshake together took more than `seconds`."""

    reason = "connection timed out"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The connection could not be made within {seconds:g} seconds.")
        self.seconds = seconds


class TlsError(ConnectError):
    """The TLS handshake failed."""

    message = "The TLS handshake failed."
    reason = "TLS handshake failed"


class InvalidCertificate(TlsError):
    """The server's certificate is not trusted, has expired, or is for another host."""

    message = "The server's certificate is not valid."
    reason = "certificate not trusted"


class ProxyError(ConnectError):
    """The proxy made no connection to the server."""

    message = "The proxy made no connection."
    reason = "proxy failed"


class InvalidProxyUrl(ProxyError):
    """The environment names a proxy that is not an HTTP proxy."""

    message = "The proxy's URL is not a valid http or https URL."
    reason = "invalid proxy address"


class ProxyRefused(ProxyError):
    """The proxy answered `CONNECT` with `status`."""

    reason = "proxy refused"

    def __init__(self, status: int) -> None:
        super().__init__(f"The proxy refused to connect (HTTP {status}).", reason=f"proxy refused (HTTP {status})")
        self.status = status


class ProxyProtocolError(ProxyError):
    """The proxy's answer to `CONNECT` is not valid HTTP."""

    message = "The proxy's reply is not valid HTTP."
    reason = "proxy doesn't speak HTTP"


class ProxyConnectionLost(ProxyError):
    """The proxy closed the connection instead of answering `CONNECT`."""

    message = "The proxy closed the connection."
    reason = "proxy closed the connection"


class ConnectionLost(HttpError):
    """The connection ended before the reply did. The server may have acted on the request."""

    message = "The connection was lost."
    reason = "connection lost"


class NoReply(ConnectionLost):
    """The connection ended before the head of the reply was complete."""

    message = "The server closed the connection without a reply."
    reason = "connection closed without a reply"


class ConnectionReset(NoReply):
    """The server, or something on the way, reset the connection instead of replying."""

    message = "The server reset the connection without a reply."
    reason = "connection reset"


class IncompleteReply(ConnectionLost):
    """The connection ended in the middle of the reply's body."""

    message = "The server closed the connection before the reply was complete."
    reason = "connection closed within a reply"


class ProtocolError(HttpError):
    """The reply is not valid HTTP."""

    message = "The reply is not valid HTTP."
    reason = "invalid HTTP"


class DecodingError(HttpError):
    """The body is damaged, or is not compressed in the way that its `Content-Encoding` says."""

    message = "The body of the reply can't be decompressed."
    reason = "damaged compression"


class ReplyTooLong(HttpError):
    """The body has more than `limit` bytes."""

    reason = "reply too long"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The reply is longer than {limit} bytes.")
        self.limit = limit
