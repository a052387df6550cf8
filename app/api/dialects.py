"""What a dialect brings to the gateway, and what it gets to build on."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from fastapi import APIRouter
from msgspec import Struct
from pydantic import BaseModel

from app.api.request import ErrorForm, RequestContext
from app.chat.events import Answer, Ending, Opening
from app.domain.chat import ChatCall, Delta, Extras, NativeEvent, ToolCallDelta
from app.domain.errors import GatewayError
from app.providers.registry import ProviderRegistry
from app.sessions.base import SnapshotStore

# Server-sent events.
EVENTS = b"text/event-stream; charset=utf-8"


class EventEncoder(Protocol):
    """Writes the events of one streamed answer. It may keep in mind what it has written."""

    # What is sent to keep a silent stream open.
    ping: ClassVar[bytes]

    def opening(self) -> bytes:
        """What comes before the answer."""
        ...

    def text(self, text: str) -> bytes:
        """A piece of text."""
        ...

    def reasoning(self, text: str) -> bytes:
        """A piece of what is thought before the answer."""
        ...

    def refusal(self, text: str) -> bytes:
        """A piece of what is said in place of an answer."""
        ...

    def extras(self, text: str, extras: Extras) -> bytes:
        """A piece of text, which may be empty, and what the provider added to it."""
        ...

    def other_choice(self, delta: Delta) -> bytes:
        """A part of another answer than the first, where the dialect can ask for several."""
        ...

    def native(self, events: Sequence[NativeEvent]) -> bytes:
        """A part that came in this very form. Only where the dialect has handed the request on in its own form."""
        ...

    def tool_call(self, part: ToolCallDelta) -> bytes:
        """A part of a tool call."""
        ...

    def ending(self, ending: Ending) -> bytes:
        """What comes after the answer."""
        ...

    def failure(self, error: GatewayError) -> bytes:
        """What comes instead of the rest."""
        ...


class Exchange(Struct, frozen=True):
    """What a request asks, and how its answer is written.

    Args:
        calls: The calls to be answered; several only if the answer isn't streamed.
        stream: Whether the answer is streamed.
        write: Writes whole answers, one for each call, as the body of the response.
        encoder: Makes the encoder of a streamed answer when its opening is known.
        stream_type: The media type of what it writes.
        ignored: Fields of the request that count only for an upstream that takes options.
        unserved: What has no effect whoever answers.
        names: The request's own names of fields that the gateway calls otherwise.
        end_user: Whom the client says the request is for.
        keep: Awaited when the answer is complete, before its end is told; None if there is nothing to keep.
    """

    calls: tuple[ChatCall, ...]
    stream: bool
    write: Callable[[Sequence[Answer]], bytes]
    encoder: Callable[[Opening], EventEncoder]
    stream_type: bytes = EVENTS
    ignored: Collection[str] = ()
    unserved: Collection[str] = ()
    names: Mapping[str, str] = {}
    end_user: str | None = None
    keep: Callable[[Ending], Awaitable[None]] | None = None


class DialectServices(Struct, frozen=True):
    """What dialects build on.

    Args:
        session_from_user: Whether the request's `user` opens a session.
        max_messages: Messages that one request may have.
        snapshots: Where a dialect keeps what its clients may come back to.
        snapshot_max_characters: Characters that are kept of one conversation.
    """

    registry: ProviderRegistry
    session_from_user: bool
    max_messages: int
    snapshots: SnapshotStore
    snapshot_max_characters: int


class Dialect(Struct, frozen=True):
    """A way in which clients talk to the gateway.

    Args:
        name: In the ledger.
        path: The address at which it answers calls.
        summary: Of that address, for the API's description.
        request: The wire type of a call, for the API's description.
        answer: The wire type of a whole answer, likewise.
        examples: Bodies of calls that any gateway answers, likewise, by what they show.
        responses: What the errors mean, likewise, by HTTP status.
        headers: The request headers that it knows, with their meaning, likewise.
        read: Reads a request's body. Raises `GatewayError` for what can't be done.
        routes: Makes the dialect's further routes. At addresses that dialects share, the dialect that is registered
            first is asked first.
        errors: How its errors are written.
        wire_types: Further wire types that its routes read by themselves, for the API's description.
        parameters: What its address says, in the words of the API's description.
    """

    name: str
    path: str
    summary: str
    tag: str
    request: type[BaseModel]
    answer: type[BaseModel]
    examples: Mapping[str, object]
    responses: Mapping[int | str, dict[str, Any]]
    headers: Mapping[str, str]
    read: Callable[[bytes, RequestContext, DialectServices], Awaitable[Exchange]]
    routes: Callable[[DialectServices], APIRouter]
    errors: ErrorForm
    wire_types: tuple[type[BaseModel], ...] = ()
    parameters: tuple[Mapping[str, Any], ...] = ()
