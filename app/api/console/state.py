"""Upstreams, workers, settings, and the log of changes."""

from functools import partial
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.api.admin.common import cursor_of, place_of
from app.api.console.limit_bars import bars, read_standing
from app.api.console.rendering import Rendering
from app.api.console.services import ConsoleServices
from app.api.console.visitors import Refused
from app.domain.errors import GatewayError, InvalidRequest
from app.domain.granting import Scope
from app.storage.audit import actions_before
from app.storage.limits import seen_workers
from app.storage.people import list_people

_IN_PAGE = 50


class StatePages:
    """See the module."""

    def __init__(self, services: ConsoleServices, rendering: Rendering) -> None:
        self._services = services.admin
        self._all = services
        self._rendering = rendering

    async def upstreams(self, request: Request) -> Response:
        """Models and who answers them; how upstreams are."""
        registry = self._services.registry
        scopes = [Scope("gateway"), *(Scope("upstream", provider.name) for provider in registry.providers)]
        standing = await self._services.database.report(lambda connection: read_standing(self._all, connection, scopes))
        shown = bars(self._all, standing)
        return self._rendering.page(
            request,
            "upstreams",
            limits=[(scope.text, standing.texts.get(scope, ""), shown.get(scope, [])) for scope in scopes],
            upstreams=[(provider, provider.status()) for provider in registry.providers],
            routes=[
                (name, [f"{target.provider.name}/{target.spec.id}" for target in registry.resolve(name)])
                for name, _ in registry.model_ids()
            ],
            probed=request.query_params.get("probed", "")[:100],
            outcome=request.query_params.get("outcome", "")[:200],
        )

    async def probe(self, request: Request) -> Response:
        """Try an upstream."""
        name = request.path_params["name"]
        provider = next((one for one in self._services.registry.providers if one.name == name), None)
        if provider is None:
            raise Refused(HTTPStatus.NOT_FOUND, "missing")
        try:
            await provider.connect()
            outcome = "ok"
        except GatewayError as error:
            outcome = error.code or error.type
        return RedirectResponse(f"../../upstreams?probed={provider.name}&outcome={outcome}", HTTPStatus.SEE_OTHER)

    async def workers(self, request: Request) -> Response:
        """All workers."""
        workers = await self._services.database.report(partial(seen_workers, self._services.database))
        return self._rendering.page(request, "workers", workers=workers, numbers=self._services.state())

    async def settings(self, request: Request) -> Response:
        """All settings, and the people who may look after them."""
        groups: dict[str, list[object]] = {}
        for setting in self._services.settings():
            groups.setdefault(setting.group, []).append(setting)
        people = await self._services.database.report(list_people)
        return self._rendering.page(request, "settings", groups=groups, people=people, version=self._services.version)

    async def audit(self, request: Request) -> Response:
        """Who has changed what."""
        subject = request.query_params.get("subject", "")[:200] or None
        try:
            place = place_of(request.query_params.get("cursor"), int)
        except InvalidRequest:
            place = None
        before = None if place is None else place[0]
        actions = await self._services.database.report(
            lambda connection: actions_before(connection, before, subject=subject, limit=_IN_PAGE + 1)
        )
        older = cursor_of(actions[_IN_PAGE - 1]["number"]) if len(actions) > _IN_PAGE else None
        return self._rendering.page(request, "audit", actions=actions[:_IN_PAGE], older=older, subject=subject or "")
