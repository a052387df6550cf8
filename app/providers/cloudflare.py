"""Recognises Cloudflare's browser check in place of an answer. Pure."""

import re

from app.providers.http import HttpReply

_CHALLENGE_PAGE = re.compile(
    rb"<title>\s*Just a moment|/cdn-cgi/challenge-platform/|cf-chl-|_cf_chl_opt|[\"' ]challenge-form\b", re.IGNORECASE
)
# What no other page has: for statuses by which a challenge can't be told.
_NOTHING_ELSE = re.compile(rb"<title>\s*Just a moment|_cf_chl_opt|[\"' ]challenge-form\b", re.IGNORECASE)
# With any other status these words are an answer's own, or belong to scripts that Cloudflare puts into every page.
_CHALLENGE_STATUSES = (202, 403, 429, 503)
_LOOKED_AT = 50_000


def is_challenge(reply: HttpReply) -> bool:
    """Whether this is a challenge: by Cloudflare's header, or by the page."""
    if reply.headers.get("cf-mitigated", "").lower() == "challenge":
        return True
    return reply.status in _CHALLENGE_STATUSES and _CHALLENGE_PAGE.search(reply.body[:_LOOKED_AT]) is not None


def is_challenge_page(body: bytes) -> bool:
    """Whether a body that isn't what it should be is a challenge's page, whatever its status."""
    return _NOTHING_ELSE.search(body[:_LOOKED_AT]) is not None
