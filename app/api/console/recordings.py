"""Recordings: all of them, started and stopped; and what was said in a request, for administrators."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.api.admin.common import is_row_id
from app.api.console.keys import DURATIONS, KeyPages
from app.api.console.playground import PlaygroundPages
from app.api.console.rendering import Rendering
from app.api.console.requests import request_page, shown_request
from app.api.console.services import ConsoleServices
from app.api.console.subjects import names_of_subjects
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
from app.storage.keys import key_of, list_keys
from app.storage.recordings import RecordedText, count_of_texts, list_recordings


class RecordingPages:
    """See the module."""

    def __init__(
        self, services: ConsoleServices, rendering: Rendering, keys: KeyPages, playground: PlaygroundPages
    ) -> None:
        self._database = services.admin.database
        self._environment = services.admin.environment_keys
        self._rendering = rendering
        self._keys = keys
        self._playground = playground

    async def show(self, request: Request) -> Response:
        """All recordings that run, or that have left texts; and a form for one more."""
        return await self._shown(request)

    async def change_any(self, request: Request) -> Response:
        """Start, stop or delete the recording of any key, as the button says."""
        key_id = (await form_of(request)).get("key", "")
        try:
            await self._change(request, key_id)
        except RecordingFault as fault:
            return await self._shown(request, chosen=key_id, fault=str(fault))
        return RedirectResponse(f"{home_of(request)}/recordings", HTTPStatus.SEE_OTHER)

    async def change(self, request: Request) -> Response:
        """Start, stop or delete a key's recording, as the button says."""
        key_id = request.path_params["key_id"]
        try:
            await self._change(request, key_id)
        except RecordingFault as fault:
            return await self._keys.refuse(request, key_id, str(fault))
        return RedirectResponse(f"{home_of(request)}/keys/{key_id}", HTTPStatus.SEE_OTHER)

    async def texts(self, request: Request) -> Response:
        """A request's page, with its texts."""
        row, texts = await self._read(request)
        return request_page(self._rendering, request, row, texts)

    async def again(self, request: Request) -> Response:
        """The playground, with what was asked in a request."""
        row, texts = await self._read(request)
        asked = next((text.request for text in reversed(texts) if text.request), None)
        if asked is None:
            return request_page(self._rendering, request, row, texts, not_again=True)
        return await self._playground.again(request, row["key_id"], msgspec.json.decode(asked))

    async def _change(self, request: Request, key_id: str) -> None:
        """Do what a form's button says.

        Raises:
            RecordingFault: It can't be done.
        """
        form, actor = await form_of(request), actor_of(request)
        do, duration = form.get("do", ""), form.get("duration", "")
        if do == "start" and duration not in DURATIONS:
            raise Refused(HTTPStatus.BAD_REQUEST, "form")

        def change(connection: Connection) -> None:
            match do:
                case "start":
                    if key_id not in self._environment and key_of(connection, key_id) is None:
                        raise Refused(HTTPStatus.NOT_FOUND, "missing")
                    start_recording(self._database, connection, actor, key_id, span(duration))
                case "stop":
                    stop_recording(self._database, connection, actor, key_id)
                case "delete":
                    remove_recording(self._database, connection, actor, key_id)
                case _:
                    raise Refused(HTTPStatus.BAD_REQUEST, "form")

        await self._database.change(change)

    async def _shown(self, request: Request, *, chosen: str = "", fault: str = "") -> Response:
        def read(connection: Connection) -> dict[str, Any]:
            counts = count_of_texts(connection)
            found = [(one, counts.get(one.key_id, 0)) for one in list_recordings(connection)]
            named = {key.id: f"{key.project}/{key.name}" for key in list_keys(connection)}
            return {
                "names": names_of_subjects(connection, [one.started_by for one, _ in found]),
                "found": sorted(found, key=lambda one: (not one[0].is_running, -one[0].until)),
                "keys": sorted(named.items(), key=lambda one: one[1]) + [(one, one) for one in self._environment],
            }

        values = await self._database.report(read)
        return self._rendering.page(
            request,
            "recordings",
            status=400 if fault else 200,
            **values,
            environment=self._environment,
            chosen=chosen or request.query_params.get("key", ""),
            durations=DURATIONS,
            fault=fault,
        )

    async def _read(self, request: Request) -> tuple[dict[str, Any], Sequence[RecordedText]]:
        """The request in an address, and its texts, as whoever looks is written down."""
        call_id, actor = request.path_params["call_id"], actor_of(request)
        if not is_row_id(str(call_id)):
            raise Refused(HTTPStatus.NOT_FOUND, "missing")

        def read(connection: Connection) -> tuple[dict[str, Any], Sequence[RecordedText]]:
            row = shown_request(connection, call_id)
            texts = () if row is None else read_texts_of_call(connection, actor, row)
            if row is None or not texts:
                raise Refused(HTTPStatus.NOT_FOUND, "missing")
            return row, texts

        return await self._database.run(read)
