"""A span around each request, if traces are switched on."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.middleware.context import route_of


class RequestSpan(Protocol):
    """What is told about a request while its span is open."""

    def set_attribute(self, key: str, value: str | int) -> object:
        """A fact about the request."""
        ...


class OpenSpan(Protocol):
    """Opens the span of a request."""

    def __call__(self, name: str, headers: Mapping[str, str], /) -> AbstractContextManager[RequestSpan]:
        """`headers` may name the caller's own trace."""
        ...


class TracingMiddleware:
    """Opens a span, and closes it with the route and the status."""

    def __init__(self, app: ASGIApp, *, open_span: OpenSpan) -> None:
        self._app = app
        self._open_span = open_span

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with self._open_span("request", Headers(scope=scope)) as span:
            try:
                await self._app(scope, receive, send)
            finally:
                status: int | None = scope["context"].status
                if status is not None:
                    span.set_attribute("http.response.status_code", status)
                span.set_attribute("http.request.method", scope["method"])
                span.set_attribute("http.route", route_of(scope))
