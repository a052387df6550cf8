"""The frame in which every dialect answers calls: body, call, whole or streamed answer, headers."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.dialects import Dialect, DialectServices, Exchange
from app.api.error_responses import expected_error_response
from app.api.limit_headers import LimitHeaders
from app.api.request import JsonReply, RawHeaders, RequestContext, cancel_on_disconnect, read_body, session_id_header
from app.api.streaming.event_stream import EventStream, StreamPolicy
from app.chat.events import Ending, Event, Opening
from app.chat.service import ChatService
from app.domain.errors import GatewayError
from app.domain.json import read_json_object
from app.domain.usage import Origin
from app.observe.metrics import Metrics

_MAX_IGNORED = 32
# Proxies take a few KiB of headers.
_MAX_IGNORED_CHARACTERS = 1000


class AnsweringEndpoint:
    """Answers the calls of one dialect. An ASGI application that raises `GatewayError`.

    Args:
        dialect: The dialect.
        services: What it builds on.
        service: Answers the calls.
        stream_policy: How streams are written.
        metrics: Told of streams.
    """

    def __init__(
        self,
        dialect: Dialect,
        services: DialectServices,
        *,
        service: ChatService,
        stream_policy: StreamPolicy,
        metrics: Metrics,
    ) -> None:
        self.dialect = dialect
        # The name of the route in metrics.
        self.path = dialect.path
        self._services = services
        self._service = service
        self._stream_policy = stream_policy
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        context: RequestContext = scope["context"]
        body = await read_body(receive)
        try:
            exchange = await self.dialect.read(body, context, self._services)
        except GatewayError:
            asked = read_json_object(body) or {}
            # In some dialects the address says both.
            context.model = context.model or (model if isinstance(model := asked.get("model"), str) else "")
            context.wants_stream = context.wants_stream or asked.get("stream") is True
            raise
        context.became_call = True
        origin = Origin(context.request_id, self.dialect.name, exchange.stream, exchange.end_user)
        if exchange.stream:
            events = self._service.stream(exchange.calls[0], context.caller, origin)
            response = EventStream(
                events if exchange.keep is None else _kept(events, exchange.keep),
                encoder=exchange.encoder,
                media_type=exchange.stream_type,
                headers_of=lambda opening: opening_headers(opening, exchange, context.error_form.limit_headers),
                policy=self._stream_policy,
                metrics=self._metrics,
            )
            await response.send(context, receive, send)
            return
        with cancel_on_disconnect(receive):
            answers = []
            for call in exchange.calls:  # no comprehension: it would be one more coroutine
                answers.append(await self._service.complete(call, context.caller, origin))  # noqa: PERF401
            if exchange.keep is not None:
                await exchange.keep(answers[-1].ending)
            if answers[-1].ending.notice:
                answers = [answer.as_shown() for answer in answers]
        reply = JsonReply(
            exchange.write(answers), opening_headers(answers[-1].opening, exchange, context.error_form.limit_headers)
        )
        await reply(scope, receive, send)


class Dispatcher:
    """Sends calls to the dialects' endpoints, and every other request to the router.

    FastAPI's own way from the router to an endpoint costs more than everything else that a chat completion does besides
    asking the upstream. See docs/performance.md.

    Args:
        endpoints: By their addresses. Each has its address as its `path`, too.
    """

    def __init__(self, app: ASGIApp, endpoints: Mapping[str, ASGIApp]) -> None:
        self._app = app
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        endpoint = self._endpoints.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = endpoint
        try:
            await endpoint(scope, receive, send)
        except Exception as error:
            refusal = expected_error_response(error, scope["context"])
            if refusal is None:
                raise
            await refusal(scope, receive, send)


def opening_headers(
    opening: Opening, exchange: Exchange | None, limit_headers: LimitHeaders | None = None
) -> RawHeaders:
    """The response headers that tell who answers, how the prompt came about, and what limits leave.

    Args:
        opening: The beginning of the answer.
        exchange: What was asked; None if that isn't known any more.
        limit_headers: Writes those of limits; None for none.
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
        headers.append((b"x-session-id", session_id_header(opening.session_id)))
    if opening.cache_age is not None:
        headers += _cache_headers(opening.cache_age)
    if opening.fallback:
        headers.append((b"x-fallback", ", ".join(opening.fallback).encode("latin-1")))
    unserved = () if exchange is None or opening.native else exchange.unserved
    if exchange is not None and (unserved or opening.ignored or (exchange.ignored and not opening.options_taken)):
        names = {*unserved, *(() if opening.options_taken else exchange.ignored)}
        names.update([exchange.names.get(name, name) for name in opening.ignored])
        headers.append((b"x-ignored-params", _listed(sorted(names)[:_MAX_IGNORED]).encode()))
    if opening.admission is not None and limit_headers is not None:
        headers += opening.admission.headers(limit_headers)
    return headers


def _cache_headers(age: int) -> RawHeaders:
    """What tells whether an answer was given before, and how long ago."""
    return [(b"x-cache", b"MISS")] if age < 0 else [(b"x-cache", b"HIT"), (b"age", b"%d" % age)]


def _listed(names: list[str]) -> str:
    """The names, as far as they fit into a header."""
    text = ", ".join(names)
    return text if len(text) <= _MAX_IGNORED_CHARACTERS else text[:_MAX_IGNORED_CHARACTERS].rpartition(", ")[0]


async def _kept(
    events: AsyncGenerator[Event, None], keep: Callable[[Ending], Awaitable[None]]
) -> AsyncGenerator[Event, None]:
    """The events of a call whose answer is kept before its end is told.

    So a client that is slower than the call, or leaves while the answer is typed out, loses nothing.
    """
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Ending):
                await keep(event)
            yield event
