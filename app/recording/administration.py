"""What an administrator does with recordings. Each function is one transaction's work, and is written down."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from app.storage.audit import Actor, note_action
from app.storage.clock import now
from app.storage.database import Connection, Database
from app.storage.keys import key_of
from app.storage.recordings import (
    MOST_BYTES,
    RecordedText,
    Recording,
    delete_recording,
    end_recording,
    recording_of,
    set_recording,
    size_of_texts,
    texts_of_call,
    texts_of_request,
)

SHORTEST_SECONDS, LONGEST_SECONDS = 15 * 60, 24 * 3600


class RecordingFault(Exception):
    """What was asked for can't be done; says why, in words for whoever asked.

    Args:
        param: The field at fault.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class NoRecording(RecordingFault):
    """The key isn't recorded, and there are no texts of it."""


def start_recording(database: Database, connection: Connection, actor: Actor, key_id: str, seconds: float) -> Recording:
    """Record a key from now on. One that is recorded already goes on being recorded, for so long from now on.

    Args:
        key_id: Of a key of the database or of the environment.

    Raises:
        RecordingFault: The time is too short or too long, the key is revoked, or there are too many texts of it.
    """
    if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        raise RecordingFault("A recording must last 15m to 24h.", "duration")
    database.hold_back_writers(connection)
    key = key_of(connection, key_id)
    if key is not None and key.revoked_at is not None:
        raise RecordingFault(f"The key {key.name!r} is revoked.", "key_id")
    if size_of_texts(connection, key_id) >= MOST_BYTES:
        raise RecordingFault(
            f"The texts of this key take {MOST_BYTES // 1024 // 1024} MB already; delete its recording first.", "key_id"
        )
    known, time = recording_of(connection, key_id), now()
    before = known if known is not None and known.is_running else None
    set_recording(
        database,
        connection,
        key_id,
        # The same recording: what workers still have to write for it is written.
        started_at=time if before is None else before.started_at,
        until=time + round(seconds * 1000),
        started_by=actor.name,
    )
    recording = _known(connection, key_id)
    was = None if before is None else _facts(before)
    note_action(connection, actor, "recording.start", f"key:{key_id}", before=was, after=_facts(recording))
    return recording


def stop_recording(database: Database, connection: Connection, actor: Actor, key_id: str) -> Recording:
    """End a key's recording. What was recorded stays until it is deleted. One that has ended stays as it is.

    Raises:
        NoRecording: See there.
    """
    before = _known(connection, key_id)
    if not before.is_running:
        return before
    end_recording(database, connection, key_id)
    recording = _known(connection, key_id)
    note_action(connection, actor, "recording.stop", f"key:{key_id}", before=_facts(before), after=_facts(recording))
    return recording


def remove_recording(database: Database, connection: Connection, actor: Actor, key_id: str) -> int:
    """End a key's recording, delete all its texts, and say how many they were.

    Raises:
        NoRecording: See there.
    """
    count = delete_recording(database, connection, key_id)
    if count is None:
        raise NoRecording(f"The key {key_id[:50]!r} has no recording.", "key_id")
    note_action(connection, actor, "recording.delete", f"key:{key_id}", before={"texts": count})
    return count


def read_texts(connection: Connection, actor: Actor, request_id: str) -> Sequence[RecordedText]:
    """The texts of a request's id, the oldest first; and write down who has read whose."""
    return _noted(connection, actor, texts_of_request(connection, request_id))


def read_texts_of_call(connection: Connection, actor: Actor, row: dict[str, Any]) -> Sequence[RecordedText]:
    """The texts of a row of the ledger; and write down who has read them."""
    return _noted(connection, actor, texts_of_call(connection, row))


def _noted(connection: Connection, actor: Actor, texts: Sequence[RecordedText]) -> Sequence[RecordedText]:
    for key_id, request_id in dict.fromkeys((text.key_id, text.request_id) for text in texts):
        note_action(connection, actor, "recording.read", f"key:{key_id}", after={"request_id": request_id})
    return texts


def _known(connection: Connection, key_id: str) -> Recording:
    recording = recording_of(connection, key_id)
    if recording is None:
        raise NoRecording(f"The key {key_id[:50]!r} has no recording.", "key_id")
    return recording


def _facts(recording: Recording) -> dict[str, object]:
    return {"until": datetime.fromtimestamp(recording.until / 1000, UTC).isoformat(timespec="seconds")}
