"""Answers requests that are passed on: reads what has to be known of them, and writes the answer as it comes."""

from contextlib import aclosing

from starlette.types import Receive, Scope, Send

from app.api.error_responses import openai_error_object
from app.api.relay.bodies import FormBody, JsonBody
from app.api.relay.endpoints import RelayedEndpoint
from app.api.relay.multipart import boundary_of
from app.api.request import NO_STORE, RawHeaders, RequestContext, cancel_on_disconnect, read_body, says_json
from app.api.streaming.writing import ResponseWriter
from app.chat.relaying import RelayOpening, RelayService
from app.domain.errors import ClientClosedRequest, GatewayError
from app.domain.json import json_bytes
from app.domain.relay import RelayCall
from app.domain.usage import Origin

_EVENTS = "text/event-stream"
# What is written at once: what the client doesn't take is copied.
_PIECE = 64 * 1024


class RelayEndpoint:
    """Answers the requests of one endpoint. An ASGI application that raises `GatewayError`.

    Args:
        endpoint: The endpoint.
        service: Passes requests on.
        write_timeout: Seconds that a write may wait for the client.
    """

    def __init__(self, endpoint: RelayedEndpoint, service: RelayService, *, write_timeout: float) -> None:
        self.endpoint = endpoint
        # The name of the route in metrics.
        self.path = endpoint.address
        self._service = service
        self._write_timeout = write_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        context: RequestContext = scope["context"]
        if self.endpoint.is_json and (not self.endpoint.is_form or says_json(context.headers)):
            body = JsonBody.read(await read_body(receive))
            await self._answer(body, context, receive, send)
            return
        content_type = context.headers.get(b"content-type", b"").decode("latin-1")
        length = context.headers.get(b"content-length", b"")
        is_told = length.isdigit() and b"content-encoding" not in context.headers
        form = FormBody(receive, content_type, boundary_of(content_type), int(length) if is_told else None)
        with form:
            await form.read()
            await self._answer(form, context, form.receive_after, send)

    async def _answer(self, body: JsonBody | FormBody, context: RequestContext, receive: Receive, send: Send) -> None:
        context.wants_stream = body.wants_stream
        call = self._call(body, context)
        context.became_call = True
        origin = Origin(context.request_id, self.endpoint.name, body.wants_stream, body.end_user)
        writer = ResponseWriter(send, self._write_timeout)
        opening: RelayOpening | None = None
        try:
            with cancel_on_disconnect(receive):
                async with aclosing(self._service.relay(call, context.caller, origin)) as parts:
                    async for part in parts:
                        if isinstance(part, RelayOpening):
                            opening = part
                            await writer.start(context.begin_response(200, _headers(opening, context)))
                        else:
                            for place in range(0, len(part), _PIECE):
                                await writer.write(part[place : place + _PIECE])
            await writer.write(b"", more=False)
        except GatewayError as error:
            if opening is None:
                raise
            if opening.head.content_type.startswith(_EVENTS) and not isinstance(error, ClientClosedRequest):
                event = b"data: %b\n\n" % json_bytes({"error": openai_error_object(error)})
                await writer.write(event, more=False)
            # Else the answer has no end: the server cuts the connection, by which the client knows.

    def _call(self, body: JsonBody | FormBody, context: RequestContext) -> RelayCall:
        endpoint = self.endpoint
        provider = context.headers.get(b"x-provider", b"").decode("latin-1").strip()
        return RelayCall(
            model=body.model,
            service=endpoint.service,
            path=endpoint.path,
            subject=endpoint.subject,
            body=body,
            provider=provider or None,
            prompt_tokens=body.tokens(*endpoint.counted),
            unit=endpoint.unit,
            amount=body.characters(endpoint.subject) if endpoint.unit == "characters" else 0,
        )


def _headers(opening: RelayOpening, context: RequestContext) -> RawHeaders:
    head = opening.head
    headers = [
        (b"content-type", (head.content_type or "application/octet-stream").encode("latin-1")),
        (b"x-provider", opening.provider.encode("latin-1")),
        NO_STORE,
    ]
    if head.length is not None:
        headers.append((b"content-length", b"%d" % head.length))
    if opening.fallback:
        headers.append((b"x-fallback", ", ".join(opening.fallback).encode("latin-1")))
    limit_headers = context.error_form.limit_headers
    if opening.admission is not None and limit_headers is not None:
        headers += opening.admission.headers(limit_headers)
    return headers
