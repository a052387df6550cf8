"""Where the gateway is, for whoever asks."""

from starlette.requests import Request

from app.api.pages.browsers import address_as_seen
from app.api.request import RequestContext


def gateway_address(request: Request) -> str:
    """The gateway's address as the client sees it, without a slash at its end."""
    context: RequestContext = request.scope["context"]
    server = request.scope.get("server") or ("localhost", None)
    return address_as_seen(request.url.scheme, context.headers, request.scope.get("root_path", ""), server)
