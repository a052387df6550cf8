"""An HTTP/1.1 client for the event loop that costs little per request. Imports nothing else of the gateway.

Errors are those of `exceptions`. What the client does itself and what it leaves to libraries is in
docs/decisions/0006-own-http-client.md.
"""

from app.providers.http.client import CLIENT_HEADERS, HttpClient, Upload
from app.providers.http.connector import Tls
from app.providers.http.destination import address_of, server_of
from app.providers.http.exceptions import HttpError
from app.providers.http.reasons import failure_reason
from app.providers.http.replies import HttpReply, HttpStream, retry_after

__all__ = [
    "CLIENT_HEADERS",
    "HttpClient",
    "HttpError",
    "HttpReply",
    "HttpStream",
    "Tls",
    "Upload",
    "address_of",
    "failure_reason",
    "retry_after",
    "server_of",
]
