"""Workers, settings, and the log of changes."""

from functools import partial
from typing import Any

from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response

from app.api.admin.common import cursor_of, place_of
from app.api.admin.services import Setting
from app.api.console.rendering import Rendering, language_of, setting_texts_of
from app.api.console.services import ConsoleServices
from app.api.console.subjects import names_of_subjects
from app.domain.errors import InvalidRequest
from app.storage.audit import actions_before
from app.storage.database import Connection
from app.storage.limits import seen_workers
from app.storage.people import list_people
from app.storage.recordings import size_of_texts
from app.storage.requests import size_in_bytes

_IN_PAGE = 50


class StatePages:
    """See the module."""

    def __init__(self, services: ConsoleServices, rendering: Rendering) -> None:
        self._services = services.admin
        self._rendering = rendering

    async def workers(self, request: Request) -> Response:
        """All workers."""
        workers = await self._services.database.report(partial(seen_workers, self._services.database))
        services = self._services
        return self._rendering.page(
            request, "workers", workers=workers, worker=services.worker, numbers=services.state()
        )

    async def settings(self, request: Request) -> Response:
        """All settings, and the people who may look after them."""
        groups: dict[str, list[Setting]] = {}
        titles, meanings = setting_texts_of(language_of(request))
        for setting in self._services.settings():
            shown = replace(setting, meaning=meanings.get(setting.name, setting.meaning))
            groups.setdefault(titles.get(setting.group, setting.group), []).append(shown)
        database = self._services.database

        def read(connection: Connection) -> dict[str, Any]:
            return {
                "people": list_people(connection),
                "size": size_in_bytes(database, connection),
                "texts_size": size_of_texts(connection),
            }

        values = await database.report(read)
        kind = "SQLite" if database.is_sqlite else "PostgreSQL"
        return self._rendering.page(
            request, "settings", groups=groups, version=self._services.version, kind=kind, **values
        )

    async def audit(self, request: Request) -> Response:
        """Who has changed what."""
        subject = request.query_params.get("subject", "")[:200] or None
        try:
            place = place_of(request.query_params.get("cursor"), int)
        except InvalidRequest:
            place = None
        before = None if place is None else place[0]

        def read(connection: Connection) -> tuple[list[dict[str, Any]], dict[str, str]]:
            actions = actions_before(connection, before, subject=subject, limit=_IN_PAGE + 1)
            subjects = [one[field] for one in actions for field in ("actor", "subject")]
            return actions, names_of_subjects(connection, subjects)

        actions, names = await self._services.database.report(read)
        older = cursor_of(actions[_IN_PAGE - 1]["number"]) if len(actions) > _IN_PAGE else None
        return self._rendering.page(
            request, "audit", actions=actions[:_IN_PAGE], names=names, older=older, subject=subject or ""
        )
