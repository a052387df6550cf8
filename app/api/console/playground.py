"""The playground: a call under a key's own limits, and beside its answer what the upstream really got.

Its calls go the way of all calls, through the chat service, as the caller whose key was chosen: the same models, limits
and sessions, and a row in the ledger with the dialect `console`. The browser gets no secret for that.
"""

import asyncio
import hashlib
import json
import re
import secrets
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api.answering import opening_headers
from app.api.console.playground_stream import MarkdownReading, PlaygroundEncoder, rendered, told_calls
from app.api.console.rendering import Rendering
from app.api.console.sent_prompt import SentPrompt, sent_prompt
from app.api.console.services import ConsoleServices
from app.api.console.snippets import snippets
from app.api.console.visitors import form_of
from app.api.dialects import Exchange
from app.api.error_responses import error_response
from app.api.logins import visitor_of
from app.api.openai.read import HONOURED, to_call
from app.api.openai.schemas import ChatCompletionRequest
from app.api.openai.stream import ChunkEncoder
from app.api.pages.addresses import gateway_address
from app.api.request import RawHeaders, RequestContext, SessionHints, cancel_on_disconnect
from app.api.streaming.event_stream import EventStream
from app.api.wire.body import given_fields, parse_body
from app.api.wire.other_models import refuse_other_models
from app.chat.events import Opening
from app.domain.caller import Caller
from app.domain.chat import ChatCall, Message, SessionRef
from app.domain.conversation import SessionKey
from app.domain.errors import GatewayError, InvalidRequest
from app.domain.json import json_bytes
from app.domain.usage import Origin
from app.keys.keyring import caller_of
from app.storage.clock import now
from app.storage.database import Connection
from app.storage.keys import key_of, list_keys

_DIALECT = "console"
# What a message has that the form has a field of its own for.
_PLAIN = frozenset({"role", "content"})
# What the form says with fields of its own, whatever stands among the settings.
_OWN_FIELDS = frozenset({"model", "messages", "stream", "stream_options"})
_CHAT = re.compile(r"[0-9a-f]{8,32}")
# Of the headers of an answer, those that say something about it.
_TELLING = (b"x-", b"retry-after", b"anthropic-ratelimit-")


class _Asked(Struct, frozen=True):
    """A call that somebody asks for.

    Args:
        snippets: The same request in other forms.
        before: What the session knew before.
    """

    call: ChatCall
    caller: Caller
    snippets: dict[str, str]
    before: tuple[Message, ...]
    exchange: Exchange

    def sent(self, opening: Opening) -> SentPrompt:
        """What the upstream got of it."""
        messages = self.call.messages
        if opening.action == "continued":
            is_told_anew = any(message.role == "system" for message in messages)
            messages = (*[one for one in self.before if one.role != "system" or not is_told_anew], *messages)
        return sent_prompt(opening.prompt, messages)


class PlaygroundPages:
    """See the module."""

    def __init__(self, services: ConsoleServices, rendering: Rendering) -> None:
        self._services = services
        self._playground = services.playground
        self._database = services.admin.database
        self._rendering = rendering

    async def show(self, request: Request) -> Response:
        """The empty form: a new conversation."""
        values = {name: request.query_params.get(name, "")[:2000] for name in ("key", "model", "message")}
        return await self._shown(request, values)

    async def again(self, request: Request, key_id: str, body: dict[str, Any]) -> Response:
        """The form with what somebody has asked before.

        Args:
            key_id: The key that it was asked with.
            body: As `app.domain.repeating.repeatable` has it.
        """
        return await self._shown(request, {"key": key_id, **_form(body)})

    async def answer(self, request: Request) -> Response:
        """Answer as a whole, in a page."""
        form = await form_of(request)
        models = [(form.get("model", ""), "1")]
        if form.get("model2"):
            models.append((form["model2"], "2"))
        with cancel_on_disconnect(request.receive), self._misbehaving(form):
            results = await asyncio.gather(*(self._answered(request, form, *one) for one in models))
        return await self._shown(request, form, results)

    async def stream(self, request: Request) -> Response:
        """Answer in parts, as `PlaygroundEncoder` writes them."""
        form = await form_of(request)
        asked = await self._asked(request, form, form.get("model", ""), form.get("column", "1"), stream=True)
        return _Streamed(self._services, asked, self._misbehaving(form))

    def _misbehaving(self, form: dict[str, str]) -> AbstractContextManager[None]:
        """In the demo: a block within which the simulator does wrong what a form asks for.

        Raises:
            InvalidRequest: It can't do that.
        """
        faults, wanted = self._playground.faults, form.get("fault", "")
        if faults is None or not wanted:
            return nullcontext()
        if wanted not in faults.names:
            raise InvalidRequest("The simulator has no such fault.", param="fault")
        return faults.during(wanted)

    async def _answered(self, request: Request, form: dict[str, str], model: str, column: str) -> dict[str, Any]:
        context: RequestContext = request.scope["context"]
        began = time.perf_counter()
        result: dict[str, Any] = {"model": model, "tree": [], "calls": [], "sent": None, "usage": None, "fault": None}
        try:
            asked = await self._asked(request, form, model, column, stream=False)
            context.became_call = True
            origin = Origin(context.request_id, _DIALECT, streamed=False)
            answer = await self._playground.chat.complete(asked.call, asked.caller, origin)
            ending = answer.as_shown().ending
            headers = opening_headers(answer.opening, asked.exchange, context.error_form.limit_headers)
            result |= {
                "tree": await rendered(ending.completion.text) or [ending.completion.text],
                "calls": told_calls(ending.completion),
                "sent": asked.sent(answer.opening),
                "usage": ending.usage,
                "snippets": asked.snippets,
            }
        except GatewayError as error:
            result["fault"] = error
            headers = error_response(error, context).raw_headers
        result["headers"] = _telling(headers)
        result["milliseconds"] = (time.perf_counter() - began) * 1000
        return result

    async def _asked(self, request: Request, form: dict[str, str], model: str, column: str, *, stream: bool) -> _Asked:
        """The call that a form asks for.

        Raises:
            GatewayError: It can't be made.
        """
        caller = await self._caller(request, form.get("key", ""))
        body = _body(form, model, stream=stream)
        wire = parse_body(ChatCompletionRequest, json_bytes(body))
        session_id = _session_id(request, form, column)
        hints = SessionHints(
            session=None if session_id is None else SessionRef(session_id, "header"),
            reset=False,
            strict=False,
            is_retry=False,
            idempotency_key=None,
            provider=None,
            cache=None,
        )
        options = given_fields(wire, HONOURED)
        refuse_other_models(options)
        call = to_call(wire, hints, self._playground.dialects, options)
        before: tuple[Message, ...] = ()
        if session_id is not None:
            session = await self._services.admin.sessions.load(SessionKey(caller.id, session_id))
            before = session.messages if session is not None else ()
        exchange = Exchange(calls=(call,), stream=stream, write=lambda _: b"", encoder=_plain_encoder)
        return _Asked(call, caller, snippets(body, session_id, gateway_address(request)), before, exchange)

    async def _caller(self, request: Request, key_id: str) -> Caller:
        """The caller whose key is used: the visitor's own, or the one that an administrator has chosen."""
        visitor = visitor_of(request)
        own = visitor.key_id if visitor is not None else None
        fixed = [caller for caller in self._playground.environment if own is None and caller.id == key_id]
        if fixed:
            return fixed[0]
        key = await self._database.run(lambda connection: key_of(connection, own or key_id), reads=True)
        if key is None:
            raise InvalidRequest("Choose a key.", param="key")
        state = key.state(now())
        if state != "active":
            raise InvalidRequest(f"This key is {state}.", param="key")
        if "chat" not in key.scopes:
            raise InvalidRequest("This key may not talk to models: it lacks the scope 'chat'.", param="key")
        return caller_of(key)

    async def _shown(
        self, request: Request, values: dict[str, str], results: Sequence[dict[str, Any]] = ()
    ) -> Response:
        visitor = visitor_of(request)

        own = visitor.key_id if visitor is not None else None

        def read(connection: Connection) -> list[Caller]:
            return [
                caller_of(key)
                for key in list_keys(connection)
                if "chat" in key.scopes and key.state(now()) == "active" and own in (None, key.id)
            ]

        callers = await self._database.report(read)
        chosen = callers[0] if own is not None and callers else None
        if own is None:
            callers += self._playground.environment
        registry = self._services.admin.registry
        names = registry.model_ids() if chosen is None else registry.model_ids(caller=chosen)
        chat = values.get("chat", "")
        faults = [result["fault"] for result in results if result["fault"] is not None]
        example = _body({"message": "Hello"}, registry.default_model, stream=True)
        return self._rendering.page(
            request,
            "playground",
            status=faults[0].status if faults else 200,
            callers=callers,
            models=[name for name, target in names if target.spec.chats],
            values=values,
            chat=chat if _CHAT.fullmatch(chat) else secrets.token_hex(8),
            results=results,
            faults=() if self._playground.faults is None else self._playground.faults.names,
            default_model=registry.default_model,
            example=snippets(example, None, gateway_address(request)),
        )


class _Streamed(Response):
    """A call whose answer is streamed."""

    def __init__(self, services: ConsoleServices, asked: _Asked, misbehaving: AbstractContextManager[None]) -> None:
        super().__init__()
        self._misbehaving = misbehaving
        self._services = services.playground
        self._asked = asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the call. Errors are raised before the first byte, and are events after it."""
        context: RequestContext = scope["context"]
        asked, services = self._asked, self._services
        context.became_call = True
        origin = Origin(context.request_id, _DIALECT, streamed=True)
        reading = MarkdownReading()
        stream = EventStream(
            reading.follow(services.chat.stream(asked.call, asked.caller, origin)),
            encoder=lambda opening: PlaygroundEncoder(
                _plain_encoder(opening), asked.sent(opening), asked.snippets, reading
            ),
            headers_of=lambda opening: opening_headers(opening, asked.exchange, context.error_form.limit_headers),
            policy=services.streams,
            metrics=services.metrics,
        )
        with self._misbehaving:
            await stream.send(context, receive, send)


def _plain_encoder(opening: Opening) -> ChunkEncoder:
    """The encoder of the API: its events are shown as clients get them."""
    return ChunkEncoder(opening, include_usage=True)


def _body(form: dict[str, str], model: str, *, stream: bool) -> dict[str, Any]:
    """A form as a request of the API.

    Raises:
        InvalidRequest: Something in it isn't JSON.
    """
    messages = [{"role": "system", "content": form["system"]}] if form.get("system", "").strip() else []
    history = _json(form["history"], "history") if form.get("history", "").strip() else []
    if not isinstance(history, list):
        raise InvalidRequest("history: write a list of messages.", param="history")
    messages += history
    if form.get("message", "").strip() or not history:
        messages.append({"role": "user", "content": form.get("message", "")})
    body: dict[str, Any] = {"model": model, "messages": messages}
    if form.get("settings", "").strip():
        settings = _json(form["settings"], "settings")
        if not isinstance(settings, dict):
            raise InvalidRequest('settings: write an object, such as {"temperature": 0.2}.', param="settings")
        body = {name: value for name, value in settings.items() if name not in _OWN_FIELDS} | body
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if form.get("tools", "").strip():
        body["tools"] = _json(form["tools"], "tools")
    if form.get("schema", "").strip():
        schema = {"name": "answer", "schema": _json(form["schema"], "schema")}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _form(body: dict[str, Any]) -> dict[str, str]:
    """The opposite of `_body`, as far as the form has fields for it; `settings` has the rest."""
    rest = {name: value for name, value in body.items() if name not in ("model", "messages", "tools")}
    messages = list(body["messages"])
    form = {"model": body["model"], "chat": "", "again": "1"}
    if messages and messages[0]["role"] == "system" and messages[0].keys() == _PLAIN:
        form["system"] = messages.pop(0)["content"]
    if messages and messages[-1]["role"] == "user" and messages[-1].keys() == _PLAIN:
        form["message"] = messages.pop()["content"]
    if messages:
        form["history"] = _written(messages)
    if "tools" in body:
        form["tools"] = _written(body["tools"])
    match rest.get("response_format"):
        case {"json_schema": {"schema": schema, **others}} if others.keys() == {"name"}:
            form["schema"] = _written(schema)
            del rest["response_format"]
    if rest:
        form["settings"] = _written(rest)
    return form


def _written(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def _json(text: str, param: str) -> Any:
    try:
        return msgspec.json.decode(text.encode("utf-8", "replace"))
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"{param}: this is not JSON ({error}).", param=param) from None


def _session_id(request: Request, form: dict[str, str], column: str) -> str | None:
    """The session of a conversation in the playground; None if it shall have none.

    It is the visitor's own: whoever may choose a key must not get at what others have said with it.
    """
    chat, visitor = form.get("chat", ""), visitor_of(request)
    if not form.get("session") or not _CHAT.fullmatch(chat) or visitor is None:
        return None
    whose = hashlib.sha256(visitor.actor.encode()).hexdigest()[:12]
    return f"playground-{whose}-{chat}{'-2' if column == '2' else ''}"


def _telling(headers: RawHeaders) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers if name.startswith(_TELLING)]
