"""Sessions as bytes, for stores outside this process."""

from math import isfinite
from typing import Annotated, Any

from msgspec import Meta, Struct, convert
from msgspec.structs import astuple

from app.domain.chat import FinishReason, Message, Role, ToolCall, Usage
from app.domain.conversation import LastTurn, Session
from app.domain.documents import UnreadableDocument, pack, unpack

_Count = Annotated[int, Meta(ge=0)]


# The form of what is stored: whatever else somebody may have written there is no session. Defaults stand for what is
# left out, or was unknown when a session was stored.


class _StoredCall(Struct, array_like=True, forbid_unknown_fields=True):
    id: str
    name: str
    arguments: str
    extras: dict[str, Any] | None = None


class _StoredMessage(Struct, array_like=True, forbid_unknown_fields=True):
    role: Role
    text: str
    name: str | None = None
    tool_call_id: str | None = None
    calls: list[_StoredCall] = []


class _StoredTurn(Struct):
    fingerprint: str
    key: str | None
    text: str
    finish: FinishReason
    usage: Annotated[list[_Count], Meta(min_length=2, max_length=4)]
    prompt: tuple[_Count, _Count, _Count]
    at: float
    calls: list[_StoredCall] = []
    stop: str | None = None
    refusal: str = ""


class _StoredSession(Struct):
    id: str
    created: float
    updated: float
    system: list[_StoredMessage]
    turns: list[_StoredMessage]
    last: _StoredTurn


def encode(session: Session) -> bytes:
    """Encode a session; `decode` gives an equal one."""
    return pack(_to_json(session))


def decode(data: bytes) -> Session:
    """Decode a session.

    Raises:
        UnreadableDocument: Another version wrote it, or it is damaged.
    """
    document = unpack(data)
    try:
        return _from_json(document)
    except (ValueError, TypeError, RecursionError) as error:
        # Not chained: these errors quote what they stumbled over.
        raise UnreadableDocument(f"damaged ({type(error).__name__})") from None


def _to_json(session: Session) -> dict[str, object]:
    last = session.last_turn
    return {
        "id": session.id,
        "created": session.created_at,
        "updated": session.updated_at,
        "system": [_message_to_json(message) for message in session.system],
        "turns": [_message_to_json(message) for message in session.turns],
        "last": {
            "fingerprint": last.fingerprint,
            "key": last.idempotency_key,
            "text": last.text,
            "finish": last.finish_reason,
            # Without `estimated`: a replayed answer costs nothing, and older workers don't know it.
            "usage": astuple(last.usage)[:4],
            "prompt": [last.prompt_size, last.dropped, last.shortened],
            "at": last.at,
            "calls": _calls_to_json(last.tool_calls),
            "stop": last.stop,
            "refusal": last.refusal,
        },
    }


def _from_json(document: object) -> Session:
    stored = convert(document, _StoredSession)
    last = stored.last
    prompt_size, dropped, shortened = last.prompt
    if not all(isfinite(moment) for moment in (stored.created, stored.updated, last.at)):
        raise ValueError("no moment")
    return Session(
        id=stored.id,
        created_at=stored.created,
        updated_at=stored.updated,
        system=_messages(stored.system),
        turns=_messages(stored.turns),
        last_turn=LastTurn(
            fingerprint=last.fingerprint,
            idempotency_key=last.key,
            text=last.text,
            finish_reason=last.finish,
            usage=_usage(last.usage),
            prompt_size=prompt_size,
            dropped=dropped,
            shortened=shortened,
            at=last.at,
            tool_calls=_calls(last.calls),
            stop=last.stop,
            refusal=last.refusal,
        ),
    )


def _usage(counts: list[int]) -> Usage:
    prompt, completion, cached, reasoned = (*counts, 0, 0)[:4]
    return Usage(prompt, completion, cached, reasoned)


def _messages(rows: list[_StoredMessage]) -> tuple[Message, ...]:
    return tuple([Message(row.role, row.text, row.name, _calls(row.calls), row.tool_call_id) for row in rows])


def _calls(rows: list[_StoredCall]) -> tuple[ToolCall, ...]:
    return tuple([ToolCall(row.id, row.name, row.arguments, row.extras) for row in rows])


def _message_to_json(message: Message) -> list[object]:
    """The role and the text, which is all that most messages have; the other fields only if one is set."""
    if message.name is None and message.tool_call_id is None and not message.tool_calls:
        return [message.role, message.text]
    return [message.role, message.text, message.name, message.tool_call_id, _calls_to_json(message.tool_calls)]


def _calls_to_json(calls: tuple[ToolCall, ...]) -> list[list[object]]:
    return [
        [call.id, call.name, call.arguments, call.extras] if call.extras else [call.id, call.name, call.arguments]
        for call in calls
    ]
