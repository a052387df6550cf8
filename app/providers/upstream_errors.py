"""What the HTTP client's errors mean to the gateway: the one table, for all providers that use it."""

from app.domain.errors import GatewayError, InternalError, UnexpectedReply, UpstreamUnavailable, UpstreamUnreachable
from app.providers.http import HttpError
from app.providers.http.exceptions import (
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    DecodingError,
    IncompleteReply,
    InvalidCertificate,
    InvalidHeader,
    InvalidProxyUrl,
    InvalidUrl,
    NameNotResolved,
    NoReply,
    ProtocolError,
    ProxyConnectionLost,
    ProxyError,
    ProxyProtocolError,
    ProxyRefused,
    ReplyTooLong,
    TlsError,
)

# The first row that matches counts: a class stands before the class that it is derived from. Messages may name the
# attributes of their error.
_ROWS: tuple[tuple[type[HttpError], type[GatewayError], str], ...] = (
    (NameNotResolved, UpstreamUnreachable, "The upstream's host name can't be resolved."),
    (ConnectTimeout, UpstreamUnreachable, "No connection to the upstream could be made within {0.seconds:g} seconds."),
    (InvalidCertificate, UpstreamUnreachable, "The upstream's certificate is not valid."),
    (TlsError, UpstreamUnreachable, "No secure connection to the upstream can be made."),
    (InvalidProxyUrl, UpstreamUnreachable, "The proxy that the environment names is not an HTTP proxy."),
    (ProxyRefused, UpstreamUnreachable, "The proxy refused to connect to the upstream (HTTP {0.status})."),
    (ProxyProtocolError, UpstreamUnreachable, "The proxy in front of the upstream doesn't speak HTTP."),
    (ProxyConnectionLost, UpstreamUnreachable, "The proxy in front of the upstream closed the connection."),
    (ProxyError, UpstreamUnreachable, "The proxy in front of the upstream made no connection."),
    (ConnectError, UpstreamUnreachable, "No connection to the upstream can be made."),
    (NoReply, UpstreamUnavailable, "The upstream closed the connection without an answer."),
    (IncompleteReply, UpstreamUnavailable, "The upstream broke off in the middle of its answer."),
    (ConnectionLost, UpstreamUnavailable, "The connection to the upstream was lost."),
    (ProtocolError, UnexpectedReply, "The upstream's answer is not valid HTTP."),
    (DecodingError, UnexpectedReply, "The upstream's answer can't be decompressed."),
    (ReplyTooLong, UnexpectedReply, "The upstream's answer is longer than {0.limit} bytes."),
    # An upstream may have named it.
    (InvalidUrl, UnexpectedReply, "The upstream's address is not a valid URL."),
    (InvalidHeader, InternalError, "The gateway is set to send a header that HTTP doesn't allow: {0.name!r}."),
    (HttpError, UpstreamUnavailable, "The request to the upstream failed."),
)


def translated(error: HttpError) -> GatewayError:
    """Return the gateway's error for one of the HTTP client's; raise it from that one."""
    kind, message = next((kind, message) for http_kind, kind, message in _ROWS if isinstance(error, http_kind))
    return kind(message.format(error), reason=error.reason, server=error.server)
