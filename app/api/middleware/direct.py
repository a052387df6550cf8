"""The short way to the busiest addresses: past the router that documents them, straight to their endpoints."""

from collections.abc import Iterable, Mapping

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.errors import answer


def direct_routes(routes: Iterable[BaseRoute]) -> dict[str, APIRoute]:
    """By their paths, the POST routes with a fixed path that have no response model.

    Their endpoints have one parameter, the request, and make their response themselves: a `JsonReply` or an
    `EventStream`.
    """
    return {
        route.path: route
        for route in routes
        if isinstance(route, APIRoute)
        and route.response_model is None
        and "POST" in (route.methods or ())
        and "{" not in route.path
    }


class DirectMiddleware:
    """Calls the endpoint of a direct route itself; every other request goes on to the router.

    FastAPI's own way from the router to an endpoint costs more than all that a chat completion does besides asking the
    upstream. These endpoints take the request and give a response, so they need none of it. See docs/performance.md.

    Args:
        routes: The direct routes, by their paths.
    """

    def __init__(self, app: ASGIApp, *, routes: Mapping[str, APIRoute]) -> None:
        self._app = app
        self._routes = dict(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        route = self._routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        try:
            response: Response = await route.endpoint(Request(scope, receive, send))
            await response(scope, receive, send)
        except Exception as error:
            refusal = answer(error, scope)
            if refusal is None:
                raise
            await refusal(scope, receive, send)
