"""Upstreams, models and routes: how they are, and those of the database added, tried, changed and removed."""

import json
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from shlex import quote as quoted
from typing import Any, get_args
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.api.admin.trying import Answerers, Probe, probed, tried, who_answers
from app.api.console.limit_bars import bars, read_standing
from app.api.console.rendering import Rendering, language_of, texts_of
from app.api.console.services import ConsoleServices
from app.api.console.visitors import Refused, actor_of, form_of, home_of
from app.api.logins import visitor_of
from app.domain.chat import ApiKind
from app.domain.errors import InvalidRequest
from app.domain.granting import Scope
from app.providers.base import BaseProvider
from app.providers.entries import model_names, route_to
from app.providers.openai_compatible.presets import PRESETS
from app.providers.registry import ModelRoute
from app.providers.stored import NotStored, Opened, UpstreamFault, changed_entry, read_entry
from app.storage.database import Connection
from app.storage.keys import list_keys
from app.storage.upstreams import list_routes

# Fields of the form; all others stand in its last one, as JSON.
_TEXTS, _SWITCHES = ("preset", "kind", "base_url", "key_env"), ("discover", "any_model")
# The texts that label the fields in the form; the file of upstreams calls them by their names.
_LABELS = {
    "name": "name",
    "preset": "preset",
    "kind": "api_kind",
    "base_url": "base_url",
    "key": "upstream_key",
    "models": "models",
    "more": "more_fields",
}
_EXAMPLE = "https://llm.example.org/v1"
_PLAIN_MODEL = {"id", "upstream_id"}


class UpstreamPages:
    """See the module."""

    def __init__(self, services: ConsoleServices, rendering: Rendering) -> None:
        self._services = services.admin
        self._all = services
        self._upstreams = services.admin.upstreams
        self._rendering = rendering

    async def show(self, request: Request) -> Response:
        """Models and who answers them; how upstreams are."""
        query = request.query_params
        model = query.get("model", "").strip()[:256]
        answer: Answerers | None = None
        fault = ""
        if model:
            try:
                answer = await who_answers(self._services, model, query.get("key") or None)
            except InvalidRequest as error:
                fault = error.message
        return await self._shown(
            request,
            answer=answer,
            asked={"model": model, "key": query.get("key", "")},
            answer_fault=fault,
            probed=query.get("probed", "")[:100],
            outcome=query.get("outcome", "")[:200],
        )

    async def add(self, request: Request) -> Response:
        """Try an upstream, or add it, as the button says."""
        form, actor = await form_of(request), actor_of(request)
        name = form.get("name", "").strip()
        values = {**form, "name": name}
        try:
            document = {**_document(form), "name": name}
            if form.get("do") == "test":
                trial = await tried(self._upstreams.catalog, read_entry(document))
                return await self._shown(request, values=values, trial=trial)
            await self._services.database.run(lambda connection: self._upstreams.add(connection, actor, document))
        except UpstreamFault as fault:
            return await self._shown(request, values=values, fault=str(fault))
        return await self._back(request)

    async def detail(self, request: Request) -> Response:
        """One upstream."""
        return await self._one(request, await self._opened(request))

    async def change(self, request: Request) -> Response:
        """Try, change, enable, disable, move or remove an upstream, as the button says."""
        form, actor = await form_of(request), actor_of(request)
        name = request.path_params["name"]
        opened = await self._opened(request)
        if opened is None:
            raise Refused(HTTPStatus.NOT_FOUND, "missing")
        try:
            if form.get("do") == "test":
                entry = changed_entry(opened, _patch(opened, form))
                return await self._one(request, opened, values=form, trial=await tried(self._upstreams.catalog, entry))
            work = _work(opened, form)
            if work is None:
                await self._services.database.run(lambda connection: self._upstreams.remove(connection, actor, name))
            else:
                await self._services.database.run(
                    lambda connection: self._upstreams.change(connection, actor, name, work)
                )
        except UpstreamFault as fault:
            return await self._one(request, opened, values=form, fault=str(fault))
        return await self._back(request)

    async def route(self, request: Request) -> Response:
        """Set a route, or remove it, as the button says."""
        form, actor = await form_of(request), actor_of(request)
        name, text = form.get("route", "").strip(), form.get("targets", "")

        def work(connection: Connection) -> None:
            if form.get("do") == "remove":
                self._upstreams.remove_route(connection, actor, name)
            else:
                self._upstreams.set_route(connection, actor, name, ModelRoute.read(text).given)

        try:
            await self._services.database.run(work)
        except (UpstreamFault, ValueError) as fault:
            return await self._shown(request, route={"name": name, "targets": text}, route_fault=str(fault))
        return await self._back(request, "#routes")

    async def probe(self, request: Request) -> Response:
        """Try an upstream that there is."""
        name = request.path_params["name"]
        provider = self._running(name)
        if provider is None:
            raise Refused(HTTPStatus.NOT_FOUND, "missing")
        trial = await probed(provider)
        outcome = "ok" if trial.ok else trial.code
        return RedirectResponse(f"../../upstreams?probed={provider.name}&outcome={outcome}", HTTPStatus.SEE_OTHER)

    async def _back(self, request: Request, place: str = "") -> Response:
        await self._services.take_in()
        return RedirectResponse(f"{home_of(request)}/upstreams{place}", HTTPStatus.SEE_OTHER)

    def _running(self, name: str) -> BaseProvider | None:
        return next((one for one in self._services.registry.providers if one.name == name), None)

    async def _opened(self, request: Request) -> Opened | None:
        """The upstream in the address; None for one of the settings."""
        name = request.path_params["name"]
        if name in self._services.registry.own_names:
            return None
        try:
            return await self._services.database.report(lambda connection: self._upstreams.upstream(connection, name))
        except NotStored:
            raise Refused(HTTPStatus.NOT_FOUND, "missing") from None

    async def _one(
        self,
        request: Request,
        opened: Opened | None,
        *,
        values: Mapping[str, str] | None = None,
        trial: Probe | None = None,
        fault: str = "",
    ) -> Response:
        name = request.path_params["name"]
        provider = self._running(name)
        shown = values or ({} if opened is None else _values(opened.stored.entry))
        return self._rendering.page(
            request,
            "upstream",
            status=400 if fault else 200,
            name=name,
            opened=opened,
            state=None if provider is None else provider.status(),
            models=[] if provider is None else [spec.id for spec in provider.models],
            reason="" if opened is None else self._reason(opened),
            values=shown,
            words=_words(shown),
            presets=list(PRESETS),
            kinds=get_args(ApiKind),
            trial=trial,
            fault=_labelled(request, fault),
        )

    def _reason(self, opened: Opened) -> str:
        """Why an upstream can't be used here."""
        return opened.fault or self._services.upstream_faults().get(opened.stored.name, "")

    async def _shown(self, request: Request, **given: Any) -> Response:
        """The page of all upstreams. What is given replaces what stands in its forms."""
        registry, catalog = self._services.registry, self._upstreams.catalog

        def read(connection: Connection) -> dict[str, Any]:
            stored = self._upstreams.upstreams(connection)
            names = [*(one.name for one in registry.providers), *(one.stored.name for one in stored)]
            scopes = [Scope("gateway"), *(Scope("upstream", name) for name in dict.fromkeys(names))]
            return {
                "stored": stored,
                "scopes": scopes,
                "standing": read_standing(self._all, connection, scopes),
                "routes": {route.name: route_to(route.targets).text for route in list_routes(connection)},
                "keys": [(key.id, f"{key.project}/{key.name}") for key in list_keys(connection)],
            }

        found = await self._services.database.report(read)
        standing, shown = found["standing"], bars(self._all, found["standing"])
        stored = {name: text for name, text in found["routes"].items() if not catalog.is_fixed(name)}
        page: dict[str, Any] = {
            "values": {},
            "trial": None,
            "fault": "",
            "answer": None,
            "asked": {"model": "", "key": ""},
            "answer_fault": "",
            "route": {"name": "", "targets": ""},
            "route_fault": "",
            "probed": "",
            "outcome": "",
        } | given
        page["fault"] = _labelled(request, page["fault"])
        visitor = visitor_of(request)
        return self._rendering.page(
            request,
            "upstreams",
            status=400 if any(page[name] for name in ("fault", "route_fault", "answer_fault")) else 200,
            limits=[(scope.text, standing.texts.get(scope, ""), shown.get(scope, [])) for scope in found["scopes"]],
            upstreams=self._rows(found["stored"]),
            routes=self._routes(stored),
            words=_words(page["values"]),
            body=_body(page["values"]),
            presets=list(PRESETS),
            kinds=get_args(ApiKind),
            keys=found["keys"] if visitor is not None and visitor.role == "admin" else [],
            **page,
        )

    def _rows(self, stored: list[Opened]) -> list[dict[str, Any]]:
        """Those of the settings, then those of the database."""
        registry = self._services.registry
        own = [one for one in registry.providers if one.name in registry.own_names]
        rows: list[dict[str, Any]] = [
            {"name": provider.name, "state": provider.status(), "stored": None, "reason": ""} for provider in own
        ]
        for opened in stored:
            name = opened.stored.name
            provider = None if name in registry.own_names else self._running(name)
            state = None if provider is None else provider.status()
            rows.append({"name": name, "state": state, "stored": opened.stored, "reason": self._reason(opened)})
        return rows

    def _routes(self, stored: Mapping[str, str]) -> list[dict[str, Any]]:
        """All names that clients may ask for, routes first; `text` of those that can be changed here."""
        registry = self._services.registry
        names = dict.fromkeys([*registry.routes, *stored, *(name for name, _ in registry.model_ids())])
        return [
            {
                "name": name,
                "targets": [f"{one.provider.name}/{one.spec.id}" for one in registry.answering(name)],
                "text": stored.get(name),
                "address": quote(name, safe=""),
            }
            for name in names
        ]


def _document(form: Mapping[str, str]) -> dict[str, Any]:
    """The entry that a form says, its key included.

    Raises:
        UpstreamFault: A field can't be read.
    """
    document = _read("more", form.get("more", "").strip() or "{}", json.loads)
    if not isinstance(document, dict):
        raise UpstreamFault('more: write an object, such as {"timeout": 30}.', "more")
    document |= {name: text for name in _TEXTS if (text := form.get(name, "").strip())}
    document |= {name: True for name in _SWITCHES if form.get(name)}
    if models := _read("models", form.get("models", ""), model_names):
        document["models"] = [
            {"id": public} if own == public else {"id": public, "upstream_id": own} for public, own in models.items()
        ]
    if key := form.get("key", "").strip():
        document["key"] = key
    return document


def _read(field: str, text: str, read: Callable[[str], Any]) -> Any:
    if not text.strip():
        return None
    try:
        return read(text)
    except (ValueError, RecursionError) as error:
        raise UpstreamFault(f"{field}: {error}", field) from None


def _values(entry: Mapping[str, Any]) -> dict[str, str]:
    """The opposite of `_document`, as far as an entry is shown."""
    rest = {name: value for name, value in entry.items() if name != "name"}
    values = {name: str(rest.pop(name)) for name in _TEXTS if name in rest}
    for name in _SWITCHES:
        if rest.get(name) is True:
            values[name] = "1"
            del rest[name]
    models = rest.get("models")
    if models and all(model.keys() <= _PLAIN_MODEL for model in models):
        values["models"] = ", ".join(
            f"{model['id']}={own}" if (own := model.get("upstream_id", model["id"])) != model["id"] else model["id"]
            for model in rest.pop("models")
        )
    if rest:
        values["more"] = json.dumps(rest, ensure_ascii=False)
    return values


def _labelled(request: Request, fault: str) -> str:
    """What is wrong with an upstream, its field called as the form calls it, not as the file of upstreams does."""
    found = re.match(r"(\w+)(?=:| is missing)", fault)
    label = None if found is None else _LABELS.get(found[0])
    return fault if found is None or label is None else texts_of(language_of(request))[label] + fault[found.end() :]


def _words(values: Mapping[str, str]) -> str:
    """What a form says, as arguments of a command; its key is asked for."""
    words = [f"--{name.replace('_', '-')} {quoted(values[name])}" for name in (*_TEXTS, "models") if values.get(name)]
    words += [f"--{name.replace('_', '-')}" for name in _SWITCHES if values.get(name)]
    if values.get("more"):
        words.append(f"--json {quoted(values['more'])}")
    if values.get("key"):
        words.append("--key")
    return " ".join(words) or f"--base-url {_EXAMPLE} --key"


def _body(values: Mapping[str, str]) -> str:
    """The same as the body of a request, in quotes for a shell."""
    try:
        document = _document({**values, "key": "UPSTREAM_KEY"})
    except UpstreamFault:
        document = {"base_url": _EXAMPLE, "key": "UPSTREAM_KEY"}
    if not values.get("base_url") and not values.get("preset"):
        document["base_url"] = _EXAMPLE
    return quoted(json.dumps({"name": values.get("name") or "NAME", **document}, ensure_ascii=False))


def _patch(opened: Opened, form: Mapping[str, str]) -> dict[str, Any]:
    """What makes an upstream what the form says; a key that isn't given stays, unless it is to be taken away."""
    # Without the name, which stays, and with headers in any case: those that are secret are not in the form, and stay.
    old, new = {**opened.stored.entry, "name": None}, {"name": None, "headers": {}, **_document(form)}
    old.setdefault("headers", {})
    patch = _difference(old, new)
    return patch | ({"key": None} if form.get("no_key") else {})


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON merge patch that makes one object the other: in objects within them, too, null takes away."""
    patch: dict[str, Any] = dict.fromkeys(name for name in old if name not in new)
    for name, value in new.items():
        before = old.get(name)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            if changed := _difference(before, value):
                patch[name] = changed
        elif name not in old or before != value:
            patch[name] = value
    return patch


def _work(opened: Opened, form: Mapping[str, str]) -> dict[str, Any] | None:
    """What a button changes of an upstream; None to remove it."""
    position = opened.stored.position
    match form.get("do"):
        case "enable" | "disable":
            return {"enabled": form["do"] == "enable"}
        case "up" | "down":
            return {"position": max(1, position + (1 if form["do"] == "down" else -1))}
        case "remove":
            return None
        case _:
            return _patch(opened, form)
