"""What the site's failures and refusals mean. Pure.

docs/architecture.md lists what genuine WordPress answers in which case. An answer that fits no row is a 502.
"""

import html
import re

from app.domain.errors import (
    CloudflareChallenge,
    ContextTooLong,
    GatewayError,
    InvalidRequest,
    MessageRefused,
    NonceRejected,
    SiteChanged,
    UpstreamBlocked,
    UpstreamRateLimited,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.providers.cloudflare import is_challenge
from app.providers.http import HttpReply, address_of, retry_after

_SCRIPT = re.compile(r"<(script|style)\b.*?(</\1\s*>|$)", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^>]{0,2000}>?")
_SPACE = re.compile(r"[\s\x00-\x1f\x7f]+")
_QUOTED_LENGTH = 300
_LOOKED_AT = 10_000
# Somebody between here and the model, such as nginx or Cloudflare (522, 524), has stopped waiting. The model may have
# been asked all the same. 523 means that nobody was.
_TIMEOUTS = (504, 522, 524, 598, 599)
_DEFAULT_RETRY_AFTER = 5.0
_CHALLENGE_RETRY_AFTER = 10.0

# What a refusal is about, by its words; `refusal` has the order.
_STALE = re.compile(r"nonce|security|expired|过期|安全验证|刷新页面", re.IGNORECASE)
_RATE = re.compile(r"rate.?limit|too many|limit (?:reached|exceeded)|quota|slow down|频繁|次数", re.IGNORECASE)
_LENGTH = re.compile(
    r"too long|too many char|(?:character|length) limit|(?:maximum|max\.?) .{0,40}(?:char|length)|过长|字数",
    re.IGNORECASE,
)
_TIMEOUT = re.compile(r"tim(?:ed?|ing)[ -]?out|\bin time\b|超时", re.IGNORECASE)
_TROUBLE = re.compile(r"unavailable|overload|busy|try again|temporar|繁忙|稍后", re.IGNORECASE)
_POLICY = re.compile(r"policy|violat|inappropriate|prohibited|sensitive|moderation|违规|敏感", re.IGNORECASE)
_EMPTY = re.compile(r"\bempty\b|message is required|不能为空", re.IGNORECASE)
_MODEL = re.compile(
    r"(?:invalid|unknown|unsupported) model|model .{0,40}(?:not (?:found|available|supported|exist)|no longer)|"
    r"(?:无效|未知|不支持).{0,6}模型|模型.{0,6}不存在",
    re.IGNORECASE,
)


def http_failure(reply: HttpReply) -> GatewayError | None:
    """The error that status and headers alone report, of the page or of a message; None if there is none."""
    if is_challenge(reply):
        return CloudflareChallenge(
            "Cloudflare requires a browser check before this gateway can reach the Kimi site.",
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
        return ContextTooLong("The message is too large for the Kimi site.", param="messages")
    if status in _TIMEOUTS:
        return UpstreamTimeout(f"The Kimi site did not answer in time (HTTP {status}).", retry_after=wait)
    if status >= 500 or status == 408:
        return UpstreamUnavailable(f"The Kimi site is unavailable (HTTP {status}).", retry_after=wait)
    if status in (401, 403, 451):
        return UpstreamBlocked(f"The Kimi site blocks this gateway (HTTP {status}).", retry_after=wait)
    if 300 <= status < 400:
        return SiteChanged(
            f"The Kimi site redirects (HTTP {status}). Check CHAT_PAGE_URL and UPSTREAM_URL.",
            reason="redirected",
            server=address_of(reply.headers.get("location", "")),
        )
    return SiteChanged(f"The Kimi site answered with HTTP {status}: the site may have changed.")


def refusal(reply: HttpReply, data: object, nonce: str) -> GatewayError:
    """The error for a `success: false`, by what the site says in its `data`; the nonce is never quoted."""
    said = _quotable(data, nonce)
    wait = retry_after(reply.headers)
    quoted = f": {said}" if said else "."
    if _LENGTH.search(said):
        return ContextTooLong(f"The message is too long for the Kimi site{quoted}", param="messages")
    if reply.status == 429 or _RATE.search(said):
        limit = _DEFAULT_RETRY_AFTER if wait is None else wait
        return UpstreamRateLimited(f"The Kimi site asks for fewer requests{quoted}", retry_after=limit)
    if _POLICY.search(said):
        return MessageRefused(f"The Kimi site won't answer this message{quoted}", param="messages")
    if _STALE.search(said):
        return NonceRejected("The Kimi site rejected the nonce.")
    if _MODEL.search(said):
        return SiteChanged(f"The Kimi site doesn't have the configured model{quoted}")
    if reply.status in _TIMEOUTS or _TIMEOUT.search(said):
        return UpstreamTimeout(f"The Kimi site did not answer in time{quoted}", retry_after=wait)
    if reply.status >= 500 or _TROUBLE.search(said):
        return UpstreamUnavailable(f"The Kimi site can't answer at the moment{quoted}", retry_after=wait)
    if _EMPTY.search(said):
        return InvalidRequest(f"The Kimi site doesn't accept this message{quoted}", param="messages")
    return UpstreamRefused(f"The Kimi site refused this message{quoted}")


def _quotable(data: object, nonce: str) -> str:
    """The text in the data of WordPress's `wp_send_json_error`, without markup or nonce, and shortened."""
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
