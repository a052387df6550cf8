"""Sessions as bytes, for stores outside this process."""

from typing import Any

from msgspec.structs import astuple

from app.domain.chat import Message, ToolCall, Usage
from app.domain.conversation import LastTurn, Session
from app.domain.documents import UnreadableDocument, pack, unpack


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
    except (ValueError, TypeError, KeyError, AttributeError) as error:
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


def _from_json(value: Any) -> Session:
    last = value["last"]
    prompt_size, dropped, shortened = last["prompt"]
    return Session(
        id=value["id"],
        created_at=value["created"],
        updated_at=value["updated"],
        system=_messages_from_json(value["system"]),
        turns=_messages_from_json(value["turns"]),
        last_turn=LastTurn(
            fingerprint=last["fingerprint"],
            idempotency_key=last["key"],
            text=last["text"],
            finish_reason=last["finish"],
            usage=Usage(*last["usage"]),
            prompt_size=prompt_size,
            dropped=dropped,
            shortened=shortened,
            at=last["at"],
            # Absent from sessions that were stored before these fields existed.
            tool_calls=_calls_from_json(last.get("calls", ())),
            stop=last.get("stop"),
            refusal=last.get("refusal", ""),
        ),
    )


def _message_to_json(message: Message) -> list[object]:
    """The role and the text, which is all that most messages have; the other fields only if one is set."""
    if message.name is None and message.tool_call_id is None and not message.tool_calls:
        return [message.role, message.text]
    return [message.role, message.text, message.name, message.tool_call_id, _calls_to_json(message.tool_calls)]


def _messages_from_json(rows: Any) -> tuple[Message, ...]:
    return tuple([Message(*row) if len(row) == 2 else _message_from_json(*row) for row in rows])


def _message_from_json(role: Any, text: Any, name: Any = None, tool_call_id: Any = None, calls: Any = ()) -> Message:
    return Message(role, text, name, _calls_from_json(calls), tool_call_id)


def _calls_to_json(calls: tuple[ToolCall, ...]) -> list[list[object]]:
    return [
        [call.id, call.name, call.arguments, call.extras] if call.extras else [call.id, call.name, call.arguments]
        for call in calls
    ]


def _calls_from_json(calls: Any) -> tuple[ToolCall, ...]:
    return tuple(ToolCall(*call) for call in calls)
