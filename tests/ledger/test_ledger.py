"""What a journal holds arrives in the database exactly once, whatever dies in between."""

import errno
import fcntl
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from sqlalchemy import Connection, text

from app.domain.chat import Usage
from app.domain.prompt import PromptLimit
from app.domain.units import Unit
from app.domain.usage import CallRecord, Origin
from app.ledger.journal import Journal, JournalFile
from app.ledger.ledger import Ledger
from app.ledger.writer import LedgerWriter
from app.storage.clock import now
from app.storage.database import Database, DatabaseAway
from app.storage.prices import Price, set_prices
from app.storage.request_pages import page_of_rows
from app.storage.requests import carry
from app.storage.rows import RequestRow, id_at, time_of
from app.storage.schema import migrate
from app.storage.usage import UsageFilter, usage_by, usage_of
from tests import databases
from tests.databases import PostgresServer, wrong_sums
from tests.live import until
from tests.storage.calls import PLAIN

shared_postgres = databases.shared_postgres
own_postgres = databases.own_postgres
database_url = databases.database_url
empty_database = databases.empty_database
database = databases.database

ROOT = Path(__file__).parent.parent.parent
_MOST = 1 << 30
_HOUR = 3_600_000


def _record(**fields: Any) -> CallRecord:
    values: dict[str, Any] = {
        "caller_id": "k_ada",
        "model": "kimi",
        "provider": "kimi-web",
        "outcome": "completed",
        "error_code": None,
        "action": "stateless",
        "prompt_size": 10,
        "dropped": 0,
        "usage": Usage(3, 4, estimated=True),
        "seconds": 1.5,
        "upstream_seconds": 0.5,
        "origin": Origin("req_1", "openai", streamed=True, end_user="someone"),
        "project": "lab",
        "asked_model": "kimi",
        "served_model": "kimi",
        "charged": Usage(3, 4, estimated=True),
        **fields,
    }
    return CallRecord(**values)


def _journal(folder: Path, *, most: int = _MOST, segment: int = 1024 * 1024) -> Journal:
    journal = Journal(folder, most=most, segment=segment, retry=0)
    journal.open()
    return journal


def _writer(
    database: Database, journal: Journal, *, kept_days: float = 30.0, max_megabytes: float = 100.0
) -> LedgerWriter:
    return LedgerWriter(database, journal, kept_days=kept_days, max_megabytes=max_megabytes)


def _rows(database: Database) -> list[dict[str, Any]]:
    with database.transaction(reads=True) as connection:
        return page_of_rows(connection, limit=1_000_000).rows


def _total(database: Database, by: str = "key") -> dict[Any, int]:
    with database.transaction(reads=True) as connection:
        return {row[by]: row["requests"] for row in usage_by(connection, by, since=0, until=now() + _HOUR)}


def test_a_call_becomes_a_row_with_all_that_is_known(database: Database, tmp_path: Path) -> None:
    """Who, what, how it ended, how much and how long."""
    journal = _journal(tmp_path)
    before = now()
    Ledger(journal).call_ended(
        _record(
            asked_model="gpt-4o",
            passed_over=(("first", "upstream_timeout"), ("second", "unfit")),
            session="session-1",
            dropped=2,
            shortened=1,
            prompt_limit=PromptLimit(1000),
            waits={"queue": 1.2345, "limits": 0.25},
        )
    )
    _writer(database, journal).carry_all()
    (row,) = _rows(database)
    assert abs(time_of(row.pop("id")) + 1500 - before) < 60_000
    assert row == {
        "request_id": "req_1",
        "key_id": "k_ada",
        "project": "lab",
        "model": "gpt-4o",
        "served": "kimi",
        "provider": "kimi-web",
        "dialect": "openai",
        "outcome": "completed",
        "error": None,
        "status": 200,
        "streamed": 1,
        "tokens_in": 3,
        "tokens_out": 4,
        "tokens_cached": 0,
        "estimated": 1,
        "cost": 0,
        "milliseconds": 1500,
        "first_milliseconds": 500,
        "session": "session-1",
        "end_user": "someone",
        "dropped": 2,
        "passed_over": "first=upstream_timeout,second=unfit",
        "action": "stateless",
        "prompt_size": 10,
        "prompt_limit": 1000,
        "prompt_in_tokens": 0,
        "shortened": 1,
        "waits": "limits=250,queue=1234",
        "tokens_cache_written": 0,
        "unit": None,
        "amount": None,
    }


def test_a_line_of_an_older_version_becomes_a_row(database: Database, tmp_path: Path) -> None:
    """What such a line doesn't have is unknown; lines of this version that follow it keep what they have."""
    journal = _journal(tmp_path)
    older = list(msgspec.structs.astuple(PLAIN))[: RequestRow.__struct_fields__.index("action")]
    journal.append(msgspec.json.encode(older))
    Ledger(journal).call_ended(_record(waits={"nonce": 0.5}))
    _writer(database, journal).carry_all()
    rows = {row["request_id"]: row for row in _rows(database)}
    old, new = rows[PLAIN.request_id], rows["req_1"]
    unknown = ("action", "prompt_size", "prompt_limit", "prompt_in_tokens", "shortened", "waits")
    assert [old[name] for name in unknown] == [None] * len(unknown)
    assert old["milliseconds"] == PLAIN.milliseconds
    assert (new["action"], new["waits"], new["shortened"]) == ("stateless", "nonce=500", None)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "模型" * 300], ids=["NUL", "lone surrogate", "long"])
def test_names_that_a_client_made_up_don_t_stop_the_ledger(database: Database, tmp_path: Path, name: str) -> None:
    """One odd name must not keep all later calls out of the database."""
    journal = _journal(tmp_path)
    ledger = Ledger(journal)
    ledger.call_ended(_record(asked_model=name, origin=Origin("req_1", "openai", end_user=name)))
    ledger.call_ended(_record())
    _writer(database, journal).carry_all()
    newest, _ = _rows(database)
    assert newest["model"] == "kimi"


def test_a_second_round_finds_nothing_new(database: Database, tmp_path: Path) -> None:
    """Rows and sums count each call once, however often the journal is looked at, and by whom."""
    journal = _journal(tmp_path)
    ledger = Ledger(journal)
    for _ in range(10):
        ledger.call_ended(_record())
    writer = _writer(database, journal)
    assert writer.waiting == 10
    assert writer.carry_all() == 10
    assert writer.carry_all() == 0
    assert _writer(database, journal).carry_all() == 0
    assert writer.waiting == 0
    assert len(_rows(database)) == 10
    assert _total(database) == {"k_ada": 10}


def test_sums_add_up_by_everything(database: Database, tmp_path: Path) -> None:
    """Over keys, models, outcomes, hours and days, from one batch or several."""
    journal = _journal(tmp_path)
    ledger, writer = Ledger(journal), _writer(database, journal)
    for key, model, outcome in (("k_1", "a", "completed"), ("k_1", "b", "failed"), ("k_2", "a", "completed")):
        ledger.call_ended(_record(caller_id=key, model=model, served_model=model, outcome=outcome))
        writer.carry_all()
    assert _total(database) == {"k_1": 2, "k_2": 1}
    assert _total(database, "model") == {"a": 2, "b": 1}
    assert _total(database, "outcome") == {"completed": 2, "failed": 1}
    assert list(_total(database, "day").values()) == [3]
    assert sum(_total(database, "hour").values()) == 3
    with database.transaction(reads=True) as connection:
        of_one = usage_by(connection, "model", since=0, until=now() + _HOUR, wanted=UsageFilter(key_id="k_1"))
        assert {row["model"]: (row["tokens_in"], row["tokens_out"]) for row in of_one} == {"a": (3, 4), "b": (3, 4)}
        sums = usage_of(connection, "k_1", {"ever": 0})["ever"]
    assert (sums["requests"], sums["tokens_in"], sums["milliseconds"]) == (2, 6, 3000)


def test_models_that_nobody_listed_share_one_sum(database: Database, tmp_path: Path) -> None:
    """A client that makes names up can't fill the table of sums."""
    journal = _journal(tmp_path)
    for place in range(5):
        name = f"made-up-{place}"
        Ledger(journal).call_ended(_record(asked_model=name, served_model=name, model="unlisted"))
    _writer(database, journal).carry_all()
    assert _total(database, "model") == {"unlisted": 5}
    assert {row["model"] for row in _rows(database)} == {f"made-up-{place}" for place in range(5)}


def test_ids_stay_unique_when_the_clock_stands_still(database: Database, tmp_path: Path) -> None:
    """More calls in one millisecond than the counter tells apart are still rows of their own, in order."""
    journal = _journal(tmp_path)
    row = RequestRow(
        *(1_764_000_000_000, 7, "r", "k", "p", "m", "m", True, "s", "openai", "completed", None, 200, False),
        *(1, 1, 0, False, 1, None, None, None, 0, None),
    )
    for _ in range(5):
        journal.append(msgspec.json.encode(row))
    _writer(database, journal).carry_all()
    ids = [row["id"] for row in _rows(database)]
    assert len(set(ids)) == 5
    assert {time_of(row_id) for row_id in ids} == {1_764_000_000_000}
    assert id_at(1_764_000_000_000) <= min(ids)


def test_what_was_killed_is_carried_over_by_whoever_comes_next(database: Database, tmp_path: Path) -> None:
    """A process that is killed between its lines and the database loses none, and none counts twice."""
    program = textwrap.dedent(f"""
        import os, signal, sys
        from pathlib import Path
        from app.ledger.ledger import Ledger
        from app.ledger.writer import LedgerWriter
        from app.storage.database import Database
        from tests.ledger.test_ledger import _journal, _record, _writer
        journal = _journal(Path({str(tmp_path)!r}))
        ledger = Ledger(journal)
        for _ in range(100):
            ledger.call_ended(_record())
        database = Database(sys.argv[1], timeout=5)
        _writer(database, journal).carry_all()
        for _ in range(50):
            ledger.call_ended(_record())
        os.write(1, b"written")
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    url = database.url.render_as_string(hide_password=False)
    killed = subprocess.run(
        [sys.executable, "-c", program, url], cwd=ROOT, capture_output=True, check=False, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL
    assert killed.stdout == b"written"
    assert len(_rows(database)) == 100
    journal = _journal(tmp_path)
    writer = _writer(database, journal)
    for _ in range(2):
        writer.adopt()
        writer.carry_all()
    assert len(_rows(database)) == 150
    assert _total(database) == {"k_ada": 150}
    assert not wrong_sums(database)
    # Its file is gone, and its number free.
    assert len(list(tmp_path.glob("*.journal"))) == 1
    with database.transaction(reads=True) as connection:
        assert connection.execute(text("SELECT count(*) FROM journal WHERE number IS NOT NULL")).scalar() == 0


def test_a_gateway_that_stops_in_order_leaves_no_journal(database: Database, tmp_path: Path) -> None:
    """One that is started with another database would count all of its calls again."""
    journal = _journal(tmp_path)
    writer = _writer(database, journal)
    writer.start()
    Ledger(journal).call_ended(_record())
    writer.stop(10)
    assert len(_rows(database)) == 1
    assert list(tmp_path.glob("*.journal")) == []
    with database.transaction(reads=True) as connection:
        assert connection.execute(text("SELECT count(*) FROM journal WHERE number IS NOT NULL")).scalar() == 0


def test_a_journal_of_a_living_process_is_left_alone(database: Database, tmp_path: Path) -> None:
    """Two workers that share a folder carry over their own lines only."""
    first, second = _journal(tmp_path), _journal(tmp_path)
    Ledger(first).call_ended(_record())
    other = _writer(database, second)
    other.adopt()
    assert other.carry_all() == 0
    assert _writer(database, first).carry_all() == 1
    assert len(_rows(database)) == 1


def test_a_full_journal_is_followed_by_a_new_one_and_deleted(database: Database, tmp_path: Path) -> None:
    """Files don't grow for ever, and no line is lost where one ends."""
    journal = _journal(tmp_path, segment=2000)
    ledger, writer = Ledger(journal), _writer(database, journal)
    for _ in range(30):
        for _ in range(3):
            ledger.call_ended(_record())
        writer.carry_all()
    assert len(list(tmp_path.glob("*.journal"))) == 1
    assert len(_rows(database)) == 90
    assert _total(database) == {"k_ada": 90}


def test_a_journal_that_somebody_deletes_is_followed_by_a_new_one(database: Database, tmp_path: Path) -> None:
    """What comes from then on is on the disk again; what was in it is carried over all the same."""
    journal = _journal(tmp_path / "journal")
    writer, ledger = _writer(database, journal), Ledger(journal)
    ledger.call_ended(_record())
    shutil.rmtree(tmp_path / "journal")
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            journal.leave_if_gone()
            journal.leave_if_gone()
            ledger.call_ended(_record())
    assert [line["event"] for line in logs] == ["journal_gone"]
    (file,) = (tmp_path / "journal").iterdir()
    assert file.read_bytes().count(b"\n") == 2
    assert writer.carry_all() == 3
    assert len(_rows(database)) == 3
    assert list((tmp_path / "journal").iterdir()) == [file]


def test_lines_that_come_while_a_file_is_finished_aren_t_deleted_with_it(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop adds the last lines, and begin another file, just after the writer has seen the file's end."""
    journal = _journal(tmp_path, segment=1000)
    ledger, writer = Ledger(journal), _writer(database, journal)
    ledger.call_ended(_record())
    read = JournalFile.read

    def reads(file: JournalFile, begin: int) -> bytes:
        data = read(file, begin)
        if not data and journal.appended == 1:
            while len(journal.files()) == 1:
                ledger.call_ended(_record())
        return data

    monkeypatch.setattr(JournalFile, "read", reads)
    for _ in range(2):
        writer.carry_all()
    assert len(_rows(database)) == journal.appended > 2
    assert not wrong_sums(database)
    assert writer.waiting == 0


@pytest.mark.parametrize("written", [True, False], ids=["written", "not written"])
@pytest.mark.parametrize("place", ["file", "memory"])
def test_a_commit_whose_answer_is_lost_counts_once(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, *, written: bool
) -> None:
    """Whether the database had written the lines before it was away or not; also those that no file took."""
    journal = _journal(tmp_path, segment=200 if place == "memory" else 1024 * 1024)
    ledger, writer = Ledger(journal), _writer(database, journal)
    ledger.call_ended(_record())
    writer.carry_all()
    if place == "memory":
        monkeypatch.setattr(os, "posix_fallocate", _no_space)
    for _ in range(5):
        ledger.call_ended(_record())

    @contextmanager
    def lost(*, reads: bool = False) -> Iterator[Connection]:
        with transaction(reads=reads) as connection:
            yield connection
            if not reads and not written:
                connection.rollback()
        if not reads:
            raise DatabaseAway("connection lost")

    transaction = database.transaction
    monkeypatch.setattr(database, "transaction", lost)
    with pytest.raises(DatabaseAway):
        writer.carry_all()
    monkeypatch.setattr(database, "transaction", transaction)
    ledger.call_ended(_record())
    for _ in range(2):
        writer.carry_all()
    assert len(_rows(database)) == 7
    assert not wrong_sums(database)
    assert (writer.waiting, writer.written, journal.lost) == (0, 7, 0)


def test_one_row_that_the_database_doesn_t_take_keeps_no_other_out(database: Database, tmp_path: Path) -> None:
    """It is counted as lost; numbers of tokens that no column has room for are cut."""
    journal = _journal(tmp_path)
    ledger, writer = Ledger(journal), _writer(database, journal)
    for number in range(7):
        ledger.call_ended(_record(asked_model=str(number), status=2**63 if number == 3 else 200))
    ledger.call_ended(_record(charged=Usage(10**12, 10**30, cached_tokens=10**12)))
    writer.carry_all()
    rows = _rows(database)
    assert sorted(row["model"] for row in rows) == ["0", "1", "2", "4", "5", "6", "kimi"]
    assert {row["tokens_out"] for row in rows} == {4, 2**31 - 1}
    assert not wrong_sums(database)
    assert (writer.unfit, writer.waiting) == (1, 0)


def test_sums_that_have_become_too_large_keep_no_other_out(database: Database, tmp_path: Path) -> None:
    """What an upstream has counted times its price may be any number: what no sum has room for is left out."""
    journal = _journal(tmp_path)
    ledger, writer = Ledger(journal), _writer(database, journal)
    with database.transaction() as connection:
        set_prices(database, connection, [Price("dear", 0, 0, 0, 0, search=10**15)])
    for model in ("dear", "dear", "plain"):
        ledger.call_ended(_record(served_model=model, charged=Usage(1, 1, unit="searches", amount=5000)))
        writer.carry_all()
    assert sorted(row["served"] for row in _rows(database)) == ["dear", "plain"]
    assert not wrong_sums(database)
    assert (writer.unfit, writer.waiting) == (1, 0)


def test_a_database_that_was_away_gets_all_that_came_meanwhile(own_postgres: PostgresServer, tmp_path: Path) -> None:
    """Once each, from the thread that runs all the time."""
    database = Database(own_postgres.new_database(), timeout=2)
    migrate(database)
    journal = _journal(tmp_path)
    ledger, writer = Ledger(journal), _writer(database, journal)
    writer.start()
    for away in (False, True, False):
        if away:
            own_postgres.stop()
        for _ in range(50):
            ledger.call_ended(_record())
        if away:
            until(lambda: database.fault)
            own_postgres.start()
        until(lambda: not writer.waiting)
    writer.stop(10)
    assert len(_rows(database)) == 150
    assert not wrong_sums(database)
    database.close()


def test_a_journal_is_seen_by_others_only_when_it_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else another process could take a file that is just being made for one that was left behind, and delete it."""
    lock = fcntl.flock
    seen: list[Path] = []

    def locks(descriptor: int, operation: int) -> None:
        seen.extend(tmp_path.glob("*.journal"))
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", locks)
    journal = _journal(tmp_path)
    assert seen == []
    assert len(list(tmp_path.iterdir())) == 1
    journal.close()


def test_a_line_that_was_cut_off_is_not_a_call(database: Database, tmp_path: Path) -> None:
    """Half a line at the end of what a killed process left is none, and an unreadable one costs only itself."""
    killed = _journal(tmp_path)
    Ledger(killed).call_ended(_record())
    killed.append(b"[1,2,")
    Ledger(killed).call_ended(_record())
    (file,) = killed.files()
    content = file.path.read_bytes()
    killed.close()
    file.path.write_bytes(content[: file.size] + b'[1764000000000,1,"half' + content[file.size + 22 :])
    journal = _journal(tmp_path)
    writer = _writer(database, journal)
    writer.adopt()
    writer.carry_all()
    assert len(_rows(database)) == 2


def _left_behind(folder: Path, *lines: bytes) -> Path:
    """A journal of a process that is gone, with calls of models 0, 1, … and these lines between them."""
    killed = _journal(folder)
    ledger = Ledger(killed)
    for number in range(len(lines) + 1):
        ledger.call_ended(_record(asked_model=str(number)))
        if number < len(lines):
            killed.append(lines[number])
    (file,) = killed.files()
    killed.close()
    return file.path


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b'[1764000000000,1,"\xff\xfe"', id="not UTF-8"),
        pytest.param(msgspec.json.encode(PLAIN)[:-1] + b"," + b"[" * 100_000, id="brackets without end"),
        pytest.param(bytes(600_000), id="a hole"),
    ],
)
def test_a_line_that_a_failed_disk_has_changed_costs_only_itself(tmp_path: Path, line: bytes) -> None:
    """Whatever it looks like and however long it is, its neighbours count, and it is counted as lost."""
    with closing(Database(databases.ready_file(tmp_path / "gateway.db"))) as database:
        path = _left_behind(tmp_path / "journal", line)
        writer = _writer(database, _journal(path.parent))
        writer.adopt()
        writer.carry_all()
        assert sorted(row["model"] for row in _rows(database)) == ["0", "1"]
    assert writer.unfit == 1
    assert not path.exists()


def test_what_a_loss_of_power_has_taken_stops_nobody(tmp_path: Path) -> None:
    """A journal that is shorter than what the database has of it is done; calls that come count."""
    with closing(Database(databases.ready_file(tmp_path / "gateway.db"))) as database:
        path = _left_behind(tmp_path / "journal")
        with database.transaction() as connection:
            carry(database, connection, path.stem, 0, [], path.stat().st_size * 2)
        journal = _journal(path.parent)
        writer = _writer(database, journal)
        Ledger(journal).call_ended(_record(asked_model="later"))
        writer.adopt()
        writer.carry_all()
        assert [row["model"] for row in _rows(database)] == ["later"]
    assert not path.exists()


def test_a_journal_that_can_t_be_read_keeps_no_other_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure is told, everything else is carried over, and it is tried again."""
    read = os.pread

    def fails(descriptor: int, length: int, begin: int) -> bytes:
        if os.path.sameopenfile(descriptor, failed):
            raise OSError(errno.EIO, "Input/output error")
        return read(descriptor, length, begin)

    with closing(Database(databases.ready_file(tmp_path / "gateway.db"))) as database:
        path = _left_behind(tmp_path / "journal")
        journal = _journal(path.parent)
        writer = _writer(database, journal)
        Ledger(journal).call_ended(_record(asked_model="later"))
        writer.adopt()
        with path.open() as opened:
            failed = opened.fileno()
            monkeypatch.setattr(os, "pread", fails)
            with structlog.testing.capture_logs() as logs:
                writer.carry_all()
        monkeypatch.undo()
        assert [row["model"] for row in _rows(database)] == ["later"]
        assert [(log["event"], log["reason"]) for log in logs] == [("journal_unusable", "Input/output error")]
        writer.adopt()
        writer.carry_all()
        assert sorted(row["model"] for row in _rows(database)) == ["0", "later"]
    assert not path.exists()


def test_a_full_disk_fails_no_call_and_loses_none(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines wait in memory, are carried over from there, and keep their order."""
    journal = _journal(tmp_path, segment=200)  # room for one line
    ledger, writer = Ledger(journal), _writer(database, journal)
    ledger.call_ended(_record(asked_model="1"))
    monkeypatch.setattr(os, "posix_fallocate", _no_space)
    ledger.call_ended(_record(asked_model="2"))
    assert len(journal.files()) == 1
    assert writer.carry_all() == 2
    ledger.call_ended(_record(asked_model="3"))
    monkeypatch.undo()
    ledger.call_ended(_record(asked_model="4"))
    assert len(journal.files()) == 3
    assert writer.carry_all() == 2
    assert sorted(row["model"] for row in _rows(database)) == ["1", "2", "3", "4"]
    assert journal.lost == 0


def test_a_gateway_starts_with_a_full_disk(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is started again while the disk is full counts its calls from memory, until there is a file."""
    monkeypatch.setattr(os, "posix_fallocate", _no_space)
    journal = _journal(tmp_path)
    ledger, writer = Ledger(journal), _writer(database, journal)
    ledger.call_ended(_record(asked_model="1"))
    assert writer.carry_all() == 1
    monkeypatch.undo()
    ledger.call_ended(_record(asked_model="2"))
    assert len(journal.files()) == 1
    assert writer.carry_all() == 1
    assert sorted(row["model"] for row in _rows(database)) == ["1", "2"]


def test_what_finds_no_room_at_the_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that ends while the disk is full and the database away says how many calls it takes with it."""
    journal = _journal(tmp_path, segment=10)
    monkeypatch.setattr(os, "posix_fallocate", _no_space)
    journal.append(b"x" * 100)
    with structlog.testing.capture_logs() as told:
        journal.close()
    assert [(line["event"], line["count"]) for line in told if line["event"] == "calls_lost"] == [("calls_lost", 1)]


def _no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line in the log when lines begin to wait in memory, and one when they don't have to any more."""
    journal = _journal(tmp_path, segment=4096)
    monkeypatch.setattr(os, "posix_fallocate", _no_space)
    with structlog.testing.capture_logs() as told:
        for _ in range(20):
            journal.append(b"x" * 1000)
        monkeypatch.undo()
        journal.append(b"x" * 1000)
    assert [line["event"] for line in told] == ["journal_full", "journal_has_room"]
    journal.close()


def test_a_journal_at_its_limit_counts_what_it_loses(tmp_path: Path) -> None:
    """When neither disk nor memory has room, calls go on, and the number of lost ones is known."""
    journal = _journal(tmp_path, most=0)
    for _ in range(20):
        journal.append(b"x" * 1024 * 1000)
    assert (journal.appended, journal.lost) == (20, 11)


def test_a_database_that_is_away_keeps_the_lines_in_the_journal(tmp_path: Path) -> None:
    """Nothing moves until it is back."""
    journal = _journal(tmp_path)
    Ledger(journal).call_ended(_record())
    away = Database("postgresql://nobody@127.0.0.1:1/nothing", timeout=2)
    writer = _writer(away, journal)
    with pytest.raises(DatabaseAway):
        writer.carry_all()
    assert writer.waiting == 1
    away.close()


def test_prices_count_from_their_date_on(database: Database, tmp_path: Path) -> None:
    """Cached tokens cost less, a provider's own price wins, and what came before a price costs what it did."""
    with database.transaction() as connection:
        prices = [
            Price("kimi", 0, 1000, 2000, 100),
            Price("kimi", now() + _HOUR, 9, 9, 9),
            Price("other/kimi", 0, 5, 7, 1),
        ]
        assert set_prices(database, connection, prices) == 3
    journal = _journal(tmp_path)
    ledger = Ledger(journal)
    ledger.call_ended(_record(charged=Usage(10, 20, cached_tokens=4)))
    ledger.call_ended(_record(provider="other", charged=Usage(10, 20)))
    ledger.call_ended(_record(served_model="free", model="free"))
    _writer(database, journal).carry_all()
    costs = {(row["provider"], row["served"]): row["cost"] for row in _rows(database)}
    assert costs == {
        ("kimi-web", None): 6 * 1000 + 4 * 100 + 20 * 2000,
        ("other", None): 10 * 5 + 20 * 7,
        ("kimi-web", "free"): 0,
    }


def test_what_is_used_besides_tokens_is_kept_and_has_prices(database: Database, tmp_path: Path) -> None:
    """Each unit in rows and sums; so have tokens that are written into a cache, which else cost what others do."""
    with database.transaction() as connection:
        plain, dear = Price("plain", 0, 5, 7, 1), Price("dear", 0, 5, 7, 1, cache_write=8)
        painter = Price("painter", 0, 1, 0, 0, image=40_000_000, audio_second=100, character=20, search=3)
        set_prices(database, connection, [plain, dear, painter])
    journal = _journal(tmp_path)
    ledger = Ledger(journal)
    for model in ("plain", "dear"):
        charged = Usage(10, 0, cached_tokens=2, cache_written_tokens=5)
        ledger.call_ended(_record(asked_model=model, served_model=model, charged=charged))
    units: dict[Unit, int] = {"images": 3, "audio_seconds": 60, "characters": 500, "searches": 2}
    for unit, amount in units.items():
        charged = Usage(9, 0, unit=unit, amount=amount)
        ledger.call_ended(_record(asked_model=unit, served_model="painter", charged=charged))
    _writer(database, journal).carry_all()
    rows = {
        row["model"]: (row["unit"], row["amount"], row["tokens_cache_written"], row["cost"]) for row in _rows(database)
    }
    assert rows == {
        "plain": (None, None, 5, 8 * 5 + 2),
        "dear": (None, None, 5, 3 * 5 + 2 + 5 * 8),
        "images": ("images", 3, 0, 9 + 3 * 40_000_000),
        "audio_seconds": ("audio_seconds", 60, 0, 9 + 60 * 100),
        "characters": ("characters", 500, 0, 9 + 500 * 20),
        "searches": ("searches", 2, 0, 9 + 2 * 3),
    }
    with database.transaction(reads=True) as connection:
        [sums] = usage_by(connection, since=0, until=now() + _HOUR)
        of_key = usage_of(connection, "k_ada", {"total": 0})["total"]
    for told in (sums, of_key):
        assert {name: told[name] for name in units} == units
        assert told["tokens_cache_written"] == 10


def test_a_line_of_a_newer_version_becomes_a_row(database: Database, tmp_path: Path) -> None:
    """Without what nobody here knows: a unit of its own, say, counts for no other."""
    journal = _journal(tmp_path)
    newer = [*msgspec.structs.astuple(msgspec.structs.replace(PLAIN, unit=99, amount=7)), "of a later version"]
    journal.append(msgspec.json.encode(newer))
    _writer(database, journal).carry_all()
    (row,) = _rows(database)
    assert (row["tokens_in"], row["unit"], row["amount"]) == (PLAIN.tokens_in, None, 7)


def test_old_rows_go_and_sums_stay(database: Database, tmp_path: Path) -> None:
    """After REQUESTS_KEPT_DAYS a call is only a part of its sums."""
    journal = _journal(tmp_path)
    ledger = Ledger(journal)
    ledger.call_ended(_record(seconds=2 * 86_400.0))
    ledger.call_ended(_record())
    writer = _writer(database, journal, kept_days=1.0)
    writer.carry_all()
    writer.clean()
    assert len(_rows(database)) == 1
    assert _total(database) == {"k_ada": 2}


def test_new_calls_don_t_wait_for_the_end_of_a_cleaning(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a setting was changed it may take minutes."""
    monkeypatch.setattr("app.ledger.writer._PAUSE_SECONDS", 0)
    journal = _journal(tmp_path)
    writer = _writer(database, journal, kept_days=1)
    Ledger(journal).call_ended(_record(began=(now() - 3 * 24 * _HOUR) / 1000))
    writer.carry_all()
    Ledger(journal).call_ended(_record(model="new", served_model="new"))
    writer.clean()
    assert [row["served"] for row in _rows(database)] == ["new"]


def test_a_database_that_is_too_large_loses_its_oldest_rows(tmp_path: Path) -> None:
    """DATABASE_MAX_MB holds, and the file becomes smaller."""
    database = Database(f"sqlite:///{tmp_path}/gateway.db", timeout=5)
    migrate(database)
    journal = _journal(tmp_path)
    ledger = Ledger(journal)
    for _ in range(12_000):
        ledger.call_ended(_record())
    writer = _writer(database, journal, max_megabytes=0.7)
    writer.carry_all()
    writer.clean()
    assert 0 < len(_rows(database)) < 12_000
    with closing(sqlite3.connect(tmp_path / "gateway.db")) as plain:
        plain.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert (tmp_path / "gateway.db").stat().st_size < 0.75 * 1024 * 1024
    assert _total(database) == {"k_ada": 12_000}
    database.close()


def test_a_full_database_keeps_as_many_rows_as_it_has_room_for(database: Database, tmp_path: Path) -> None:
    """Of either kind, at once and without its server's own statistics, and cleaning again deletes no more."""
    journal = _journal(tmp_path)
    ledger = Ledger(journal)
    for _ in range(12_000):
        ledger.call_ended(_record())
    writer = _writer(database, journal, max_megabytes=0.8)
    writer.carry_all()
    writer.clean()
    count = len(_rows(database))
    assert 0 < count < 12_000
    writer.clean()
    assert len(_rows(database)) == count


def test_nothing_is_made_before_the_gateway_starts(tmp_path: Path) -> None:
    """Whoever only makes a gateway leaves no file behind, and no early line is lost."""
    journal = Journal(tmp_path / "journal", most=_MOST)
    journal.append(b"early")
    assert list(tmp_path.iterdir()) == []
    journal.open()
    journal.append(b"first")
    (file,) = journal.files()
    assert file.read(0) == b"early\nfirst\n"
    journal.close()
