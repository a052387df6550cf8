"""Sessions as bytes, for stores outside of this process.

The first byte is the version of the format, the second says how the rest is packed. Whoever meets a version that it
doesn't know, after an update was taken back, treats the session as missing instead of guessing.
"""

import json
import zlib
from typing import Any

import msgspec
from msgspec.structs import astuple

from app.domain.chat import Message, ToolCall, Usage
from app.domain.conversation import LastTurn, Session

_VERSION = b"\x01"
_PLAIN = _VERSION + b"j"
_COMPRESSED = _VERSION + b"z"

# Smaller ones gain next to nothing; the fastest level already halves a conversation.
_WORTH_COMPRESSING = 1024
_LEVEL = 1


class UnreadableSession(Exception):
    """These bytes are no session that this version can read. Says why, without any of the texts."""


def encode(session: Session) -> bytes:
    """The session as bytes; `decode` gives an equal one."""
    data = _written(_to_json(session))
    if len(data) <= _WORTH_COMPRESSING:
        return _PLAIN + data
    return _COMPRESSED + zlib.compress(data, _LEVEL)


def decode(data: bytes) -> Session:
    """The session that was encoded.

    Raises:
        UnreadableSession: Another version wrote it, or it is damaged.
    """
    if data[:1] != _VERSION:
        raise UnreadableSession(f"format {data[:1].hex() or 'empty'} is unknown")
    head, body = data[:2], data[2:]
    try:
        if head == _COMPRESSED:
            body = zlib.decompress(body)
        return _from_json(_read(body))
    except (ValueError, TypeError, KeyError, AttributeError, zlib.error) as error:
        # Not chained: the errors of these libraries quote what they stumbled over.
        raise UnreadableSession(f"damaged ({type(error).__name__})") from None


def _written(value: object) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (UnicodeEncodeError, OverflowError):
        # Lone surrogates, which only the slow way takes. Not as \\u escapes: two next to each other would come back as
        # one character.
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "surrogatepass")


def _read(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (UnicodeDecodeError, msgspec.DecodeError):
        return json.loads(data.decode("utf-8", "surrogatepass"))


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
            "usage": astuple(last.usage),
            "prompt": [last.prompt_size, last.dropped, last.shortened],
            "at": last.at,
            "calls": _calls_to_json(last.tool_calls),
            "stop": last.stop,
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
            # Absent before there were any.
            tool_calls=_calls_from_json(last.get("calls", ())),
            stop=last.get("stop"),
        ),
    )


def _message_to_json(message: Message) -> list[object]:
    """Most messages are a role and a text; the rest is written only where there is something to write."""
    if message.name is None and message.tool_call_id is None and not message.tool_calls:
        return [message.role, message.text]
    return [message.role, message.text, message.name, message.tool_call_id, _calls_to_json(message.tool_calls)]


def _messages_from_json(rows: Any) -> tuple[Message, ...]:
    return tuple([Message(*row) if len(row) == 2 else _message_from_json(*row) for row in rows])


def _message_from_json(role: Any, text: Any, name: Any = None, tool_call_id: Any = None, calls: Any = ()) -> Message:
    return Message(role, text, name, _calls_from_json(calls), tool_call_id)


def _calls_to_json(calls: tuple[ToolCall, ...]) -> list[list[str]]:
    return [[call.id, call.name, call.arguments] for call in calls]


def _calls_from_json(calls: Any) -> tuple[ToolCall, ...]:
    return tuple(ToolCall(*call) for call in calls)
