"""The application behind `/console`."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from app.api.console.keys import KeyPages
from app.api.console.limits import LimitPages
from app.api.console.overview import OverviewPages
from app.api.console.people import PeoplePages
from app.api.console.playground import PlaygroundPages
from app.api.console.prices import PricePages
from app.api.console.recordings import RecordingPages
from app.api.console.rendering import Rendering, serve_asset
from app.api.console.requests import RequestPages
from app.api.console.services import ConsoleServices
from app.api.console.sessions import SessionPages
from app.api.console.sign_in import SignInPages
from app.api.console.state import StatePages
from app.api.console.upstreams import UpstreamPages
from app.api.console.visitors import Guard, Page, Refused, home_of
from app.api.error_responses import error_response
from app.domain.errors import GatewayError
from app.storage.database import DatabaseAway

_EVERYBODY = ("admin", "viewer", "holder")
_STAFF = ("admin", "viewer")
_ADMINS = ("admin",)
# Viewers may spend nothing.
_CHATTERS = ("admin", "holder")


def console_app(services: ConsoleServices) -> Starlette:
    """Make it."""
    rendering, guard = Rendering(), Guard(services.admin.database)
    sign_in = SignInPages(services, rendering, guard)
    overview = OverviewPages(services, rendering)
    requests = RequestPages(services, rendering)
    keys = KeyPages(services, rendering)
    limits = LimitPages(services, rendering)
    sessions = SessionPages(services, rendering)
    playground = PlaygroundPages(services, rendering)
    recordings = RecordingPages(services, rendering, keys, playground)
    people = PeoplePages(services, rendering)
    upstreams = UpstreamPages(services, rendering)
    prices = PricePages(services, rendering)
    state = StatePages(services, rendering)
    pages: list[tuple[str, str, Page, tuple[str, ...]]] = [
        ("GET", "/console/", overview.show, _EVERYBODY),
        ("GET", "/console/welcome", overview.welcome, _ADMINS),
        ("GET", "/console/requests", requests.show, _EVERYBODY),
        ("GET", "/console/requests/feed", requests.feed, _EVERYBODY),
        ("GET", "/console/requests/{call_id:int}", requests.detail, _EVERYBODY),
        ("POST", "/console/requests/{call_id:int}/texts", recordings.texts, _ADMINS),
        ("POST", "/console/requests/{call_id:int}/playground", recordings.again, _ADMINS),
        ("GET", "/console/recordings", recordings.show, _STAFF),
        ("POST", "/console/recordings", recordings.change_any, _ADMINS),
        ("GET", "/console/keys", keys.show, _STAFF),
        ("GET", "/console/keys/new", keys.new, _ADMINS),
        ("POST", "/console/keys/new", keys.create, _ADMINS),
        ("GET", "/console/keys/{key_id}", keys.detail, _EVERYBODY),
        ("POST", "/console/keys/{key_id}", keys.change, _ADMINS),
        ("POST", "/console/keys/{key_id}/recording", recordings.change, _ADMINS),
        ("POST", "/console/keys/{key_id}/{action}", keys.act, _ADMINS),
        ("GET", "/console/projects", limits.projects, _STAFF),
        ("GET", "/console/limits/{scope:path}", limits.show, _STAFF),
        ("POST", "/console/limits/{scope:path}", limits.change, _ADMINS),
        ("GET", "/console/sessions", sessions.show, _STAFF),
        ("POST", "/console/sessions/delete", sessions.delete, _ADMINS),
        ("GET", "/console/playground", playground.show, _CHATTERS),
        ("POST", "/console/playground", playground.answer, _CHATTERS),
        ("POST", "/console/playground/stream", playground.stream, _CHATTERS),
        ("GET", "/console/upstreams", upstreams.show, _STAFF),
        ("POST", "/console/upstreams", upstreams.add, _ADMINS),
        ("GET", "/console/upstreams/{name}", upstreams.detail, _STAFF),
        ("POST", "/console/upstreams/{name}", upstreams.change, _ADMINS),
        ("POST", "/console/upstreams/{name}/probe", upstreams.probe, _ADMINS),
        ("POST", "/console/routes", upstreams.route, _ADMINS),
        ("GET", "/console/prices", prices.show, _STAFF),
        ("POST", "/console/prices", prices.set, _ADMINS),
        ("GET", "/console/workers", state.workers, _STAFF),
        ("GET", "/console/settings", state.settings, _STAFF),
        ("GET", "/console/people", people.show, _ADMINS),
        ("POST", "/console/people", people.add, _ADMINS),
        ("POST", "/console/people/{person_id}/{action}", people.act, _ADMINS),
        ("GET", "/console/audit", state.audit, _STAFF),
        ("GET", "/console/account", sign_in.account, _EVERYBODY),
        ("POST", "/console/account/password", sign_in.change_password, _STAFF),
        ("POST", "/console/account/logins", sign_in.end_logins, _EVERYBODY),
        ("POST", "/console/account/sign-out", sign_in.leave, _EVERYBODY),
    ]
    routes = [
        Route("/console", _home, methods=["GET"]),
        Route("/console/static/{version}/{name}", serve_asset, methods=["GET"]),
        Route("/console/sign-in", sign_in.show, methods=["GET"]),
        Route("/console/sign-in", sign_in.enter, methods=["POST"]),
        Route("/console/look", sign_in.choose_look, methods=["POST"]),
        *(Route(path, guard.only(*roles)(page), methods=[method]) for method, path, page, roles in pages),
    ]
    return Starlette(
        routes=routes,
        exception_handlers={
            **dict.fromkeys((Refused, HTTPException, DatabaseAway, Exception), _refuse(rendering, guard, services)),
            GatewayError: _answer_error,
        },
    )


async def _home(request: Request) -> Response:
    return RedirectResponse(f"{home_of(request)}/", 308)


async def _answer_error(request: Request, error: Exception) -> Response:
    """What a call of the playground is refused, as clients of the API are told; its page shows it."""
    if not isinstance(error, GatewayError):
        raise error
    return error_response(error, request.scope["context"])


def _refuse(
    rendering: Rendering, guard: Guard, services: ConsoleServices
) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def refuse(request: Request, error: Exception) -> Response:
        if isinstance(error, DatabaseAway):
            reason = "database" if services.without_database == "share" else "database_refuse"
            return rendering.page(request, "fault", status=503, reason=reason)
        if isinstance(error, Refused):
            return rendering.page(request, "fault", status=error.status, reason=error.reason)
        status = error.status_code if isinstance(error, HTTPException) else 500
        with suppress(DatabaseAway):
            await guard.recognise(request)  # where there is no page, too, there is a way to others
        return rendering.page(request, "fault", status=status, reason="missing" if status == 404 else "wrong")

    return refuse
