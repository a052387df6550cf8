"""Carries the journal into the database, in batches, on a thread of its own."""

import random
import threading
import time
from collections.abc import Sequence
from zoneinfo import ZoneInfo

import msgspec
import structlog

from app.ledger.journal import Journal, JournalFile
from app.storage.changes import forget_changes
from app.storage.clock import now
from app.storage.database import Database, DatabaseAway
from app.storage.limits import forget_idle
from app.storage.requests import (
    UTC,
    carry,
    close_journal,
    delete_rows_before,
    forget_journals,
    journal_position,
    size_in_bytes,
)
from app.storage.rows import RequestRow, id_at
from app.storage.usage import HOUR, KEY_HOURS_KEPT, forget_key_hours, keys_with_old_hours

_log = structlog.get_logger("kimi.ledger")

_PAUSE_SECONDS = 0.5
# While the database is away it is tried again after this long.
_AWAY_SECONDS = 1.0
_BATCH = 2000
_DAY = 86_400_000
_CHANGES_KEPT = _DAY
_CLOSED_KEPT = 30 * _DAY
_CLEANING_SECONDS = 600.0
_ADOPTING_SECONDS = 10.0
_DELETED_AT_ONCE = 5000
# Between two steps of cleaning: others want to write, too.
_OTHERS_TURN_SECONDS = 0.01
_decode = msgspec.json.Decoder(RequestRow).decode


class LedgerWriter:
    """Carries over this process's journal, and those that others left behind.

    Args:
        database: Where to.
        journal: Where from.
        kept_days: How long rows are kept.
        max_megabytes: What rows may take; beyond that the oldest go.
        zone: Whose calendar quotas follow.

    Attributes:
        written: Lines that were carried over.
    """

    def __init__(
        self, database: Database, journal: Journal, *, kept_days: float, max_megabytes: float, zone: ZoneInfo = UTC
    ) -> None:
        self._database = database
        self._journal = journal
        self._zone = zone
        self._kept = round(kept_days * _DAY)
        self._max_bytes = max_megabytes * 1024 * 1024
        self._positions: dict[str, int] = {}
        self._adopted: list[JournalFile] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self.written = 0

    @property
    def waiting(self) -> int:
        """Lines of this process that are still to be carried over."""
        return max(self._journal.appended - self._journal.lost - self.written, 0)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Carry over what is left, for so long at most; the rest is found by whoever comes next."""
        self._stopping.set()
        self._thread.join(seconds)
        if not self._thread.is_alive():
            self._journal.close()
            for file in self._adopted:
                file.close()

    def carry_all(self) -> int:
        """Carry over what is there now, and say how many lines.

        Raises:
            DatabaseAway: The database is away.
        """
        for file in tuple(self._adopted):
            self._carried(file)
        count = sum(self._carried(file) for file in self._journal.files())
        while lines := self._journal.take_memory(_BATCH):
            count += self._carried_from_memory(lines)
        self.written += count
        return count

    def _run(self) -> None:
        adopting = cleaning = 0.0
        away = False
        while True:
            stopping = self._stopping.is_set()
            try:
                if not self._database.prepared:
                    raise DatabaseAway(self._database.fault)
                if time.monotonic() >= adopting:
                    adopting = time.monotonic() + _ADOPTING_SECONDS
                    self.adopt()
                self.carry_all()
                if away:
                    _log.info("ledger_database_back")
                away = False
                if time.monotonic() >= cleaning and not stopping:
                    # Not all workers at once.
                    cleaning = time.monotonic() + _CLEANING_SECONDS * random.uniform(0.5, 1.5)  # noqa: S311
                    self.clean()
            except DatabaseAway as error:
                if not away:
                    _log.warning("ledger_database_away", reason=str(error), meaning="the journal keeps what comes")
                away = True
            # The thread must not end: nobody else carries this journal.
            except Exception:  # noqa: BLE001 - see above
                _log.exception("ledger_failed")
                self._positions.clear()
            if stopping:
                return
            self._stopping.wait(_AWAY_SECONDS if away else _PAUSE_SECONDS)

    def _carried(self, file: JournalFile) -> int:
        """Carry over a file up to its end, and delete it if it doesn't grow any more."""
        count = 0
        position = self._position(file)
        while data := file.read(position):
            lines = data.splitlines(keepends=True)[:_BATCH]
            end = position + sum(map(len, lines))
            self._write(file.id, position, _rows(lines), end)
            position = self._positions[file.id] = end
            count += len(lines)
        if not self._journal.is_growing(file):
            with self._database.transaction() as connection:
                close_journal(connection, file.id)
            if file in self._adopted:
                file.delete()
                self._adopted.remove(file)
            else:
                self._journal.done(file)
            self._positions.pop(file.id, None)
        return count

    def _position(self, file: JournalFile) -> int:
        if file.id not in self._positions:
            with self._database.transaction(reads=True) as connection:
                self._positions[file.id] = journal_position(connection, file.id) or 0
        return self._positions[file.id]

    def _write(self, journal: str, begin: int, rows: Sequence[RequestRow], end: int) -> None:
        try:
            with self._database.transaction() as connection:
                carry(self._database, connection, journal, begin, rows, end, self._zone)
        except BaseException:
            # Perhaps it was written, and only the answer is lost: the database knows how far it is.
            self._positions.pop(journal, None)
            raise

    def _carried_from_memory(self, lines: list[bytes]) -> int:
        file = self._journal.files()[-1]  # there is one: nothing is carried before it is open
        position = self._position(file)
        try:
            self._write(file.id, position, _rows(lines), position)
        except BaseException:
            self._journal.give_back(lines)
            raise
        return len(lines)

    def adopt(self) -> None:
        """Take over the journals of processes that are gone; the next round carries them over."""
        self._adopted += JournalFile.left_behind(self._journal.folder)

    def clean(self) -> None:
        """Delete what is older, or takes more room, than may be.

        Raises:
            DatabaseAway: The database is away.
        """
        with self._database.transaction() as connection:
            forget_changes(connection, now() - _CHANGES_KEPT)
            forget_journals(connection, now() - _CLOSED_KEPT)
            forget_idle(self._database, connection)
        self._forget_key_hours()
        while self._delete(id_at(now() - self._kept)) and not self._stopping.wait(_OTHERS_TURN_SECONDS):
            pass
        while self._is_too_large() and self._delete(id_at(now())) and not self._stopping.wait(_OTHERS_TURN_SECONDS):
            pass

    def _forget_key_hours(self) -> None:
        """Delete the sums of single keys by hour that are older than they are kept, key by key."""
        before = now() - now() % HOUR - KEY_HOURS_KEPT
        with self._database.transaction(reads=True) as connection:
            keys = keys_with_old_hours(connection, before)
        for key in keys:
            with self._database.transaction() as connection:
                forget_key_hours(connection, key, before)
            if self._stopping.wait(_OTHERS_TURN_SECONDS):
                return

    def _is_too_large(self) -> bool:
        with self._database.transaction(reads=True) as connection:
            return size_in_bytes(self._database, connection) > self._max_bytes

    def _delete(self, row_id: int) -> int:
        """Delete some of the oldest rows before an id, and say how many."""
        with self._database.transaction() as connection:
            return delete_rows_before(self._database, connection, row_id, _DELETED_AT_ONCE)


def _rows(lines: Sequence[bytes]) -> list[RequestRow]:
    rows = []
    for line in lines:
        try:
            rows.append(_decode(line))
        except msgspec.DecodeError:  # a disk that failed; its neighbours count all the same
            _log.warning("journal_line_unreadable", size=len(line))
    return rows
