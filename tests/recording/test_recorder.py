"""What is recorded of whose calls, until when, and what becomes of it. On a database of each kind."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from app.domain.chat import Completion, Message, ToolCall
from app.domain.prompt import MessagePrompt, PromptLimit, TextPrompt, message_prompt, text_prompt
from app.domain.texts import CallTexts
from app.domain.usage import CallRecord, Origin
from app.keys.administration import NewSecret, create_key, revoke_key
from app.ledger.journal import Journal
from app.ledger.writer import LedgerWriter
from app.recording import recorder as recorders
from app.recording.administration import (
    NoRecording,
    RecordingFault,
    read_texts,
    remove_recording,
    start_recording,
    stop_recording,
)
from app.recording.recorder import MOST_OF_A_TEXT, Recorder
from app.storage import recordings as stored
from app.storage.audit import Actor, actions_before
from app.storage.clock import now
from app.storage.database import Connection, Database
from app.storage.feed import ChangeFeed
from app.storage.recordings import (
    RecordedText,
    has_texts,
    list_recordings,
    recording_of,
    size_of_texts,
    texts_of_call,
    texts_of_request,
)
from app.storage.request_pages import page_of_rows
from tests import databases
from tests.storage.calls import call, write

shared_postgres = databases.shared_postgres
database_url = databases.database_url
empty_database = databases.empty_database
database = databases.database

ADA = Actor("person:p_ada", "console", "127.0.0.1")
LIMIT = PromptLimit(1000)
HELLO = text_prompt("[User]: Hello", 13, LIMIT)
_HOUR = 3600.0


@dataclass
class Clock:
    """The time of day, as a test sets it."""

    now: int = field(default_factory=now)

    def __call__(self) -> int:
        return self.now


def texts(
    key_id: str,
    asked: str = "Hello",
    prompt: TextPrompt | MessagePrompt | None = HELLO,
    answer: Completion = Completion("Hi."),  # noqa: B008 - frozen
    request_id: str = "req_1",
) -> CallTexts:
    """What was said in a call."""
    record = CallRecord(
        caller_id=key_id,
        model="kimi",
        provider="kimi-web",
        outcome="completed",
        error_code=None,
        action=None,
        prompt_size=None,
        dropped=None,
        usage=None,
        seconds=1.0,
        upstream_seconds=None,
        origin=Origin(request_id),
    )
    return CallTexts(record, (Message("user", asked),), prompt, answer)


def text(key_id: str, **fields: Any) -> RecordedText:
    """A text as it is written."""
    values = {"id": 1, "at": now(), "ended_at": now(), "request_id": "req_1", "asked": "?", "sent": None}
    return RecordedText(**{**values, "key_id": key_id, "answered": "!", **fields})


def write_texts(database: Database, connection: Connection, texts: Sequence[RecordedText]) -> int:
    """Write texts, for the recordings that there are unless it is said for which."""
    recordings = {one.key_id: one.started_at for one in list_recordings(connection)}
    said = [replace(one, recording=one.recording or recordings.get(one.key_id, 0)) for one in texts]
    return stored.write_texts(database, connection, said)


def done(database: Database, work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What a function that takes a connection returns, in a transaction of its own."""
    with database.transaction() as connection:
        return work(connection, *arguments, **named)


def create(database: Database, name: str = "ada") -> NewSecret:
    """A key."""
    new: NewSecret = done(database, create_key, name=name)
    return new


def start(database: Database, key_id: str, seconds: float = _HOUR) -> None:
    """Record a key."""
    with database.transaction() as connection:
        start_recording(database, connection, ADA, key_id, seconds)


@asynccontextmanager
async def recording(database: Database, clock: Callable[[], int] = now) -> AsyncGenerator[Recorder, None]:
    """A worker's recorder, which follows the database."""
    feed, recorder = ChangeFeed(database), Recorder(database, clock)
    feed.start(recorder)
    recorder.start()
    try:
        yield recorder
    finally:
        await feed.aclose()
        await recorder.aclose(5)


async def until(condition: Callable[[], object]) -> None:
    """Wait for what happens in a database."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)


async def test_all_workers_record_what_was_started_until_it_is_stopped(database: Database) -> None:
    """Only calls of that key that end meanwhile; with what was asked, sent and answered, and when."""
    key, other = create(database).key.id, create(database, "bob").key.id
    async with recording(database) as one, recording(database) as another:
        for recorder in (one, another):
            recorder.take_texts(texts(key, "too early"))
        start(database, key)
        await until(lambda: one.until(key) and another.until(key))
        before = now()
        for place, recorder in enumerate((one, another)):
            recorder.take_texts(texts(key, f"of worker {place}"))
            recorder.take_texts(texts(other, "somebody else's"))
        await until(lambda: len(done(database, texts_of_request, "req_1")) == 2)
        with database.transaction() as connection:
            stop_recording(database, connection, ADA, key)
        await until(lambda: not one.until(key) and not another.until(key))
        one.take_texts(texts(key, "too late"))
    kept = done(database, texts_of_request, "req_1")
    assert {text.asked for text in kept} == {"user: of worker 0", "user: of worker 1"}
    for text in kept:
        assert (text.key_id, text.sent, text.answered, text.cut) == (key, "[User]: Hello", "Hi.", ())
        assert before <= text.ended_at <= now()
        assert before - 1001 <= text.at <= now() - 1000
    assert one.lost == another.lost == 0


async def test_a_recording_ends_by_itself(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its time, though nothing is told and the database may be away; nor is anything written later."""
    offered: list[str] = []

    def write(database: Database, connection: Connection, texts: list[RecordedText]) -> int:
        offered.extend(text.asked for text in texts)
        return write_texts(database, connection, texts)

    monkeypatch.setattr(recorders, "write_texts", write)
    key, clock = create(database).key.id, Clock()
    start(database, key, 900)
    async with recording(database, clock) as recorder:
        await until(lambda: recorder.until(key))
        at = recorder.until(key)
        assert at is not None
        assert abs(at - now() - 900_000) < 60_000
        clock.now = at - 1
        recorder.take_texts(texts(key, "in time"))
        clock.now = at
        assert recorder.until(key) is None
        recorder.take_texts(texts(key, "too late"))
    assert set(offered) == {"user: in time"}  # what was being written as the worker ended may come twice
    assert done(database, partial(write_texts, database), [text(key, ended_at=at, asked="from a slow clock")]) == 0
    assert [text.asked for text in done(database, texts_of_request, "req_1")] == ["user: in time"]


async def test_what_is_too_long_is_cut_in_its_middle_and_marked(database: Database) -> None:
    """Each text by itself, to 256 KiB of UTF-8; what no database takes is replaced."""
    key = create(database).key.id
    start(database, key)
    long = "<" + "好\N{GRINNING FACE}é" * 100_000 + ">"
    answer = Completion("nul \0 and half \ud83d")
    async with recording(database) as recorder:
        await until(lambda: recorder.until(key))
        recorder.take_texts(texts(key, long, message_prompt((Message("user", long), Message("user", "!")), LIMIT)))
        recorder.take_texts(texts(key, "short", None, answer, request_id="req_2"))
    (cut,) = done(database, texts_of_request, "req_1")
    assert cut.cut == ("asked", "sent")
    for shown, begin, end in ((cut.asked, "user: <好", "é>"), (cut.sent, "user: <好", "é>\nuser: !")):
        assert MOST_OF_A_TEXT - 64 < len(shown.encode()) <= MOST_OF_A_TEXT
        assert (shown[: len(begin)], shown[-len(end) :]) == (begin, end)
        assert " … " in shown
    (plain,) = done(database, texts_of_request, "req_2")
    assert (plain.cut, plain.sent, plain.answered) == ((), None, "nul � and half ?")
    assert done(database, size_of_texts) == sum(
        len(part.encode()) for one in (cut, plain) for part in (one.asked, one.sent or "", one.answered)
    )


async def test_tool_calls_refusals_parts_and_further_answers_are_recorded(database: Database) -> None:
    """All that was sent and said, whatever form it had."""
    key = create(database).key.id
    start(database, key)
    look = ToolCall("1", "look", '{"at": "it"}')
    asked = (Message("assistant", "", tool_calls=(look,)), Message("tool", "A cat.", name="look", tool_call_id="1"))
    prompt = TextPrompt(text="the rest", size=1, limit=LIMIT, tokens=1, earlier_parts=("a part",))
    answer = Completion("One.", tool_calls=(look,), others=(Completion("", refusal="No."),))
    async with recording(database) as recorder:
        await until(lambda: recorder.until(key))
        taken = texts(key, "", prompt, answer)
        recorder.take_texts(CallTexts(taken.record, asked, taken.prompt, taken.answer))
    (kept,) = done(database, texts_of_request, "req_1")
    assert kept.asked == 'assistant: (called look with {"at": "it"})\ntool look: A cat.'
    assert kept.sent == "a part\n\nthe rest"
    assert kept.answered == 'One.\n(called look with {"at": "it"})\n\nNo.'


async def test_while_the_database_is_away_some_texts_wait_and_others_are_counted(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bounded memory. Those that waited are written when it is back; those that still wait at the end are lost."""
    monkeypatch.setattr(recorders, "_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(recorders, "_MOST_WAITING", 100)
    key = create(database).key.id
    start(database, key)
    recorder = Recorder(database)
    recorder.take(None, done(database, recorder.read, None))
    recorder.start()
    database.prepared = False  # it is looked up before each question
    for place in range(5):
        recorder.take_texts(texts(key, f"{place}" * 20))
    assert recorder.lost == 3
    database.prepared = True
    await until(lambda: not recorder.waiting)
    assert len(done(database, texts_of_request, "req_1")) == 2
    database.prepared = False
    recorder.take_texts(texts(key, "at the end"))
    await recorder.aclose(0.05)
    assert recorder.lost == 4
    assert len(done(database, texts_of_request, "req_1")) == 2


async def test_what_no_database_takes_keeps_out_nothing_else(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text whose writing fails is counted, and the next one is written."""
    key = create(database).key.id
    start(database, key)
    written: list[str] = []

    def fail_once(database: Database, connection: Connection, texts: list[RecordedText]) -> int:
        written.append(texts[0].asked)
        if len(written) == 1:
            raise ValueError("the words of a call")
        return write_texts(database, connection, texts)

    monkeypatch.setattr(recorders, "write_texts", fail_once)
    async with recording(database) as recorder:
        await until(lambda: recorder.until(key))
        recorder.take_texts(texts(key, "one"))
        await until(lambda: recorder.lost == 1)
        recorder.take_texts(texts(key, "two"))
    assert [text.asked for text in done(database, texts_of_request, "req_1")] == ["user: two"]


def test_what_was_written_is_not_written_again(database: Database) -> None:
    """A batch whose answer was lost may come once more."""
    key = create(database).key.id
    start(database, key)
    write_all = partial(write_texts, database)
    for _ in range(2):
        assert done(database, write_all, texts=[text(key)]) == 0
    assert done(database, write_all, texts=[text(key), text(key, id=2)]) == 0
    assert len(done(database, texts_of_request, "req_1")) == 2
    assert done(database, recording_of, key).size == 4


@pytest.mark.parametrize("way", ["delete", "revoke"])
def test_deleting_a_recording_leaves_nothing_of_it(database: Database, way: str) -> None:
    """By hand, or with the key; what a worker still had is not written any more, and other keys' texts stay."""
    new, other = create(database), create(database, "bob").key.id
    key = new.key.id
    for place, one in enumerate((key, other)):
        start(database, one)
        done(database, partial(write_texts, database), texts=[text(one, id=place)])
    with database.transaction() as connection:
        if way == "delete":
            assert remove_recording(database, connection, ADA, key) == 1
        else:
            revoke_key(database, connection, new.key)
    done(database, partial(write_texts, database), texts=[text(key, id=7)])
    assert [text.key_id for text in done(database, texts_of_request, "req_1")] == [other]
    assert [one.key_id for one in done(database, list_recordings)] == [other]
    with pytest.raises(NoRecording), database.transaction() as connection:
        remove_recording(database, connection, ADA, key)
    if way == "revoke":
        with pytest.raises(RecordingFault, match="revoked"):
            start(database, key)


async def test_what_was_deleted_does_not_come_back_in_the_next_recording(database: Database) -> None:
    """Texts that a worker had still to write belong to their own recording, which may be made longer meanwhile."""
    key = create(database).key.id
    start(database, key)
    recorder = Recorder(database)
    recorder.take(None, done(database, recorder.read, None))
    recorder.take_texts(texts(key, "before"))
    start(database, key, 2 * _HOUR)
    recorder.start()
    await until(lambda: not recorder.waiting)
    assert [text.asked for text in done(database, texts_of_request, "req_1")] == ["user: before"]
    database.prepared = False
    recorder.take_texts(texts(key, "of the deleted one"))
    await recorder.aclose(0.05)
    with database.transaction() as connection:
        remove_recording(database, connection, ADA, key)
    start(database, key)
    again = Recorder(database)
    again.take(None, recorder.callers)  # it has not followed yet
    again.take_texts(texts(key, "of the deleted one"))
    database.prepared = True
    await again.aclose(5)
    assert done(database, texts_of_request, "req_1") == []


def test_a_recording_that_becomes_too_large_ends(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is beyond is left out and counted, and the key can be recorded again once its texts are deleted."""
    monkeypatch.setattr(stored, "MOST_BYTES", 100)
    key = create(database).key.id
    start(database, key)
    long = "x" * 39
    some = [text(key, id=place, asked=long) for place in range(4)]
    assert done(database, partial(write_texts, database), texts=some) == 2
    ended = done(database, recording_of, key)
    assert (ended.is_running, ended.size) == (False, 80)
    start(database, key)
    assert done(database, recording_of, key).size == 80
    monkeypatch.setattr("app.recording.administration.MOST_BYTES", 80)
    with pytest.raises(RecordingFault, match="delete its recording first"):
        start(database, key)
    with database.transaction() as connection:
        assert remove_recording(database, connection, ADA, key) == 2
    start(database, key)


@pytest.mark.parametrize("seconds", [0, 899, 86_401])
def test_a_recording_lasts_from_a_quarter_of_an_hour_to_a_day(database: Database, seconds: int) -> None:
    """Anything else is refused, and nothing is recorded."""
    key = create(database).key.id
    with pytest.raises(RecordingFault, match="15m to 24h"):
        start(database, key, seconds)
    assert done(database, list_recordings) == []
    for right in (900, 86_400):
        start(database, key, right)
    assert len(done(database, list_recordings)) == 1


def test_everything_that_is_done_is_written_down(database: Database) -> None:
    """Starting, starting anew, stopping, each look at a text, and deleting: by whom, and of which key and request."""
    key = create(database).key.id
    start(database, key)
    start(database, key)
    done(database, partial(write_texts, database), texts=[text(key), text(key, id=2)])
    assert len(done(database, read_texts, ADA, "req_1")) == 2
    assert done(database, read_texts, ADA, "req_2") == []
    with database.transaction() as connection:
        stop_recording(database, connection, ADA, key)
        stop_recording(database, connection, ADA, key)
        remove_recording(database, connection, ADA, key)
    actions = done(database, actions_before, None, subject=f"key:{key}")[::-1]
    assert [(one["action"], one["actor"], one["address"]) for one in actions] == [
        (action, ADA.name, ADA.address)
        for action in (*("recording.start", "recording.start", "recording.read", "recording.stop", "recording.delete"),)
    ]
    first, anew, read, stopped, deleted = actions
    assert first["before"] is None
    assert anew["before"] == first["after"]
    assert read["after"] == {"request_id": "req_1"}
    assert stopped["before"] == anew["after"]
    assert deleted["before"] == {"texts": 2}


def test_a_row_of_the_ledger_finds_its_own_texts(database: Database) -> None:
    """Not those of another key, nor those of another call to which a client gave the same id."""
    key, at = create(database).key.id, now()
    start(database, key)
    calls = [call(at=at - age, key_id=key, request_id="mine") for age in (0, 60_000)]
    write(database, [*calls, call(at=at, key_id="k_other", request_id="mine", count=1)])
    some = [text(key, request_id="mine", at=at + 1), text(key, id=2, request_id="mine", at=at - 60_000, asked="older")]
    done(database, partial(write_texts, database), texts=some)
    rows = {(row["key_id"], row["id"]): row for row in done(database, page_of_rows).rows}
    found: dict[str, list[list[str]]] = {key_id: [] for key_id, _ in rows}
    for (key_id, _), row in sorted(rows.items()):
        found[key_id].append([text.asked for text in done(database, texts_of_call, row)])
        assert done(database, has_texts, row) is bool(found[key_id][-1])
    assert found == {key: [["older"], ["?"]], "k_other": [[]]}


def _writer(database: Database, folder: Path, kept_days: float = 30, max_megabytes: float = 100) -> LedgerWriter:
    return LedgerWriter(database, Journal(folder, most=1), kept_days=kept_days, max_megabytes=max_megabytes)


@pytest.mark.parametrize(("kept_days", "left"), [(30, 2), (1, 1)])
def test_texts_go_after_a_week_at_most(
    database: Database, tmp_path: Path, kept_days: float, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the rows of their calls, if those are kept for less; and the recordings that have left none."""
    day, time = 86_400_000, now()
    old, key = create(database, "old").key.id, create(database).key.id
    with monkeypatch.context() as patched:
        patched.setattr("app.recording.administration.now", lambda: time - 9 * day)
        for one in (old, key):
            start(database, one)
    start(database, key)
    ages = (0, 2 * day, 8 * day)
    some = [text(key, id=place, at=time - age, ended_at=time - age) for place, age in enumerate(ages)]
    done(database, partial(write_texts, database), texts=some)
    _writer(database, tmp_path, kept_days).clean()
    assert len(done(database, texts_of_request, "req_1")) == left
    assert [one.key_id for one in done(database, list_recordings)] == [key]


def test_where_there_is_no_room_texts_go_before_rows(database: Database, tmp_path: Path) -> None:
    """What somebody has recorded costs no row of the ledger."""
    key, time = create(database).key.id, now()
    start(database, key)
    write(database, [call(at=time - 1000, count=place) for place in range(100)])
    large = [text(key, id=place, ended_at=time - place, asked="x" * 50_000) for place in range(60)]
    done(database, partial(write_texts, database), texts=large)
    _writer(database, tmp_path, max_megabytes=2.0).clean()
    assert len(done(database, texts_of_request, "req_1")) < 50
    assert len(done(database, page_of_rows, limit=200).rows) == 100
