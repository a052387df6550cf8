"""FastAPI, as little of it as is needed around our own layers."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.answering import AnsweringEndpoint, Dispatcher
from app.api.dialects import Dialect
from app.api.error_responses import install_error_handlers
from app.api.lazy import Annexes
from app.api.openapi import describe, install_openapi
from app.api.relay.description import describe_relayed
from app.api.relay.endpoint import RelayEndpoint
from app.api.relay.endpoints import RelayedEndpoint

_OLD_MODELS = "pydantic.v1"


@contextmanager
def without_old_models() -> Iterator[None]:
    """Make routes without FastAPI's look whether their models are of Pydantic's old kind.

    It would import all of `pydantic.v1` for that, which takes 15 ms and more than 1 MB. Meanwhile it takes that
    for not installed.
    """
    if _OLD_MODELS in sys.modules:
        yield
        return
    sys.modules[_OLD_MODELS] = None  # type: ignore[assignment]  # how Python marks what can't be imported
    try:
        yield
    finally:
        del sys.modules[_OLD_MODELS]


class Gateway(FastAPI):
    """The application: our layers, the dialects' endpoints, and behind them FastAPI's router.

    FastAPI would put three layers of its own around ours: for unexpected errors, which our outermost layer answers, for
    OpenTelemetry and for the size of bodies, both of which we have, too. Every request, and every event of a stream,
    would have to pass them.

    Args:
        endpoints: Where calls are answered.
        routers: All further routes; the first one that matches a request answers it.
        public_paths: Addresses that need no key, for the API's description.
        relayed: Where requests are passed on.
        annexes: Applications of their own, by the beginnings of their addresses.
        openapi_url: Where the API is described; None if that is elsewhere.
        elsewhere: Make the descriptions of those annexes that belong to this API.
        login: See `install_openapi`.
        options: FastAPI's own arguments.
    """

    def __init__(
        self,
        endpoints: Sequence[AnsweringEndpoint],
        routers: Sequence[APIRouter],
        *,
        public_paths: frozenset[str],
        relayed: Sequence[RelayEndpoint] = (),
        annexes: Mapping[str, ASGIApp] | None = None,
        openapi_url: str | None = "/openapi.json",
        elsewhere: Sequence[Callable[[], Mapping[str, Any]]] = (),
        login: Mapping[str, Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options, openapi_url=None)
        self._annexes = annexes
        self._endpoints: dict[str, ASGIApp] = {endpoint.path: endpoint for endpoint in endpoints}
        self._endpoints |= {endpoint.path: endpoint for endpoint in relayed}
        # By these routes come only requests with other methods than POST.
        answering = [Route(path, _never, methods=["POST"]) for path in self._endpoints]
        self._routes = [*answering, *(route for router in routers for route in router.routes)]
        # Not by `include_router`: it makes every route a second time, at the first request that comes by them.
        self.router.routes.extend(self._routes)
        install_error_handlers(self, self._routes)
        dialects = [endpoint.dialect for endpoint in endpoints]
        wire_types = [model for dialect in dialects for model in (dialect.request, *dialect.wire_types)]
        install_openapi(
            self,
            openapi_url,
            partial(_described, dialects, [passed_on.endpoint for passed_on in relayed]),
            wire_types,
            public_paths,
            elsewhere,
            login,
        )

    def build_middleware_stack(self) -> ASGIApp:
        """All layers, inside out."""
        app: ASGIApp = AsyncExitStackMiddleware(self.router)
        app = ExceptionMiddleware(app, handlers=self.exception_handlers)
        app = _HeadAsGet(app, self._routes)
        if self._annexes:
            app = Annexes(app, self._annexes)
        app = Dispatcher(app, self._endpoints)
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


def _described(dialects: Sequence[Dialect], relayed: Sequence[RelayedEndpoint]) -> list[BaseRoute]:
    """What FastAPI can describe of the endpoints that its router never sees."""
    router = APIRouter()
    for dialect in dialects:
        describe(router, dialect)
    for endpoint in relayed:
        describe_relayed(router, endpoint)
    return router.routes


async def _never(request: Request) -> Response:
    """What a route does whose own method the dispatcher sends elsewhere."""
    raise AssertionError(f"{request.url.path} is answered by its own endpoint.")


class _HeadAsGet:
    """Answers HEAD wherever GET is answered; the server leaves the body out.

    Args:
        routes: Those that have a HEAD of their own keep it.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        if scope.get("method") != "HEAD" or any(route.matches(scope)[0] == Match.FULL for route in self._routes):
            await self._app(scope, receive, send)
            return
        get = {**scope, "method": "GET"}
        try:
            await self._app(get, receive, send)
        finally:
            scope["route"] = get.get("route")
