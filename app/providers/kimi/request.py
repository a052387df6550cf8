"""What the site is sent: one message, in the form and with the headers of its own chat page. Pure."""

import hashlib
import os
import time
from functools import lru_cache
from urllib.parse import urlsplit

from app.providers.http.forms import quoted

# Of nonces and models, which are the same for many messages.
_quoted_before = lru_cache(maxsize=64)(quoted)


def message_form(*, nonce: str, message: str, model: str, session_id: str) -> bytes:
    """The encoded form of a message."""
    return b"action=kimi_send_message&nonce=%b&message=%b&model=%b&session_id=%b" % (
        _quoted_before(nonce),
        quoted(message),
        _quoted_before(model),
        session_id.encode(),
    )


def message_headers(*, page_url: str, user_agent: str) -> dict[str, str]:
    """The headers that the site's chat page sends with its messages."""
    origin = urlsplit(page_url)
    return {
        "Accept": "application/json, text/javascript, */*; q=0.01",
        "Accept-Language": "en-US,en;q=0.9",
        "Origin": f"{origin.scheme}://{origin.netloc}",
        "Referer": origin._replace(query="", fragment="").geturl(),
        "User-Agent": user_agent,
        "X-Requested-With": "XMLHttpRequest",
    }


def new_session_id() -> str:
    """A fresh session id in the format of the site's chat page."""
    return f"session_{int(time.time() * 1000)}_{os.urandom(5).hex()[:9]}"


def lasting_session_id(conversation_id: str) -> str:
    """The session id of a conversation in the same format: every worker derives the same one, and none stores it."""
    digest = hashlib.sha256(conversation_id.encode("utf-8", "surrogatepass")).hexdigest()
    return f"session_{1_700_000_000_000 + int(digest[:8], 16)}_{digest[8:17]}"
