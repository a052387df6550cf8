"""How the site is spoken to, and what its answers mean. Pure.

What genuine WordPress says in which case is gathered in docs/architecture.md; an answer that fits no row is a 502.
"""

import html
import re
import secrets
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from app.domain.errors import (
    CloudflareChallenge,
    ContextTooLong,
    EmptyReply,
    GatewayError,
    InvalidRequest,
    MessageRefused,
    NonceRejected,
    SiteChanged,
    UpstreamBlocked,
    UpstreamRateLimited,
    UpstreamRefused,
    UpstreamUnavailable,
)
from app.domain.json import read_json_object
from app.providers.http import HttpReply, retry_after

_ACTION = "kimi_send_message"
_CHALLENGE_PAGE = re.compile(
    rb"<title>\s*Just a moment|/cdn-cgi/challenge-platform/|cf-chl-|_cf_chl_opt", re.IGNORECASE
)
_SCRIPT = re.compile(r"<(script|style)\b.*?(</\1\s*>|$)", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^>]{0,2000}>?")
_SPACE = re.compile(r"[\s\x00-\x1f\x7f]+")
_QUOTED_LENGTH = 300
_LOOKED_AT = 10_000
_DEFAULT_RETRY_AFTER = 5.0
_CHALLENGE_RETRY_AFTER = 10.0

# What a refusal is about, by its words; `_refusal` has the order.
_STALE = re.compile(r"nonce|security|expired|过期|安全验证|刷新页面", re.IGNORECASE)
_RATE = re.compile(r"rate.?limit|too many|limit (?:reached|exceeded)|quota|slow down|频繁|次数", re.IGNORECASE)
_LENGTH = re.compile(
    r"too long|too many char|(?:character|length) limit|(?:maximum|max\.?) .{0,40}(?:char|length)|过长|字数",
    re.IGNORECASE,
)
_TROUBLE = re.compile(r"unavailable|overload|busy|try again|timed? ?out|in time|temporar|繁忙|稍后", re.IGNORECASE)
_POLICY = re.compile(r"policy|violat|inappropriate|prohibited|sensitive|moderation|违规|敏感", re.IGNORECASE)
_EMPTY = re.compile(r"\bempty\b|message is required|不能为空", re.IGNORECASE)
_MODEL = re.compile(
    r"(?:invalid|unknown|unsupported) model|model .{0,40}(?:not (?:found|available|supported|exist)|no longer)|"
    r"(?:无效|未知|不支持).{0,6}模型|模型.{0,6}不存在",
    re.IGNORECASE,
)


def message_form(*, nonce: str, message: str, model: str, session_id: str) -> dict[str, str]:
    """The form fields of one message."""
    return {"action": _ACTION, "nonce": nonce, "message": message, "model": model, "session_id": session_id}


def message_headers(*, page_url: str, user_agent: str) -> dict[str, str]:
    """The headers with which the site's own page sends its messages."""
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
    """A session id as the site's own page makes it."""
    return f"session_{int(time.time() * 1000)}_{secrets.token_hex(5)[:9]}"


def read_reply(reply: HttpReply, *, nonce: str) -> str:
    """The assistant's text.

    Args:
        nonce: The one that was sent: it is taken out of anything that gets quoted.

    Raises:
        NonceRejected, CloudflareChallenge: Worth one more try with a fresh page.
        GatewayError: What else the answer means.
    """
    body = reply.body.strip()
    if body == b"-1" and reply.status in (200, 403):
        raise NonceRejected("The Kimi site refused the nonce.")
    trouble = http_trouble(reply)
    document = _document(body)
    if document is not None and document.get("success") is False:
        raise _refusal(reply, _quotable(document.get("data"), nonce))
    if trouble is not None:
        raise trouble
    return _answer(document)


def http_trouble(reply: HttpReply) -> GatewayError | None:
    """What the answer's status and headers alone say is wrong, for the page and for messages alike."""
    if is_challenge(reply):
        return CloudflareChallenge(
            "Cloudflare asks for a browser check before it lets this gateway through to the Kimi site.",
            retry_after=_CHALLENGE_RETRY_AFTER,
        )
    status = reply.status
    if status == 200:
        return None
    wait = retry_after(reply.headers)
    if status == 429:
        return UpstreamRateLimited(
            "The Kimi site asks for fewer requests.", retry_after=_DEFAULT_RETRY_AFTER if wait is None else wait
        )
    if status == 413:
        return ContextTooLong("The Kimi site says that the message is too large.", param="messages")
    if status >= 500 or status == 408:
        return UpstreamUnavailable(f"The Kimi site can't serve at the moment (HTTP {status}).", retry_after=wait)
    if status in (401, 403, 451):
        return UpstreamBlocked(f"The Kimi site refuses this gateway (HTTP {status}).", retry_after=wait)
    return SiteChanged(f"The Kimi site answered with HTTP {status}: it may have changed.")


def is_challenge(reply: HttpReply) -> bool:
    """Is this a Cloudflare challenge in place of an answer?"""
    if reply.headers.get("cf-mitigated", "").lower() == "challenge":
        return True
    return reply.status in (202, 403, 429, 503) and _CHALLENGE_PAGE.search(reply.body[:50_000]) is not None


def _answer(document: Mapping[str, object] | None) -> str:
    if document is None:
        raise SiteChanged("The Kimi site answered with something that is not its usual JSON: it may have changed.")
    data = document.get("data")
    message = data.get("message") if isinstance(data, dict) else None
    if document.get("success") is not True or not isinstance(message, str):
        raise SiteChanged("The Kimi site's answer has another shape than usual: it may have changed.")
    if not message.strip():
        raise EmptyReply("The Kimi site answered with an empty message.")
    if message.isascii():
        return message
    # Half a surrogate pair (from a cut-off \\ud83d escape) can't be written as UTF-8.
    return message.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _refusal(reply: HttpReply, said: str) -> GatewayError:
    """The error for a `success: false`, by what it says."""
    wait = retry_after(reply.headers)
    quoted = f": {said}" if said else "."
    if _LENGTH.search(said):
        return ContextTooLong(f"The Kimi site says that the message is too long{quoted}", param="messages")
    if reply.status == 429 or _RATE.search(said):
        limit = _DEFAULT_RETRY_AFTER if wait is None else wait
        return UpstreamRateLimited(f"The Kimi site asks for fewer requests{quoted}", retry_after=limit)
    if _POLICY.search(said):
        return MessageRefused(f"The Kimi site won't answer this message{quoted}", param="messages")
    if _STALE.search(said):
        return NonceRejected("The Kimi site refused the nonce.")
    if _MODEL.search(said):
        return SiteChanged(f"The Kimi site doesn't know the configured model{quoted}")
    if reply.status >= 500 or _TROUBLE.search(said):
        return UpstreamUnavailable(f"The Kimi site can't answer at the moment{quoted}", retry_after=wait)
    if _EMPTY.search(said):
        return InvalidRequest(f"The Kimi site won't take this message{quoted}", param="messages")
    return UpstreamRefused(f"The Kimi site refused this message{quoted}")


def _quotable(data: object, nonce: str) -> str:
    """The words of `wp_send_json_error`'s data, fit to be shown: no markup, no nonce, not long."""
    if isinstance(data, list) and data:
        data = data[0]
    if isinstance(data, dict):
        data = data.get("message", "")
    if not isinstance(data, str):
        return ""
    text = _TAG.sub(" ", _SCRIPT.sub(" ", html.unescape(data[:_LOOKED_AT])))
    text = _SPACE.sub(" ", text.encode("utf-8", "replace").decode()).strip()
    if nonce:
        text = text.replace(nonce, "…")
    return text if len(text) <= _QUOTED_LENGTH else text[:_QUOTED_LENGTH] + "…"


def _document(body: bytes) -> dict[str, object] | None:
    if body.startswith(b"<"):
        # PHP may print its notices, as HTML, in front of the answer.
        body = body[max(0, body.find(b'{"success"')) :]
    return read_json_object(body, bad_utf8="strict")
