"""The application behind `/admin/v1`."""

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import Response

from app.api.admin.keys import keys_router
from app.api.admin.limits import limits_router
from app.api.admin.records import records_router
from app.api.admin.requests import requests_router
from app.api.admin.services import AdminServices
from app.api.admin.state import state_router
from app.api.app import Gateway
from app.api.error_responses import error_response
from app.domain.errors import InvalidRequest

PREFIX = "/admin/v1"


def admin_app(services: AdminServices) -> FastAPI:
    """Make it. Its layers are the gateway's: whoever comes here has a key with the scope `admin` or `admin:read`."""
    router = APIRouter(prefix=PREFIX)
    for part in (keys_router, limits_router, requests_router, state_router, records_router):
        router.include_router(part(services))
    app = Gateway(
        [],
        [router],
        public_paths=frozenset(),
        title="kimi-ai-2api: administration",
        version=services.version,
        description="Keys, limits, usage and state. Needs a key with the scope `admin`, or `admin:read` to look only.",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )

    async def refuse(request: Request, error: Exception) -> Response:
        return error_response(_fault(error), request.scope["context"])

    app.add_exception_handler(RequestValidationError, refuse)
    return app


def _fault(error: Exception) -> InvalidRequest:
    """The first thing that is wrong with a request."""
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path", "header")]
    param = ".".join(place) or None
    message = first["msg"].removeprefix("Value error, ")
    return InvalidRequest(f"{param}: {message}." if param else f"{message}.", param=param)
