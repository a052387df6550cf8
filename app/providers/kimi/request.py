"""What the site is sent: one message, in the form and with the headers of its own chat page. Pure."""

import hashlib
import secrets
import time
from urllib.parse import urlsplit

_ACTION = "kimi_send_message"


def message_form(*, nonce: str, message: str, model: str, session_id: str) -> dict[str, str]:
    """The form fields of a message."""
    return {"action": _ACTION, "nonce": nonce, "message": message, "model": model, "session_id": session_id}


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
    return f"session_{int(time.time() * 1000)}_{secrets.token_hex(5)[:9]}"


def lasting_session_id(conversation_id: str) -> str:
    """The session id of a conversation in the same format: every worker derives the same one, and none stores it."""
    digest = hashlib.sha256(conversation_id.encode("utf-8", "surrogatepass")).hexdigest()
    return f"session_{1_700_000_000_000 + int(digest[:8], 16)}_{digest[8:17]}"
