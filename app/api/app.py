"""FastAPI, as little of it as is needed around our own layers."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.answering import AnsweringEndpoint
from app.api.errors import expected_error_response, install_error_handlers
from app.api.openapi import describe, install_openapi


class Gateway(FastAPI):
    """The application: our layers, the dialects' endpoints, and behind them FastAPI's router.

    FastAPI would put three layers of its own around ours: for unexpected errors, which our outermost layer answers, for
    OpenTelemetry and for the size of bodies, both of which we have, too. Every request, and every event of a stream,
    would have to pass them.

    Args:
        endpoints: Where calls are answered.
        routers: All further routes; the first one that matches a request answers it.
        public_paths: Addresses that need no key, for the API's description.
        options: FastAPI's own arguments.
    """

    def __init__(
        self,
        endpoints: Sequence[AnsweringEndpoint],
        routers: Sequence[APIRouter],
        *,
        public_paths: frozenset[str],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._endpoints = {endpoint.path: endpoint for endpoint in endpoints}
        described = APIRouter()
        for endpoint in endpoints:
            describe(described, endpoint.dialect)
        all_routers = [described, *routers]
        for router in all_routers:
            self.include_router(router)
        install_error_handlers(self, [route for router in all_routers for route in router.routes])
        dialects = [endpoint.dialect for endpoint in endpoints]
        wire_types = [model for dialect in dialects for model in (dialect.request, *dialect.wire_types)]
        install_openapi(self, wire_types, public_paths)

    def build_middleware_stack(self) -> ASGIApp:
        """All layers, inside out."""
        app: ASGIApp = AsyncExitStackMiddleware(self.router)
        app = ExceptionMiddleware(app, handlers=self.exception_handlers)
        app = _Dispatcher(app, self._endpoints)
        for layer, arguments, options in reversed(self.user_middleware):
            app = layer(app, *arguments, **options)
        return app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        if scope["type"] == "lifespan" or self.middleware_stack is None:
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self
        await self.middleware_stack(scope, receive, send)


class _Dispatcher:
    """Sends calls to the dialects' endpoints, and every other request to the router.

    FastAPI's own way from the router to an endpoint costs more than everything else that a chat completion does besides
    asking the upstream. See docs/performance.md.
    """

    def __init__(self, app: ASGIApp, endpoints: Mapping[str, AnsweringEndpoint]) -> None:
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
