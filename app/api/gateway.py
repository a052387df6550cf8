"""FastAPI, as little of it as is needed around our own layers."""

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send


class Gateway(FastAPI):
    """The application: our layers, and behind them FastAPI's router.

    FastAPI would put three layers of its own around ours: for unexpected errors, which our outermost layer answers, for
    OpenTelemetry and for the size of bodies, both of which we have, too. Every request, and every event of a stream,
    would have to pass them.
    """

    def build_middleware_stack(self) -> ASGIApp:
        """All layers, inside out."""
        app: ASGIApp = AsyncExitStackMiddleware(self.router)
        app = ExceptionMiddleware(app, handlers=self.exception_handlers)
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
