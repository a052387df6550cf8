"""The headers in which every dialect talks about sessions and prompts."""

import string
from collections.abc import Collection, Iterable, Mapping
from typing import TypedDict
from urllib.parse import quote, unquote

from app.api.reply import RawHeaders
from app.chat.events import Opening
from app.domain.chat import SessionRef
from app.domain.errors import InvalidRequest

MAX_SESSION_ID = 256
_TRUE = frozenset({b"true", b"1", b"on", b"yes"})
_IGNORED_AT_MOST = 32
# What a session id may consist of to stand in a header as it is; everything else is percent-encoded.
_PLAIN_SIGNS = " !#$&'()*+,/:;=?@[]^`{|}~\"<>\\"
_PLAIN = f"{string.ascii_letters}{string.digits}_.-{_PLAIN_SIGNS}".encode()


class SessionHints(TypedDict):
    """What a request's headers say about its session, and about who is to answer. Each is a field of `ChatCall`."""

    session: SessionRef | None
    reset: bool
    strict: bool
    is_retry: bool
    idempotency_key: str | None
    provider: str | None


def headers_by_name(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """A request's headers, by their names in small letters; of several with one name the first counts."""
    return dict(reversed([*headers]))


def session_hints(headers: Mapping[bytes, bytes], user: str | None) -> SessionHints:
    """Read them.

    Args:
        headers: The request's, by their names in small letters.
        user: The request's `user`, if it may open a session.

    Raises:
        InvalidRequest: The session id is too long.
    """
    given, source = _session_id(headers.get(b"x-session-id")), "header"
    if not given and user:
        given, source = user.strip(), "user"
    if len(given) > MAX_SESSION_ID:
        raise InvalidRequest(
            f"A session id has at most {MAX_SESSION_ID} characters.",
            param="user" if source == "user" else "X-Session-Id",
        )
    retries = headers.get(b"x-stainless-retry-count", b"")
    key, provider = headers.get(b"idempotency-key"), headers.get(b"x-provider")
    return SessionHints(
        session=SessionRef(given, "user" if source == "user" else "header") if given else None,
        reset=headers.get(b"x-session-reset", b"").lower() in _TRUE,
        strict=headers.get(b"x-session-strict", b"").lower() in _TRUE,
        is_retry=retries.isdigit() and retries.strip(b"0") != b"",
        idempotency_key=key.decode("latin-1") if key else None,
        provider=(provider.decode("latin-1").strip() or None) if provider else None,
    )


def _session_id(header: bytes | None) -> str:
    """A header's session id: percent-encoded, as we send it, or plain UTF-8."""
    return unquote(header.decode("utf-8", "replace"), errors="replace").strip() if header else ""


def _told_id(session_id: str) -> bytes:
    """A session id as it can stand in a header."""
    raw = session_id.encode("utf-8", "replace")
    return quote(raw, safe=_PLAIN_SIGNS).encode() if raw.strip(_PLAIN) else raw


def opening_headers(opening: Opening, ignored: Collection[str], unserved: Collection[str] = frozenset()) -> RawHeaders:
    """What a response tells about who answers, and how the prompt came about.

    Args:
        ignored: Fields of the request that count only for an upstream that takes options.
        unserved: What has no effect whoever answers.
    """
    prompt = opening.prompt
    headers = [
        (b"x-session-action", opening.action.encode()),
        (
            b"x-prompt-tokens" if prompt.limit.unit == "tokens" else b"x-prompt-chars",
            b"%d/%d" % (prompt.size, prompt.limit.size),
        ),
        (b"x-context-dropped", b"%d" % prompt.dropped),
        (b"x-context-shortened", b"%d" % prompt.shortened),
        (b"x-provider", opening.provider.encode("latin-1")),
    ]
    if opening.session_id is not None:
        headers.append((b"x-session-id", _told_id(opening.session_id)))
    if opening.fallback:
        headers.append((b"x-fallback", ", ".join(opening.fallback).encode("latin-1")))
    names = {*unserved, *(() if opening.options_taken else ignored)}
    if names:
        headers.append((b"x-ignored-params", ", ".join(sorted(names)[:_IGNORED_AT_MOST]).encode()))
    return headers
