"""The application behind `/admin/v1`."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic_core import ErrorDetails
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.admin.common import PREFIX
from app.api.admin.keys import KeyEndpoints
from app.api.admin.limits import LimitEndpoints
from app.api.admin.people import PeopleEndpoints
from app.api.admin.recordings import RecordingEndpoints
from app.api.admin.records import RecordEndpoints
from app.api.admin.requests import RequestEndpoints
from app.api.admin.services import AdminServices
from app.api.admin.state import StateEndpoints
from app.api.admin.upstreams import UpstreamEndpoints
from app.api.app import Gateway
from app.api.error_responses import error_response
from app.api.wire.faults import openai_fault
from app.domain.errors import InvalidRequest

# Where FastAPI says it has found something; the rest of a location is the client's.
_PARTS = frozenset({"body", "query", "path", "header"})
_TAGS = (
    {"name": "keys", "description": "Who may use the gateway"},
    {"name": "people", "description": "Who may sign in to the console"},
    {"name": "limits", "description": "How much keys, projects, upstreams and the gateway may use"},
    {"name": "requests", "description": "What was asked, by whom, and what came of it"},
    {"name": "recordings", "description": "Whose texts are kept for a while, and what they say"},
    {"name": "records", "description": "Prices, projects, and who has changed what"},
    {"name": "upstreams", "description": "Upstreams, models and routes"},
    {"name": "state", "description": "Workers, sessions and settings"},
)
# What a person who is signed in to the console sends instead of a key.
_LOGIN = {
    "consoleCookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": "kimi_console",
        "description": "Of whoever is signed in to the console; its name over https is `__Host-kimi_console`.",
    },
    "csrfToken": {
        "type": "apiKey",
        "in": "header",
        "name": "X-CSRF-Token",
        "description": "Of the login, from `GET /admin/v1/me`; only changes and `GET …/texts` need it.",
    },
}


def admin_app(services: AdminServices) -> FastAPI:
    """Make it. Its layers are the gateway's: whoever comes here has a key with the scope `admin` or `admin:read`, or is
    signed in to the console.
    """
    app = Gateway(
        [],
        [
            KeyEndpoints(services).router(),
            PeopleEndpoints(services).router(),
            LimitEndpoints(services).router(),
            RequestEndpoints(services).router(),
            RecordingEndpoints(services).router(),
            RecordEndpoints(services).router(),
            UpstreamEndpoints(services).router(),
            StateEndpoints(services).router(),
        ],
        public_paths=frozenset(),
        title="kimi-ai-2api: administration",
        version=services.version,
        description="Who may do what, and what happens. Needs a key with the scope `admin`, or `admin:read` to look; "
        "or the console's cookie.",
        login=_LOGIN,
        openapi_url=f"{PREFIX}/openapi.json",
        openapi_tags=_TAGS,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.add_exception_handler(RequestValidationError, _refuse)
    app.add_middleware(_BodiesAreJson)
    return app


class _BodiesAreJson:
    """Reads a body as JSON whatever its type is said to be, as calls are read: `curl -d` says that it is a form.

    No page can make a browser send one in somebody's name: the key, or the token of the login, is in a header.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = [header for header in scope["headers"] if header[0] != b"content-type"]
            scope = {**scope, "headers": [*headers, (b"content-type", b"application/json")]}
        await self._app(scope, receive, send)


async def _refuse(request: Request, error: Exception) -> Response:
    """Say what is wrong with a request first of all."""
    if not isinstance(error, RequestValidationError):
        raise error
    return error_response(_refusal(error.errors()[0]), request.scope["context"])


def _refusal(first: ErrorDetails) -> InvalidRequest:
    place = first["loc"]
    if first["type"] == "json_invalid":
        return InvalidRequest(f"The request body could not be parsed as JSON ({first['ctx']['error']}).")
    if place == ("body",):
        return InvalidRequest("The request body must be a JSON object.")
    first["loc"] = place[1:] if place[0] in _PARTS else place
    first["msg"] = first["msg"].removeprefix("Value error, ")
    return openai_fault(first)
