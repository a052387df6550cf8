"""Carries the journal into the database, in batches, on a thread of its own."""

import random
import secrets
import threading
import time
from contextlib import suppress
from zoneinfo import ZoneInfo

import msgspec
import structlog
from msgspec.structs import replace

from app.ledger.journal import Journal, JournalFile
from app.storage.changes import forget_changes
from app.storage.clock import now
from app.storage.database import Database, DatabaseAway
from app.storage.limits import forget_idle
from app.storage.recordings import delete_texts, forget_recordings, size_of_texts
from app.storage.requests import (
    UTC,
    carry,
    close_journal,
    delete_journal,
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
# Of the lines that no file took.
_BATCH = 2000
_DAY = 86_400_000
_CHANGES_KEPT = _DAY
_CLOSED_KEPT = 30 * _DAY
_CLEANING_SECONDS = 600.0
_ADOPTING_SECONDS = 10.0
_DELETED_AT_ONCE = 5000
# Recorded texts are kept for so long at most.
_TEXTS_KEPT = 7 * _DAY
_TEXTS_DELETED_AT_ONCE = 50
# Between two steps of cleaning: others want to write, too.
_OTHERS_TURN_SECONDS = 0.01
# What a column of tokens takes.
_MOST_TOKENS = 2**31 - 1
_decoder = msgspec.json.Decoder(RequestRow)
# What it raises for a line that a failed disk has changed: texts that aren't UTF-8, and brackets without end, included.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class LedgerWriter:
    """Carries over this process's journal, and those that others left behind.

    Args:
        database: Where to.
        journal: Where from.
        kept_days: How long rows are kept.
        max_megabytes: What rows may take; beyond that the oldest go.
        zone: Whose calendar quotas follow.

    Attributes:
        written: Lines of this process that were carried over.
        unfit: Lines, of any process, that could not be read, or that the database doesn't take.
    """

    def __init__(
        self, database: Database, journal: Journal, *, kept_days: float, max_megabytes: float, zone: ZoneInfo = UTC
    ) -> None:
        self._database = database
        self._journal = journal
        self._zone = zone
        self._kept = round(kept_days * _DAY)
        self._max_bytes = max_megabytes * 1024 * 1024
        # By journal: how far it has been carried over; and, where the database's last answer is missing, the position
        # and the count of this process's lines that may have been written.
        self._positions: dict[str, int] = {}
        self._unsure: dict[str, tuple[int, int]] = {}
        # Lines that no file took, on their way, and the id of the journal that they are for the database.
        self._taken: list[bytes] = []
        self._taken_as = ""
        self._adopted: list[JournalFile] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._carried_at = 0.0
        self.written = 0
        self.unfit = 0

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
        if self._thread.is_alive():  # it waits for the database, and may still read the files
            self._journal.save_memory()
            return
        self._give_back()
        self._journal.close(self._closed_whole())
        for file in self._adopted:
            file.close()

    def carry_all(self) -> int:
        """Carry over what is there now, and say how many lines of this process.

        Raises:
            DatabaseAway: The database is away.
            OSError: A file of this process can't be read.
        """
        before = self.written
        for file in tuple(self._adopted):
            try:
                self._carry(file, own=False)
            except OSError as error:  # must not hold up the calls of this process
                _log.error("journal_unusable", journal=file.id, reason=error.strerror, meaning="it is tried again")
                self._adopted.remove(file)
                file.close()
        for file in self._journal.files():
            self._carry(file, own=True)
        self._carry_memory()
        self._carried_at = time.monotonic()
        return self.written - before

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
                    self._journal.leave_if_gone()
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

    def _carry(self, file: JournalFile, *, own: bool) -> None:
        """Carry over a file up to its end, and delete it if it doesn't grow any more."""
        # Looked at before its end is read: the event loop's thread may add lines, and begin another file, meanwhile.
        growing = self._journal.is_growing(file)
        position = self._position(file.id)
        while data := file.read(position):
            end = position + len(data)
            self._write(file.id, position, data, end, own=own)
            position = end
        if growing:
            return
        with self._database.transaction() as connection:
            close_journal(connection, file.id)
        if own:
            self._journal.done(file)
        else:
            file.delete()
            self._adopted.remove(file)
        self._positions.pop(file.id, None)

    def _carry_memory(self) -> None:
        """Carry over what no file has taken; exactly once, too, because each batch is a journal of its own."""
        while True:
            if not self._taken:
                self._taken, self._taken_as = self._journal.take_memory(_BATCH), secrets.token_hex(8)
            if not self._taken:
                return
            count, journal = len(self._taken), self._taken_as
            try:
                if self._position(journal) == 0:  # else they had been written, and only the answer was lost
                    self._write(journal, 0, b"".join([b"%b\n" % line for line in self._taken]), count, own=True)
            except BaseException:
                if journal not in self._unsure:
                    self._give_back()
                raise
            self._taken = []
            with self._database.transaction() as connection:
                delete_journal(connection, journal)

    def _closed_whole(self) -> dict[str, int]:
        """Close this process's journals of which nothing is left to be carried over, and say how far they were.

        A gateway with another database, which may be started next, would take all of their lines for new ones.
        """
        whole = {file.id: file.size for file in self._journal.files() if self._positions.get(file.id) == file.size}
        if whole:
            try:
                with self._database.transaction() as connection:
                    for journal in whole:
                        close_journal(connection, journal)
            except DatabaseAway:
                return {}
        return whole

    def _give_back(self) -> None:
        """Let what was taken from memory wait there again."""
        self._journal.give_back(self._taken)
        self._taken = []

    def _position(self, journal: str) -> int:
        if journal not in self._positions:
            with self._database.transaction(reads=True) as connection:
                position = self._positions[journal] = journal_position(connection, journal) or 0
            end, count = self._unsure.get(journal, (-1, 0))
            if position == end:
                del self._unsure[journal]
                self.written += count
        return self._positions[journal]

    def _write(self, journal: str, begin: int, lines: bytes, end: int, *, own: bool) -> None:
        """Carry over the lines between two positions of a journal.

        Args:
            own: Whether they are this process's.
        """
        count, rows = lines.count(b"\n"), _rows(lines)
        committing = False
        try:
            with self._database.transaction() as connection:
                refused = carry(self._database, connection, journal, begin, rows, end, self._zone)
                committing = True
        except BaseException:
            self._positions.pop(journal, None)
            if committing:  # Perhaps it was written, and only the answer is lost: the database knows how far it is.
                self._unsure[journal] = end, count if own else 0
            raise
        self._positions[journal] = end
        self._unsure.pop(journal, None)
        self.written += count if own else 0
        if unfit := count - len(rows) + refused:
            self.unfit += unfit
            _log.error("journal_lines_unfit", count=unfit, meaning="the calls in them are not in the ledger")

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
            forget_recordings(connection, now() - _TEXTS_KEPT)
        self._forget_key_hours()
        texts_kept = min(self._kept, _TEXTS_KEPT)
        while self._delete_texts(now() - texts_kept) and self._goes_on():
            pass
        # Texts go first.
        while self._is_too_large() and self._delete_texts(now()) and self._goes_on():
            pass
        while self._delete(id_at(now() - self._kept)) and self._goes_on():
            pass
        while self._is_too_large() and self._delete(id_at(now())) and self._goes_on():
            pass

    def _forget_key_hours(self) -> None:
        """Delete the sums of single keys by hour that are older than they are kept, key by key."""
        before = now() - now() % HOUR - KEY_HOURS_KEPT
        with self._database.transaction(reads=True) as connection:
            keys = keys_with_old_hours(connection, before)
        for key in keys:
            with self._database.transaction() as connection:
                forget_key_hours(connection, key, before)
            if not self._goes_on():
                return

    def _goes_on(self) -> bool:
        """Between two steps of cleaning: let others write, and new calls not wait for the end. False at the end."""
        if self._stopping.wait(_OTHERS_TURN_SECONDS):
            return False
        if time.monotonic() >= self._carried_at + _PAUSE_SECONDS:
            self.carry_all()
        return True

    def _is_too_large(self) -> bool:
        with self._database.transaction(reads=True) as connection:
            size = size_in_bytes(self._database, connection)
            if not self._database.is_sqlite:  # whose size is that of the whole file
                size += size_of_texts(connection)
            return size > self._max_bytes

    def _delete_texts(self, before: int) -> int:
        """Delete some of the oldest recorded texts from before a time, and say how many."""
        with self._database.transaction() as connection:
            return delete_texts(self._database, connection, before, _TEXTS_DELETED_AT_ONCE)

    def _delete(self, row_id: int) -> int:
        """Delete some of the oldest rows before an id, and say how many."""
        with self._database.transaction() as connection:
            return delete_rows_before(self._database, connection, row_id, _DELETED_AT_ONCE)


def _rows(lines: bytes) -> list[RequestRow]:
    """The rows of the lines that can be read."""
    try:
        rows = _decoder.decode_lines(lines)
    except _UNREADABLE:  # the neighbours of such a line count
        rows = []
        for line in lines.splitlines():
            with suppress(*_UNREADABLE):
                rows.append(_decoder.decode(line))
    return [row if _fits(row) else _fitted(row) for row in rows]


def _fits(row: RequestRow) -> bool:
    return (
        row.tokens_in <= _MOST_TOKENS
        and row.tokens_out <= _MOST_TOKENS
        and row.tokens_cached <= _MOST_TOKENS
        and (row.tokens_cache_written is None or row.tokens_cache_written <= _MOST_TOKENS)
    )


def _fitted(row: RequestRow) -> RequestRow:
    """The row with numbers that columns take: what an upstream has counted may be any."""
    return replace(
        row,
        tokens_in=min(row.tokens_in, _MOST_TOKENS),
        tokens_out=min(row.tokens_out, _MOST_TOKENS),
        tokens_cached=min(row.tokens_cached, _MOST_TOKENS),
        tokens_cache_written=min(row.tokens_cache_written or 0, _MOST_TOKENS) or None,
    )
