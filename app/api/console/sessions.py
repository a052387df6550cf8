"""What the gateway remembers of a key's conversations: how much and how long, and no texts."""

from http import HTTPStatus
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.api.console.rendering import Rendering
from app.api.console.services import ConsoleServices
from app.api.console.visitors import Refused, actor_of, form_of
from app.domain.conversation import SessionKey
from app.domain.errors import GatewayError
from app.storage.audit import note_action
from app.storage.keys import list_keys


class SessionPages:
    """See the module."""

    def __init__(self, services: ConsoleServices, rendering: Rendering) -> None:
        self._services = services.admin
        self._rendering = rendering

    async def show(self, request: Request) -> Response:
        """The sessions of a key; the latest first."""
        return await self._shown(request, request.query_params.get("key", "")[:100])

    async def delete(self, request: Request) -> Response:
        """Forget a session, after the turn that may be running in it."""
        form, actor = await form_of(request), actor_of(request)
        key_id, session_id = form.get("key", "")[:100], form.get("session", "")
        try:
            async with self._services.sessions.hold(SessionKey(key_id, session_id)) as held:
                if not await held.delete():
                    raise Refused(HTTPStatus.NOT_FOUND, "missing")
        except GatewayError as error:
            return await self._shown(request, key_id, fault=error.message)
        await self._services.database.run(
            lambda connection: note_action(connection, actor, "session.delete", f"key:{key_id}")
        )
        return RedirectResponse(f"../sessions?{urlencode({'key': key_id})}", HTTPStatus.SEE_OTHER)

    async def _shown(self, request: Request, key_id: str, *, fault: str = "") -> Response:
        keys = await self._services.database.report(lambda connection: list_keys(connection, revoked=True))
        sessions, store = [], self._services.sessions
        if key_id:
            try:
                sessions = [
                    {
                        "id": session.id,
                        "created_at": round(session.created_at * 1000),
                        "updated_at": round(session.updated_at * 1000),
                        "expires_at": round((session.updated_at + store.time_to_live) * 1000),
                        "messages": len(session.messages),
                        "characters": session.characters,
                    }
                    for session in await store.sessions_of(key_id)
                ]
            except GatewayError as error:
                fault = error.message
        return self._rendering.page(
            request,
            "sessions",
            status=503 if fault else 200,
            keys=[(key.id, f"{key.project}/{key.name}") for key in keys],
            chosen=key_id,
            sessions=sessions,
            fault=fault,
        )
