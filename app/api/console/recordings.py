"""Recordings: started and stopped for a key; and what was said in a request, for administrators."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.api.admin.common import is_row_id
from app.api.console.keys import DURATIONS, KeyPages
from app.api.console.rendering import Rendering
from app.api.console.requests import request_page, shown_request
from app.api.console.services import ConsoleServices
from app.api.console.visitors import Refused, actor_of, form_of, home_of
from app.domain.durations import span
from app.recording.administration import (
    RecordingFault,
    read_texts_of_call,
    remove_recording,
    start_recording,
    stop_recording,
)
from app.storage.database import Connection
from app.storage.keys import key_of
from app.storage.recordings import RecordedText


class RecordingPages:
    """See the module."""

    def __init__(self, services: ConsoleServices, rendering: Rendering, keys: KeyPages) -> None:
        self._database = services.admin.database
        self._rendering = rendering
        self._keys = keys

    async def change(self, request: Request) -> Response:
        """Start, stop or delete a key's recording, as the button says."""
        key_id, form, actor = request.path_params["key_id"], await form_of(request), actor_of(request)
        do, duration = form.get("do", ""), form.get("duration", "")
        if do == "start" and duration not in DURATIONS:
            raise Refused(HTTPStatus.BAD_REQUEST, "form")

        def change(connection: Connection) -> None:
            if key_of(connection, key_id) is None:
                raise Refused(HTTPStatus.NOT_FOUND, "missing")
            match do:
                case "start":
                    start_recording(self._database, connection, actor, key_id, span(duration))
                case "stop":
                    stop_recording(self._database, connection, actor, key_id)
                case "delete":
                    remove_recording(self._database, connection, actor, key_id)
                case _:
                    raise Refused(HTTPStatus.BAD_REQUEST, "form")

        try:
            await self._database.run(change)
        except RecordingFault as fault:
            return await self._keys.refuse(request, key_id, str(fault))
        return RedirectResponse(f"{home_of(request)}/keys/{key_id}", HTTPStatus.SEE_OTHER)

    async def texts(self, request: Request) -> Response:
        """A request's page, with its texts."""
        call_id, actor = request.path_params["call_id"], actor_of(request)
        if not is_row_id(str(call_id)):
            raise Refused(HTTPStatus.NOT_FOUND, "missing")

        def read(connection: Connection) -> tuple[dict[str, Any], Sequence[RecordedText]]:
            row = shown_request(connection, call_id)
            texts = () if row is None else read_texts_of_call(connection, actor, row)
            if row is None or not texts:
                raise Refused(HTTPStatus.NOT_FOUND, "missing")
            return row, texts

        row, texts = await self._database.run(read)
        return request_page(self._rendering, request, row, texts)
