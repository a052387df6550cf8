"""The one place where the gateway sends HTTP to upstreams from the event loop, and where all trouble with it ends.

A lean HTTP/1.1 client of our own: what a message costs is mostly what its HTTP client costs. See docs/decisions.
"""

from app.providers.http.client import HttpClient
from app.providers.http.reply import HttpReply, HttpStream, retry_after
from app.providers.http.tls import Tls

__all__ = ["HttpClient", "HttpReply", "HttpStream", "Tls", "retry_after"]
