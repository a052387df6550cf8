"""Keys: listed, made, changed; one with its limits, its use and its log."""

import hashlib
from collections.abc import Callable
from datetime import tzinfo
from http import HTTPStatus
from typing import Any

from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.api.console.charts import stacked
from app.api.console.limit_bars import (
    STRETCH_MINUTES,
    Standing,
    Tried,
    bars,
    grouped,
    read_standing,
    scopes_of_key,
    try_limits,
)
from app.api.console.overview import KeyDays, day_bars, days_of_keys
from app.api.console.rendering import Rendering
from app.api.console.services import ConsoleServices
from app.api.console.subjects import names_of_subjects
from app.api.console.visitors import Refused, actor_of, form_of
from app.api.logins import visitor_of
from app.domain.caller import SCOPES
from app.domain.granting import Scope
from app.domain.limits import read_limits, texts_of
from app.keys import administration
from app.keys.expiry import expiry_at, last_day
from app.keys.history import key_facts, note_changed, note_created, note_rotated
from app.storage.audit import actions_before
from app.storage.clock import now
from app.storage.database import Connection
from app.storage.keys import StoredKey, key_of, list_keys
from app.storage.limits import set_limits
from app.storage.recordings import count_of_texts, recording_of
from app.storage.request_pages import newest_of_keys
from app.storage.usage import DAY, usage_of

_DAYS_SHOWN, _DAYS_IN_LIST = 30, 7
# How limits stand takes a question to the database for each quota.
_MOST_WITH_BARS = 100
_ACTIONS: dict[str, Callable[..., StoredKey]] = {
    "pause": administration.pause_key,
    "resume": administration.resume_key,
    "revoke": administration.revoke_key,
}
# Of recordings, as the form offers them.
DURATIONS = ("15m", "1h", "4h", "24h")
_CHANGED_MEANWHILE = (
    "This key has been changed since the page was loaded; Changes says by whom. Save again to replace that."
)
_GRACES = {"0": 0.0, "1h": 3600.0, "24h": 86_400.0, "7d": 7 * 86_400.0}


class KeyPages:
    """See the module."""

    def __init__(self, services: ConsoleServices, rendering: Rendering) -> None:
        self._services = services
        self._database = services.admin.database
        self._zone = services.admin.zone
        self._rendering = rendering

    async def show(self, request: Request) -> Response:
        """All keys, with what they have used in the last week."""
        words = request.query_params.get("q", "")[:100]
        revoked = bool(request.query_params.get("revoked"))

        def read(connection: Connection) -> tuple[list[StoredKey], dict[str, KeyDays], dict[str, int], Standing]:
            keys = [
                key
                for key in list_keys(connection, revoked=revoked)
                if words.lower() in f"{key.project}/{key.name} {key.note} {key.id}".lower()
            ]
            scopes = [Scope("key", key.id) for key in keys[:_MOST_WITH_BARS]]
            newest = newest_of_keys(connection, [key.id for key in keys])
            return (
                keys,
                days_of_keys(connection, _DAYS_IN_LIST),
                newest,
                read_standing(self._services, connection, scopes),
            )

        found, days, newest, standing = await self._database.report(read)
        shown = bars(self._services, standing)
        keys = [
            _shown_key(key, standing.stored, self._zone)
            | {
                "bars": shown.get(Scope("key", key.id)),
                "days": days.get(key.id),
                "rectangles": stacked(days[key.id].bars) if key.id in days else [],
                "used_at": newest.get(key.id),
            }
            for key in found
        ]
        return self._rendering.page(request, "keys", keys=keys, words=words, revoked=revoked)

    async def new(self, request: Request) -> Response:
        """The form for a key."""
        values = {"name": request.query_params.get("name", ""), "limits": request.query_params.get("limits", "")}
        return self._rendering.page(request, "key_new", values=values, fault="", scopes=SCOPES)

    async def create(self, request: Request) -> Response:
        """Make a key, and show its secret, once."""
        form, actor = await form_of(request), actor_of(request)

        def make(connection: Connection) -> administration.NewSecret:
            limits = _limits(form.get("limits", ""))
            new = administration.create_key(
                connection,
                name=form.get("name", "").strip(),
                project=form.get("project", "").strip() or "default",
                scopes=[scope for scope in SCOPES if form.get(f"scope_{scope}")] or ["chat"],
                models=_models(form.get("models", "")),
                expires_at=self._expiry(form, None),
                note=form.get("note", "").strip(),
            )
            if limits is not None:
                set_limits(self._database, connection, Scope("key", new.key.id), limits)
            note_created(connection, actor, new.key)
            return new

        try:
            new = await self._database.change(make)
        except (administration.KeyFault, ValueError) as fault:
            return self._rendering.page(request, "key_new", status=400, values=form, fault=str(fault), scopes=SCOPES)
        return self._rendering.page(request, "key_secret", status=201, key=new.key, secret=new.secret, is_new=True)

    async def detail(self, request: Request) -> Response:
        """A key: what it may, what it has used, who has changed it."""
        key_id = request.path_params["key_id"]
        visitor = visitor_of(request)
        if visitor is not None and visitor.key_id not in (None, key_id):
            raise Refused(HTTPStatus.NOT_FOUND, "missing")
        return await self._shown(request, key_id)

    async def change(self, request: Request) -> Response:
        """Change a key's fields, or say what its new limits would have refused."""
        key_id, form, actor = request.path_params["key_id"], await form_of(request), actor_of(request)
        if form.get("do") == "try":
            tried = await try_limits(self._services, Scope("key", key_id), form.get("limits", ""))
            return await self._shown(request, key_id, values=form, tried=tried)

        def change(connection: Connection) -> None:
            key = _only(connection, key_id)
            scope, before = Scope("key", key.id), key_facts(connection, key)
            version = _version(before)
            if form.get("version", version) != version:
                form["version"] = version  # saved again, it replaces what has come between
                raise administration.KeyFault(_CHANGED_MEANWHILE)
            limits = _limits(form.get("limits", ""))
            changed = replace(
                key,
                name=form.get("name", "").strip(),
                project=form.get("project", "").strip() or "default",
                models=None if not _models(form.get("models", "")) else tuple(_models(form["models"]) or ()),
                note=form.get("note", "").strip(),
                expires_at=self._expiry(form, key.expires_at),
            )
            administration.update_key(self._database, connection, changed)
            if limits != before["limits"]:
                set_limits(self._database, connection, scope, limits)
            note_changed(connection, actor, "key.update", before, changed)

        try:
            await self._database.change(change)
        except (administration.KeyFault, ValueError) as fault:
            return await self._shown(request, key_id, fault=str(fault), values=form)
        return RedirectResponse(f"{key_id}?saved=1", HTTPStatus.SEE_OTHER)

    async def act(self, request: Request) -> Response:
        """Pause, resume, revoke, or give another secret."""
        key_id, action, actor = request.path_params["key_id"], request.path_params["action"], actor_of(request)
        form = await form_of(request)
        if action == "rotate":
            grace = _GRACES.get(form.get("grace", "0"), 0.0)

            def rotate(connection: Connection) -> administration.NewSecret:
                new = administration.rotate_key(
                    self._database, connection, _only(connection, key_id), grace_seconds=grace
                )
                note_rotated(connection, actor, new, grace_seconds=grace)
                return new

            try:
                new = await self._database.change(rotate)
            except administration.KeyFault as fault:
                return await self._shown(request, key_id, fault=str(fault), status=409)
            return self._rendering.page(request, "key_secret", key=new.key, secret=new.secret, is_new=False)
        work = _ACTIONS.get(action)
        if work is None:
            raise Refused(HTTPStatus.NOT_FOUND, "missing")

        def act(connection: Connection) -> None:
            key = _only(connection, key_id)
            before = key_facts(connection, key)
            note_changed(connection, actor, f"key.{action}", before, work(self._database, connection, key))

        try:
            await self._database.change(act)
        except administration.KeyFault as fault:
            return await self._shown(request, key_id, fault=str(fault), status=409)
        return RedirectResponse(f"../{key_id}", HTTPStatus.SEE_OTHER)

    def _expiry(self, form: dict[str, str], before: int | None) -> int | None:
        """When a key is to expire. A day that nobody has changed leaves the time as it was, whoever has set it.

        Raises:
            ValueError: It can't be read.
        """
        text = form.get("expires", "").strip()
        if text == _day(before, self._zone):
            return before
        return expiry_at(text, self._zone) if text else None

    async def refuse(self, request: Request, key_id: str, fault: str) -> Response:
        """A key's page that says why something was not done."""
        return await self._shown(request, key_id, fault=fault)

    async def _shown(
        self,
        request: Request,
        key_id: str,
        *,
        fault: str = "",
        status: int = 400,
        values: dict[str, str] | None = None,
        tried: Tried | None = None,
    ) -> Response:
        def read(connection: Connection) -> dict[str, Any]:
            key = _only(connection, key_id)
            days = day_bars(connection, key.id, _DAYS_SHOWN)
            today = now() - now() % DAY
            standing = read_standing(self._services, connection, scopes_of_key(key.id, key.project))
            actions = actions_before(connection, None, subject=f"key:{key.id}", limit=10)
            recording = recording_of(connection, key.id)
            whose = [*(one["actor"] for one in actions), *([] if recording is None else [recording.started_by])]
            return {
                "key": _shown_key(key, standing.stored, self._zone),
                "version": _version(key_facts(connection, key)),
                "standing": standing,
                "days": days,
                "rectangles": stacked(days),
                "used": usage_of(connection, key.id, {"today": today, "week": _week_ago(), "ever": 0}),
                "actions": actions,
                "recording": recording,
                "names": names_of_subjects(connection, whose),
                "texts": count_of_texts(connection, key.id).get(key.id, 0),
            }

        found = await self._database.report(read)
        is_refused = bool(fault or (tried is not None and tried.fault))
        shown = bars(self._services, found["standing"])
        return self._rendering.page(
            request,
            "key",
            status=status if is_refused else 200,
            **found,
            bars=grouped(shown, scopes_of_key(key_id, found["key"]["project"])),
            fault=fault,
            values=values or {},
            tried=tried,
            stretch=STRETCH_MINUTES,
            graces=list(_GRACES),
            durations=DURATIONS,
        )


def _version(facts: dict[str, object]) -> str:
    """Of the fields of a key's form, so that two forms that are open at a time don't undo each other's work."""
    fields = [facts[name] for name in ("name", "project", "models", "limits", "note", "expires_at")]
    return hashlib.sha256(repr(fields).encode()).hexdigest()[:16]


def _only(connection: Connection, key_id: str) -> StoredKey:
    key = key_of(connection, key_id)
    if key is None:
        raise Refused(HTTPStatus.NOT_FOUND, "missing")
    return key


def _shown_key(key: StoredKey, limits: dict[Scope, str], zone: tzinfo) -> dict[str, Any]:
    """A key as pages show it."""
    return {
        "id": key.id,
        "name": key.name,
        "project": key.project,
        "state": key.state(now()),
        "scopes": key.scopes,
        "models": ", ".join(key.models or ()),
        "limits": limits.get(Scope("key", key.id), ""),
        "note": key.note,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "expires": _day(key.expires_at, zone),
        "secrets": key.secrets,
    }


def _limits(text: str) -> str | None:
    """Limits as they are stored; None for those of the settings.

    Raises:
        ValueError: They can't be read.
    """
    return texts_of(read_limits(text)) if text.strip() else None


def _models(text: str) -> list[str] | None:
    return [part.strip() for part in text.split(",") if part.strip()] or None


def _day(expires_at: int | None, zone: tzinfo) -> str:
    """What the field for it shows."""
    return "" if expires_at is None else last_day(expires_at, zone).isoformat()


def _week_ago() -> int:
    time = now()
    return time - time % DAY - 6 * DAY
