"""Parts of the application that are imported at their first request: most workers never get one."""

import asyncio
from collections.abc import Callable, Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.error_responses import error_response
from app.domain.errors import UnknownUrl


class LazyApp:
    """An application that is made when it is first needed, on a thread: that takes a while.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Callable[[], ASGIApp]) -> None:
        self._make = make
        self._making: asyncio.Task[ASGIApp] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        if self._making is None or (self._making.done() and self._making.exception() is not None):
            self._making = asyncio.create_task(asyncio.to_thread(self._make))
        app = await asyncio.shield(self._making)
        await app(scope, receive, send)


class Refusing:
    """Answers every request with a 404 that says why there is nothing.

    Args:
        reason: What clients are told.
    """

    def __init__(self, reason: str) -> None:
        self._reason = reason

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        await error_response(UnknownUrl(self._reason), scope["context"])(scope, receive, send)


class Annexes:
    """Sends requests below some addresses to applications of their own, and every other request on.

    An address that climbs out again (`/admin/../`) belongs to none of them: a proxy that lets only some clients to them
    takes it for another one.

    Args:
        apps: By the beginnings of their addresses, such as `/admin/`.
    """

    def __init__(self, app: ASGIApp, apps: Mapping[str, ASGIApp]) -> None:
        self._app = app
        self._apps = tuple(apps.items())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        path: str = scope.get("path", "")
        for beginning, app in self._apps:
            if path.startswith(beginning) and "/.." not in path:
                await app(scope, receive, send)
                return
        await self._app(scope, receive, send)
