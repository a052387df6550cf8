"""Projects, and the limits of projects, upstreams and the gateway: how they stand, tried, set."""

from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.api.console.limit_bars import STRETCH_MINUTES, Tried, bars, read_standing, try_limits
from app.api.console.rendering import Rendering
from app.api.console.services import ConsoleServices
from app.api.console.subjects import names_of_subjects
from app.api.console.visitors import Refused, actor_of, form_of, home_of, page_path
from app.domain.caller import ENVIRONMENT
from app.domain.granting import Scope
from app.domain.limits import read_limits
from app.limits.stored import LIMITS_SET, LIMITS_UNSET, change_limits
from app.storage.audit import actions_before
from app.storage.clock import now
from app.storage.database import Connection
from app.storage.keys import list_keys, list_projects
from app.storage.spent import scope_of
from app.storage.upstreams import list_upstreams
from app.storage.usage import DAY, usage_by


class LimitPages:
    """See the module."""

    def __init__(self, services: ConsoleServices, rendering: Rendering) -> None:
        self._services = services
        self._database = services.admin.database
        self._rendering = rendering

    async def projects(self, request: Request) -> Response:
        """All projects, with what their keys have used today and on the six days before."""

        def read(connection: Connection) -> dict[str, Any]:
            names = [*list_projects(connection), ENVIRONMENT]
            # Whole days: sums of single keys by hour would be many times as many.
            until = now() - now() % DAY + DAY
            used = {row["project"]: row for row in usage_by(connection, "project", since=until - 7 * DAY, until=until)}
            keys = [key.project for key in list_keys(connection)]
            standing = read_standing(self._services, connection, [Scope("project", name) for name in names])
            return {"names": names, "used": used, "keys": keys, "standing": standing}

        found = await self._database.report(read)
        shown = bars(self._services, found["standing"])
        projects = [
            {
                "name": name,
                "keys": found["keys"].count(name),
                "used": found["used"].get(name),
                "bars": shown.get(Scope("project", name), []),
            }
            for name in found["names"]
            # Of the keys in API_MASTER_KEY, only if there are any.
            if name != ENVIRONMENT or name in found["used"] or Scope("project", name) in found["standing"].texts
        ]
        return self._rendering.page(request, "projects", projects=projects)

    async def show(self, request: Request) -> Response:
        """The limits of one scope."""
        return await self._shown(request, await self._scope(request))

    async def change(self, request: Request) -> Response:
        """Try limits, set them, or go back to those of the settings, as the button says."""
        scope, form, actor = await self._scope(request), await form_of(request), actor_of(request)
        text = form.get("limits", "")
        if form.get("do") == "try":
            return await self._shown(request, scope, text=text, tried=await try_limits(self._services, scope, text))
        try:
            limits = None if form.get("do") == "unset" or not text.strip() else read_limits(text)
        except ValueError as error:
            return await self._shown(request, scope, text=text, fault=str(error))
        await self._database.change(lambda connection: change_limits(self._database, connection, actor, scope, limits))
        return RedirectResponse(f"{home_of(request)}{page_path(request)}?saved=1", HTTPStatus.SEE_OTHER)

    async def _shown(
        self, request: Request, scope: Scope, *, text: str | None = None, tried: Tried | None = None, fault: str = ""
    ) -> Response:
        def read(connection: Connection) -> dict[str, Any]:
            # An upstream has the same name there: its other changes aren't about limits.
            wanted = (LIMITS_SET, LIMITS_UNSET)
            actions = actions_before(connection, None, subject=scope.text, actions=wanted, limit=10)
            return {
                "standing": read_standing(self._services, connection, [scope]),
                "actions": actions,
                "names": names_of_subjects(connection, [one["actor"] for one in actions]),
            }

        found = await self._database.report(read)
        standing = found["standing"]
        status = 400 if fault or (tried is not None and tried.fault) else 200
        return self._rendering.page(
            request,
            "limits",
            status=status,
            scope=scope,
            name=scope.text,
            bars=bars(self._services, standing).get(scope, []),
            text=standing.texts.get(scope, "") if text is None else text,
            is_set=scope in standing.stored,
            tried=tried,
            stretch=STRETCH_MINUTES,
            fault=fault,
            actions=found["actions"],
            names=found["names"],
        )

    async def _scope(self, request: Request) -> Scope:
        """The scope in the address, if it exists."""
        name = request.path_params["scope"]
        scope = scope_of(name)
        known = name == "gateway"
        if scope.kind == "upstream":
            own = self._services.admin.registry.own_names
            stored = await self._database.report(list_upstreams)
            known = scope.name in own or any(upstream.name == scope.name for upstream in stored)
        elif scope.kind == "project":
            projects = await self._database.report(list_projects)
            known = scope.name == ENVIRONMENT or scope.name in projects
        if not known:
            raise Refused(HTTPStatus.NOT_FOUND, "missing")
        return scope
