"""One request: its context, its body, what its headers ask for, and whether its client is still there."""

import asyncio
import random
import string
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Self, TypedDict
from urllib.parse import quote, unquote

from msgspec import Struct
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from app.api.wire.addresses import ModelAddress
from app.domain.caller import Caller
from app.domain.chat import CacheWish, SessionRef
from app.domain.errors import ClientClosedRequest, GatewayError, InvalidRequest
from app.limits.limiter import Tightest

# As ASGI has them: names in lower case.
RawHeaders = list[tuple[bytes, bytes]]

# Answers are about their callers alone.
NO_STORE = (b"cache-control", b"no-store")
MAX_SESSION_ID = 256
_CLIENT_GONE = "The client closed the connection."
_TRUE = frozenset({b"true", b"1", b"on", b"yes"})
# What a session id may consist of to stand in a header as it is; everything else is percent-encoded.
_PLAIN_SIGNS = " !#$&'()*+,/:;=?@[]^`{|}~\"<>\\"
_PLAIN = f"{string.ascii_letters}{string.digits}_.-{_PLAIN_SIGNS}".encode()


class ErrorForm(Struct, frozen=True):
    """How a dialect writes its errors, and which requests are its own.

    Args:
        body: Writes the body of an error's response, from the error and the request's id.
        paths: The dialect's own addresses, each with a slash at its end; those below them are too.
        marks: Request headers, in lower case, that tell its clients from others wherever no dialect owns the address.
        shared_paths: Addresses, in the same form, that several dialects have.
        shared_marks: Request headers that tell its clients from others there, too.
        request_id_headers: Where its clients look for a request's id.
        limit_headers: Writes what limits leave, for its clients; None if they don't look for that.
        key_header: The header in which its clients send a key, if not as `Authorization`.
    """

    body: Callable[[GatewayError, str], bytes]
    paths: tuple[str, ...] = ()
    marks: frozenset[bytes] = frozenset()
    shared_paths: tuple[str, ...] = ()
    shared_marks: frozenset[bytes] = frozenset()
    request_id_headers: tuple[bytes, ...] = (b"x-request-id",)
    limit_headers: Callable[[Tightest], RawHeaders] | None = None
    key_header: str = "x-api-key"

    def owns(self, path: str) -> bool:
        """Whether the address is the dialect's own."""
        return f"{path}/".startswith(self.paths)

    def is_marked(self, path: str, headers: Mapping[bytes, bytes]) -> bool:
        """Whether the headers say that the client of this request speaks the dialect."""
        return not self.marks.isdisjoint(headers) or (
            f"{path}/".startswith(self.shared_paths) and not self.shared_marks.isdisjoint(headers)
        )


class RequestContext:
    """What is known of a request, for all layers: `scope["context"]`, put there by the outermost one.

    Args:
        headers: By their names in lower case; the first of several with one name.
        request_id: In every response and log line.
        error_form: How the request's errors are written.

    Attributes:
        asked: What the address says besides which endpoint is meant; there for addresses that name a model only.
        caller: Set by the auth layer. Code behind it that finds none fails, rather than serve anybody.
        shut_out: Whose key it is, if the key is known and doesn't open any more; then there is no `caller`.
        status: Of the response; None until it has begun.
        error: The code of the error that answers it; None if none does.
        became_call: Whether a call was made of it: its record is the chat service's then.
        model: The model that it asks for, if it never became a call and that is known all the same.
        wants_stream: Likewise, whether it asks for a stream.
    """

    __slots__ = (
        "_received",
        "asked",
        "became_call",
        "caller",
        "error",
        "error_form",
        "headers",
        "model",
        "request_id",
        "shut_out",
        "status",
        "wants_stream",
    )

    asked: ModelAddress
    caller: Caller

    def __init__(self, headers: Mapping[bytes, bytes], request_id: str, error_form: ErrorForm) -> None:
        self._received = time.perf_counter()
        self.headers = headers
        self.request_id = request_id
        self.error_form = error_form
        self.shut_out: Caller | None = None
        self.status: int | None = None
        self.error: str | None = None
        self.became_call = False
        self.model = ""
        self.wants_stream = False

    @property
    def seconds(self) -> float:
        """Seconds since the request came."""
        return time.perf_counter() - self._received

    def begin_response(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> Message:
        """The message that begins the response, with the headers that every response has.

        Responses of our own begin so. Others have it added by `completing`, through which each of their messages has to
        pass.
        """
        self.status = status
        request_id = self.request_id.encode()
        milliseconds = b"%d" % round((time.perf_counter() - self._received) * 1000)
        all_headers = [*headers, (b"openai-processing-ms", milliseconds)]
        for name in self.error_form.request_id_headers:
            all_headers.append((name, request_id))  # noqa: PERF401 - a comprehension is one more frame for one header
        return {"type": "http.response.start", "status": status, "headers": all_headers}

    def completing(self, send: Send) -> Send:
        """A `send` for responses that know nothing of the context."""

        async def send_completed(message: Message) -> None:
            if message["type"] == "http.response.start" and self.status is None:
                headers = message["headers"]
                # Of what is served here only static files may be kept; they say so themselves.
                if not any(name.lower() == b"cache-control" for name, _ in headers):
                    headers = [*headers, NO_STORE]
                message = self.begin_response(message["status"], headers)
            await send(message)

        return send_completed


class JsonReply(Response):
    """A whole answer in JSON. (Starlette's own responses go through their headers four times.)

    Args:
        body: The document.
        headers: Further headers besides length and type.
    """

    def __init__(self, body: bytes, headers: Iterable[tuple[bytes, bytes]] = (), status: int = 200) -> None:
        self.status_code = status
        self.body = body
        self.background = None
        self.raw_headers = [
            *headers,
            (b"content-length", b"%d" % len(body)),
            (b"content-type", b"application/json"),
            NO_STORE,
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Send it."""
        await send(scope["context"].begin_response(self.status_code, self.raw_headers))
        await send({"type": "http.response.body", "body": self.body})


class SessionHints(TypedDict):
    """What a request's headers say about session, provider and kept answers. Each is a field of `ChatCall`."""

    session: SessionRef | None
    reset: bool
    strict: bool
    is_retry: bool
    idempotency_key: str | None
    provider: str | None
    cache: CacheWish | None


# The headers that say any of it.
_HINTS = frozenset(
    {
        *(b"x-session-id", b"x-session-reset", b"x-session-strict", b"x-stainless-retry-count"),
        *(b"idempotency-key", b"x-provider", b"cache-control"),
    }
)
_NO_HINTS = SessionHints(
    session=None, reset=False, strict=False, is_retry=False, idempotency_key=None, provider=None, cache=None
)


def caller_of(request: Request) -> Caller:
    """Who has sent a request."""
    context: RequestContext = request.scope["context"]
    return context.caller


def unique_id(prefix: str, size: int) -> str:
    """A unique id. It grants nothing, so it may be predictable.

    Args:
        prefix: How it begins.
        size: Random bytes in it, written in hex.
    """
    # Twice as fast as formatting the number.
    return prefix + random.getrandbits(8 * size).to_bytes(size, "big").hex()


def says_json(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request's headers say that its body is JSON."""
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower() == b"application/json"


async def read_body(receive: Receive) -> bytes:
    """Read a request's body, which mostly comes in one piece.

    Raises:
        ClientDisconnect: The client left before its end.
    """
    pieces: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            return b"".join((*pieces, body)) if pieces else body
        pieces.append(body)


def session_hints(headers: Mapping[bytes, bytes], user: str | None) -> SessionHints:
    """Read what the headers say about the session.

    Args:
        headers: By their names in lower case.
        user: The request's `user`, if it may open a session.

    Raises:
        InvalidRequest: The session id is too long.
    """
    if not user and _HINTS.isdisjoint(headers):
        return _NO_HINTS
    header = headers.get(b"x-session-id")
    # Percent-encoded, as responses have it, or plain UTF-8.
    given = unquote(header.decode("utf-8", "replace"), errors="replace").strip() if header else ""
    session = SessionRef(given, "header") if given else None
    if session is None and user and user.strip():
        session = SessionRef(user.strip(), "user")
    if session is not None and len(session.id) > MAX_SESSION_ID:
        raise InvalidRequest(
            f"A session id must not exceed {MAX_SESSION_ID} characters.",
            param="user" if session.source == "user" else "X-Session-Id",
        )
    retries = headers.get(b"x-stainless-retry-count", b"")
    key, provider = headers.get(b"idempotency-key"), headers.get(b"x-provider")
    cache = headers.get(b"cache-control")
    return SessionHints(
        session=session,
        reset=headers.get(b"x-session-reset", b"").lower() in _TRUE,
        strict=headers.get(b"x-session-strict", b"").lower() in _TRUE,
        is_retry=retries.isdigit() and retries.strip(b"0") != b"",
        idempotency_key=key.decode("latin-1") if key else None,
        provider=(provider.decode("latin-1").strip() or None) if provider else None,
        cache=cache_wish(cache) if cache else None,
    )


def cache_wish(header: bytes) -> CacheWish | None:
    """Read what `Cache-Control` says about kept answers; None if it says nothing of them.

    Caches on the way, and browsers, have their words in it, too: what isn't understood is not looked at.
    """
    directives: dict[str, str] = {}
    for part in header.decode("latin-1").lower().split(","):
        name, _, value = part.partition("=")
        directives[name.strip()] = value.strip().strip('"')
    if "no-store" in directives:
        return CacheWish(0, keeps=False)
    if "no-cache" in directives:
        return CacheWish(0)
    seconds = directives.get("max-age", "")
    return CacheWish(float(seconds)) if seconds.isascii() and seconds.isdigit() else None


def session_id_header(session_id: str) -> bytes:
    """A session id as it can stand in a header."""
    raw = session_id.encode("utf-8", "replace")
    return quote(raw, safe=_PLAIN_SIGNS).encode() if raw.strip(_PLAIN) else raw


class cancel_on_disconnect:  # noqa: N801 - reads like asyncio.timeout, its sibling
    """Cancels the code in the `with` block when the client closes the connection.

    The request's body must have been read before. Raises `ClientClosedRequest` in place of the cancellation, and on
    entering if the client has gone already.

    For speed it runs what waits for the client itself, in the callbacks of the futures that are waited for: a task for
    each call costs several times as much.
    """

    __slots__ = ("_gone", "_receive", "_task", "_waiting")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False
        self._task: asyncio.Task[object] | None = None

    def __enter__(self) -> Self:
        self._waiting = self._until_gone()
        self._wait()
        if self._gone:
            raise ClientClosedRequest(_CLIENT_GONE)
        self._task = asyncio.current_task()
        if self._task is None:
            raise RuntimeError("cancel_on_disconnect works in tasks only.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task = self._task
        # Else its traceback, this object and the whole request would keep each other alive until the next collection.
        self._task = None
        self._waiting.close()
        if self._gone and task and task.uncancel() == 0 and isinstance(error, asyncio.CancelledError):
            raise ClientClosedRequest(_CLIENT_GONE) from None

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _wait(self) -> None:
        """Run what waits for the client up to where it waits, as a task would."""
        try:
            future: asyncio.Future[object] | None = self._waiting.send(None)
        except StopIteration:
            self._gone = True
            return
        if future is None:
            # It has only let others run.
            asyncio.get_running_loop().call_soon(self._go_on, None)
        else:
            future.add_done_callback(self._go_on)

    def _go_on(self, _done: object) -> None:
        if self._task is None:
            return  # the block has ended
        self._wait()
        if self._gone:
            self._task.cancel()
