"""What the site's failures and refusals mean. Pure.

docs/architecture.md lists what genuine WordPress answers in which case. An answer that fits no row is a 502.
"""

import html
import re
from collections.abc import Mapping

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
from app.providers.kimi import wording

_SCRIPT = re.compile(r"<(script|style)\b.*?(</\1\s*>|$)", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^>]{0,2000}>?")
_SPACE = re.compile(r"[\s\x00-\x1f\x7f]+")
_QUOTED_LENGTH = 300
_LOOKED_AT = 10_000
# Somebody between here and the model, such as nginx or Cloudflare (522, 524), has stopped waiting. The model may have
# been asked all the same. 523 means that nobody was.
_TIMEOUTS = (504, 522, 524, 598, 599)
_DEFAULT_RETRY_AFTER = 5.0
# Where plugins put what they have to say, and how many objects deep.
_TEXTS = ("message", "error", "msg", "detail", "errors")
_DEEPEST = 4
# The element of WordPress's own pages for errors.
_DIES = b"wp-die-message"
_CHALLENGE_RETRY_AFTER = 10.0


def challenge() -> CloudflareChallenge:
    """The error for Cloudflare's browser check in place of the site's page or answer."""
    return CloudflareChallenge(
        "Cloudflare requires a browser check before this gateway can reach the Kimi site.",
        retry_after=_CHALLENGE_RETRY_AFTER,
    )


def http_failure(reply: HttpReply) -> GatewayError | None:
    """The error that status and headers alone report, of the page or of a message; None if there is none."""
    if is_challenge(reply):
        return challenge()
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


def refusal(reply: HttpReply, document: Mapping[str, object], nonce: str) -> GatewayError:
    """The error for a `success: false`, by what the site says in its `data` or beside it; the nonce is never quoted."""
    said, code = _said(document)
    said = _quotable(said, nonce)
    words = f"{code} {said}"
    wait = retry_after(reply.headers)
    quoted = f": {said}" if said else "."
    if wording.LENGTH.search(words):
        return ContextTooLong(f"The message is too long for the Kimi site{quoted}", param="messages")
    if reply.status == 429 or wording.RATE.search(words):
        limit = _DEFAULT_RETRY_AFTER if wait is None else wait
        return UpstreamRateLimited(f"The Kimi site asks for fewer requests{quoted}", retry_after=limit)
    if wording.POLICY.search(words):
        return MessageRefused(f"The Kimi site won't answer this message{quoted}", param="messages")
    if wording.STALE.search(words):
        return NonceRejected("The Kimi site rejected the nonce.")
    if wording.MODEL.search(words):
        return SiteChanged(f"The Kimi site doesn't have the configured model{quoted}")
    if reply.status in _TIMEOUTS or wording.TIMEOUT.search(words):
        return UpstreamTimeout(f"The Kimi site did not answer in time{quoted}", retry_after=wait)
    if reply.status >= 500 or wording.TROUBLE.search(words):
        return UpstreamUnavailable(f"The Kimi site can't answer at the moment{quoted}", retry_after=wait)
    if wording.EMPTY.search(words):
        return InvalidRequest(f"The Kimi site doesn't accept this message{quoted}", param="messages")
    return UpstreamRefused(f"The Kimi site refused this message{quoted}")


def is_stale_page(reply: HttpReply) -> bool:
    """Whether this is the page on which WordPress says that a nonce is too old."""
    if reply.status != 403 or _DIES not in reply.body:
        return False
    return wording.STALE_PAGE.search(reply.body[:_LOOKED_AT].decode("utf-8", "replace")) is not None


def _said(document: Mapping[str, object]) -> tuple[str, str]:
    """The text and the code in the data of WordPress's `wp_send_json_error`, in whatever form; or those beside it."""
    data = document.get("data")
    if isinstance(data, list) and data:
        data = data[0]
    if isinstance(data, str) and data:
        return data, ""
    said = code = ""
    for part in (data, document):
        depth = 0
        while isinstance(part, dict) and depth < _DEEPEST:
            told = next((part[name] for name in _TEXTS if part.get(name)), None)
            code = code or _code(part.get("code"))
            said = said or (told if isinstance(told, str) else "")
            part, depth = told, depth + 1  # noqa: PLW2901 - a level deeper
    return said, code


def _code(code: object) -> str:
    """A code with words in it: `invalid_nonce` as it would be in a sentence."""
    return code.replace("_", " ")[:_QUOTED_LENGTH] if isinstance(code, str) else ""


def _quotable(said: str, nonce: str) -> str:
    """A text of the site's, without markup or nonce, and shortened."""
    text = _TAG.sub(" ", _SCRIPT.sub(" ", html.unescape(said[:_LOOKED_AT])))
    text = _SPACE.sub(" ", text.encode("utf-8", "replace").decode()).strip()
    if nonce:
        text = text.replace(nonce, "…")
    return text if len(text) <= _QUOTED_LENGTH else text[:_QUOTED_LENGTH] + "…"
