"""The application behind Google's addresses."""

from collections.abc import Callable

from app.api.answering import AnsweringEndpoint
from app.api.app import Gateway
from app.api.dialects import Dialect, DialectServices
from app.api.gemini.dialect import CONTENT, STREAMED_CONTENT


def gemini_app(services: DialectServices, endpoint_of: Callable[[Dialect], AnsweringEndpoint]) -> Gateway:
    """Make it. Its layers are the gateway's.

    Args:
        services: What the dialect builds on.
        endpoint_of: Makes the endpoint at which it answers calls.
    """
    dialects = (CONTENT, STREAMED_CONTENT)
    return Gateway(
        [endpoint_of(dialect) for dialect in dialects],
        [dialect.routes(services) for dialect in dialects],
        public_paths=frozenset(),
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
