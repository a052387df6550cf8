"""Why a connection failed, in the few words that operators know: for logs, `/ready` and `doctor`.

The words name no host and no credential. Pure.
"""

import errno
import socket
import ssl

# OpenSSL's X509_V_ERR_* numbers.
_CERTIFICATE_REASONS = {
    9: "certificate not valid yet",
    10: "certificate expired",
    18: "certificate self-signed",
    19: "certificate self-signed",
    62: "certificate for another host",
    64: "certificate for another host",
}
_SOCKET_REASONS = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.ECONNABORTED: "connection reset",
    errno.EPIPE: "connection reset",
    errno.EHOSTUNREACH: "host unreachable",
    errno.ENETUNREACH: "network unreachable",
    errno.EADDRNOTAVAIL: "no free local port",
    errno.EMFILE: "too many open files",
    errno.ENFILE: "too many open files",
    errno.ETIMEDOUT: "connection timed out",
}
# What the resolver says of a name that exists nowhere; anything else says that it could not find out.
_UNKNOWN_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}


def failure_reason(error: OSError) -> str:
    """What the operating system, the resolver or OpenSSL says of a connection that could not be made, or was lost."""
    if isinstance(error, socket.gaierror):
        return "name not found" if error.errno in _UNKNOWN_NAME else "name lookup failed"
    if isinstance(error, ssl.SSLCertVerificationError):
        return _CERTIFICATE_REASONS.get(error.verify_code, "certificate not trusted")
    if isinstance(error, ssl.SSLError):
        # What a server says that speaks plain HTTP, or something else, on this port.
        is_plain = error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL")
        return "no TLS on this port" if is_plain else "TLS handshake failed"
    if isinstance(error, TimeoutError):
        return "connection timed out"
    known = _SOCKET_REASONS.get(error.errno or 0)
    return known or ("connection reset" if isinstance(error, ConnectionError) else "connection failed")
