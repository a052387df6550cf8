"""Recordings: whose texts are kept and until when, and the texts. Every function is one transaction's work.

Whoever writes here holds back all others who do: no text is written for a recording that has been deleted.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, Row, Select, delete, func, insert, select, update

from app.domain.repeating import messages_of
from app.domain.texts import messages_in_words
from app.storage import tables
from app.storage.changes import note_change
from app.storage.clock import now
from app.storage.database import Database
from app.storage.requests import give_back
from app.storage.rows import time_of

_RECORDINGS, _TEXTS, _KEYS, _PROJECTS = tables.recordings, tables.recorded_texts, tables.keys, tables.projects
# The subject of changes of recordings.
CHANGED = "recordings"
# What the texts of one key may take, in bytes: so that they can be deleted at once, and crowd out nothing else.
MOST_BYTES = 64 * 1024 * 1024
# The most texts of one request that are told: a client may give many requests the same id.
_MOST_OF_ONE_REQUEST = 50
# A text and its row of the ledger have the time of their call from the same process, a moment apart.
_SAME_CALL = 2000


class Recording(Struct, frozen=True):
    """A key whose calls' texts are kept, or were. Times are milliseconds since the epoch.

    Args:
        key_name: `PROJECT/NAME`; the id again for a key of the environment.
        started_by: As the log of changes has it.
        size: What the key's texts take, in bytes, as far as they were counted.
    """

    key_id: str
    key_name: str
    started_at: int
    until: int
    started_by: str
    size: int

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.until > now()


class RecordedText(Struct, frozen=True):
    """What was said in a call. Times are milliseconds since the epoch.

    Args:
        id: Any number that no other one has.
        at: When the call began, as its row in the ledger says.
        asked: What the client sent.
        sent: What the upstream was sent; None if none was asked.
        answered: What came back, as far as it came.
        cut: Which of these three were cut.
        recording: When the recording began for which it was taken, which tells it from others of the key; 0 if it was
            read from the database.
        request: What the client sent once more, as `app.domain.repeating.repeatable` has it, in JSON; empty if it can't
            be asked again.
    """

    id: int
    at: int
    ended_at: int
    key_id: str
    request_id: str
    asked: str
    sent: str | None
    answered: str
    cut: tuple[str, ...] = ()
    recording: int = 0
    request: str = ""


def list_recordings(connection: Connection) -> list[Recording]:
    """All recordings that run, or that may have left texts, by key."""
    return [_recording(row) for row in connection.execute(_select().order_by(_RECORDINGS.c.key_id))]


def running_recordings(connection: Connection, key_id: str | None = None) -> list[Recording]:
    """The recordings that run; of one key if asked for."""
    query = _select().where(_RECORDINGS.c.until > now()).order_by(_RECORDINGS.c.until, _RECORDINGS.c.key_id)
    rows = connection.execute(query if key_id is None else query.where(_RECORDINGS.c.key_id == key_id))
    return [_recording(row) for row in rows]


def recording_of(connection: Connection, key_id: str) -> Recording | None:
    """The latest recording of a key that runs or may have left texts."""
    row = connection.execute(_select().where(_RECORDINGS.c.key_id == key_id)).first()
    return None if row is None else _recording(row)


def set_recording(
    database: Database, connection: Connection, key_id: str, *, started_at: int, until: int, started_by: str
) -> None:
    """Record a key from now on, whatever was set before, and tell all workers."""
    database.hold_back_writers(connection)
    connection.execute(delete(_RECORDINGS).where(_RECORDINGS.c.key_id == key_id))
    size = size_of_texts(connection, key_id)
    connection.execute(
        insert(_RECORDINGS).values(key_id=key_id, started_at=started_at, until=until, started_by=started_by, size=size)
    )
    note_change(database, connection, CHANGED)


def end_recording(database: Database, connection: Connection, key_id: str) -> None:
    """End a key's recording now, and tell all workers. Its texts stay."""
    database.hold_back_writers(connection)
    connection.execute(update(_RECORDINGS).where(_RECORDINGS.c.key_id == key_id).values(until=now()))
    note_change(database, connection, CHANGED)


def delete_recording(database: Database, connection: Connection, key_id: str) -> int | None:
    """End a key's recording, delete its texts, tell all workers; and say how many texts. None if there was nothing."""
    database.hold_back_writers(connection)
    found = connection.execute(delete(_RECORDINGS).where(_RECORDINGS.c.key_id == key_id)).rowcount
    count = connection.execute(delete(_TEXTS).where(_TEXTS.c.key_id == key_id)).rowcount
    if not found and not count:
        return None
    if database.is_sqlite:
        give_back(connection)
    note_change(database, connection, CHANGED)
    return count


def write_texts(database: Database, connection: Connection, texts: Sequence[RecordedText]) -> int:
    """Write texts of calls that ended while their keys were recorded; others are left out.

    Left out, too, is what was taken for an earlier recording: that one may have been deleted, and its texts with it. A
    recording whose texts have become too large ends. Returns how many texts were left out for that. Those that have
    been written before stay as they are.
    """
    database.hold_back_writers(connection)
    known = set(connection.execute(select(_TEXTS.c.id).where(_TEXTS.c.id.in_([text.id for text in texts]))).scalars())
    by_key: dict[str, list[RecordedText]] = {}
    for text in texts:
        if text.id not in known:
            by_key.setdefault(text.key_id, []).append(text)
    left_out = 0
    for recording in connection.execute(select(_RECORDINGS).where(_RECORDINGS.c.key_id.in_(by_key))).all():
        rows = [
            _row(text)
            for text in by_key[recording.key_id]
            if text.recording == recording.started_at and text.ended_at < recording.until
        ]
        wanted, size = len(rows), recording.size + sum(row["size"] for row in rows)
        while rows and size > MOST_BYTES:
            size -= rows.pop()["size"]
        if rows:
            connection.execute(insert(_TEXTS), rows)
            whose = _RECORDINGS.c.key_id == recording.key_id
            connection.execute(update(_RECORDINGS).where(whose).values(size=size))
        if len(rows) < wanted:
            left_out += wanted - len(rows)
            end_recording(database, connection, recording.key_id)
    return left_out


def texts_of_request(connection: Connection, request_id: str) -> list[RecordedText]:
    """The texts of a request's id, the oldest first."""
    return _texts(connection, _TEXTS.c.request_id == request_id)


def texts_of_call(connection: Connection, row: dict[str, Any]) -> list[RecordedText]:
    """The texts of a row of the ledger; of several, if they are of one request at the same time.

    Args:
        row: As `row_of` has it.
    """
    return _texts(connection, *_is_of_call(row))


def has_texts(connection: Connection, row: dict[str, Any]) -> bool:
    """Whether there are texts of a row of the ledger; see `texts_of_call`."""
    return connection.execute(select(_TEXTS.c.id).where(*_is_of_call(row)).limit(1)).first() is not None


def count_of_texts(connection: Connection, key_id: str | None = None) -> dict[str, int]:
    """How many texts are kept, by key; of one key if asked for."""
    query = select(_TEXTS.c.key_id, func.count()).group_by(_TEXTS.c.key_id)
    rows = connection.execute(query if key_id is None else query.where(_TEXTS.c.key_id == key_id))
    return {row[0]: row[1] for row in rows}


def size_of_texts(connection: Connection, key_id: str | None = None) -> int:
    """How much the texts take, in bytes; those of one key if asked for."""
    query = select(func.sum(_TEXTS.c.size))
    return int(connection.execute(query if key_id is None else query.where(_TEXTS.c.key_id == key_id)).scalar() or 0)


def delete_texts(database: Database, connection: Connection, before: int, limit: int) -> int:
    """Delete the oldest texts of calls that ended before a time, at most `limit`, and say how many they were."""
    oldest = select(_TEXTS.c.id).where(_TEXTS.c.ended_at < before).order_by(_TEXTS.c.ended_at).limit(limit)
    count = connection.execute(delete(_TEXTS).where(_TEXTS.c.id.in_(oldest))).rowcount
    if count and database.is_sqlite:
        give_back(connection)
    return count


def forget_recordings(connection: Connection, before: int) -> None:
    """Delete the rows of recordings that ended before a time, and of which no texts can be left."""
    connection.execute(delete(_RECORDINGS).where(_RECORDINGS.c.until < before))


def _select() -> Select[Any]:
    name = (_PROJECTS.c.name + "/" + _KEYS.c.name).label("key_name")
    joined = _RECORDINGS.outerjoin(_KEYS, _KEYS.c.id == _RECORDINGS.c.key_id).outerjoin(_PROJECTS)
    return select(_RECORDINGS, name).select_from(joined)


def _recording(row: Row[Any]) -> Recording:
    return Recording(row.key_id, row.key_name or row.key_id, row.started_at, row.until, row.started_by, row.size)


def _row(text: RecordedText) -> dict[str, Any]:
    # Once is enough: the request has all the words.
    asked = text.request or text.asked
    return {
        "id": text.id,
        "at": text.at,
        "ended_at": text.ended_at,
        "size": sum(len(part.encode()) for part in (asked, text.sent or "", text.answered)),
        "key_id": text.key_id,
        "request_id": text.request_id,
        "cut": ",".join(text.cut),
        "asked": asked,
        "sent": text.sent,
        "answered": text.answered,
    }


def _is_of_call(row: dict[str, Any]) -> Iterable[ColumnElement[bool]]:
    at = time_of(row["id"])
    return (
        _TEXTS.c.request_id == row["request_id"],
        _TEXTS.c.key_id == row["key_id"],
        _TEXTS.c.at.between(at - _SAME_CALL, at + _SAME_CALL),
    )


def _texts(connection: Connection, *conditions: ColumnElement[bool]) -> list[RecordedText]:
    query = select(_TEXTS).where(*conditions).order_by(_TEXTS.c.at, _TEXTS.c.id).limit(_MOST_OF_ONE_REQUEST)
    return [
        RecordedText(
            id=row.id,
            at=row.at,
            ended_at=row.ended_at,
            key_id=row.key_id,
            request_id=row.request_id,
            asked=_words(row.asked),
            sent=row.sent,
            answered=row.answered,
            cut=tuple(row.cut.split(",")) if row.cut else (),
            request=row.asked if _is_request(row.asked) else "",
        )
        for row in connection.execute(query)
    ]


def _is_request(asked: str) -> bool:
    """Whether it isn't in words, which begin with a role."""
    return asked.startswith("{")


def _words(asked: str) -> str:
    return messages_in_words(messages_of(msgspec.json.decode(asked))) if _is_request(asked) else asked
