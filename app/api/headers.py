"""The headers in which every dialect talks about sessions and prompts."""

from collections.abc import Collection, Mapping
from typing import TypedDict
from urllib.parse import quote, unquote

from app.chat.events import Opening
from app.domain.chat import SessionRef
from app.domain.errors import InvalidRequest

MAX_SESSION_ID = 256
_TRUE = frozenset({"true", "1", "on", "yes"})
_IGNORED_AT_MOST = 32
# What a session id may consist of to stand in a header as it is; everything else is percent-encoded.
_PLAIN = " !#$&'()*+,/:;=?@[]^`{|}~\"<>\\"


class SessionHints(TypedDict):
    """What a request's headers say about its session, and about who is to answer. Each is a field of `ChatCall`."""

    session: SessionRef | None
    reset: bool
    strict: bool
    is_retry: bool
    idempotency_key: str | None
    provider: str | None


def session_hints(headers: Mapping[str, str], user: str | None) -> SessionHints:
    """Read them.

    Args:
        user: The request's `user`, if it may open a session.

    Raises:
        InvalidRequest: The session id is too long.
    """
    given, source = _session_id(headers.get("x-session-id", "")), "header"
    if not given and user:
        given, source = user.strip(), "user"
    if len(given) > MAX_SESSION_ID:
        raise InvalidRequest(
            f"A session id has at most {MAX_SESSION_ID} characters.",
            param="user" if source == "user" else "X-Session-Id",
        )
    retries = headers.get("x-stainless-retry-count", "")
    return SessionHints(
        session=SessionRef(given, "user" if source == "user" else "header") if given else None,
        reset=headers.get("x-session-reset", "").lower() in _TRUE,
        strict=headers.get("x-session-strict", "").lower() in _TRUE,
        is_retry=retries.isascii() and retries.isdigit() and retries.strip("0") != "",
        idempotency_key=headers.get("idempotency-key") or None,
        provider=headers.get("x-provider", "").strip() or None,
    )


def _session_id(header: str) -> str:
    """A header's session id: percent-encoded, as we send it, or plain UTF-8, which Starlette reads as Latin-1."""
    raw = header.encode("latin-1", "replace")
    return unquote(raw.decode("utf-8", "replace"), errors="replace").strip()


def opening_headers(
    opening: Opening, ignored: Collection[str], unserved: Collection[str] = frozenset()
) -> dict[str, str]:
    """What a response tells about who answers, and how the prompt came about.

    Args:
        ignored: Fields of the request that count only for an upstream that takes options.
        unserved: What has no effect whoever answers.
    """
    prompt = opening.prompt
    size = "x-prompt-tokens" if prompt.limit.unit == "tokens" else "x-prompt-chars"
    headers = {
        "x-session-action": opening.action,
        size: f"{prompt.size}/{prompt.limit.size}",
        "x-context-dropped": str(prompt.dropped),
        "x-context-shortened": str(prompt.shortened),
        "x-provider": opening.provider,
    }
    if opening.session_id is not None:
        headers["x-session-id"] = quote(opening.session_id, safe=_PLAIN, errors="replace")
    if opening.fallback:
        headers["x-fallback"] = ", ".join(opening.fallback)
    names = {*unserved, *(() if opening.options_taken else ignored)}
    if names:
        headers["x-ignored-params"] = ", ".join(sorted(names)[:_IGNORED_AT_MOST])
    return headers
