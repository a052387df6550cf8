"""The journal: files to which every finished call adds a line, and which survive the process.

A call never waits for the database. Its line is copied into a file that is mapped into memory, which takes no call of
the kernel: `kill -9` loses nothing, a loss of power the last seconds. Where even the disk has no more room, lines stay
in memory, up to a bound, and what would go beyond that is counted as lost.
"""

import errno
import fcntl
import mmap
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import structlog

_log = structlog.get_logger("kimi.ledger")

_SUFFIX = ".journal"
_SEGMENT = 4 * 1024 * 1024
_MOST_IN_MEMORY = 8 * 1024 * 1024
# About 2,000 lines: one transaction of the database.
_CHUNK = 512 * 1024
_NEW_LINE = ord("\n")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class JournalFile:
    """A journal that this process holds: nobody else carries it over.

    Args:
        path: Its file, whose name is the journal's id.
        descriptor: The open, locked file.
        size: Bytes of whole lines at its beginning.
        room: Bytes that it has room for; 0 if it takes no more lines.

    Attributes:
        size: As above. A reader on another thread takes what lies before it.
    """

    def __init__(self, path: Path, descriptor: int, size: int = 0, room: int = 0) -> None:
        self.path = path
        self.id = path.name.removesuffix(_SUFFIX)
        self._descriptor = descriptor
        self._room = room
        self._memory = mmap.mmap(descriptor, room) if room else None
        self.size = size

    @classmethod
    def new(cls, folder: Path, room: int) -> "JournalFile":
        """Make a journal with room for so many bytes, which are taken from the disk at once.

        Raises:
            OSError: The folder can't be written to, or the disk is full.
        """
        folder.mkdir(parents=True, exist_ok=True)
        # Nobody may know an id twice: the database would take one journal for the other.
        path = folder / f"{secrets.token_hex(8)}{_SUFFIX}"
        # Under another name until it is locked: else another process could take it for one that was left behind.
        unlocked = path.with_suffix(".new")
        descriptor = os.open(unlocked, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            unlocked.rename(path)
            _reserve(descriptor, room)
            return cls(path, descriptor, room=room)
        except OSError:
            unlocked.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            os.close(descriptor)
            raise

    @classmethod
    def left_behind(cls, folder: Path) -> Iterator["JournalFile"]:
        """Take over the journals of processes that are gone."""
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            with suppress(OSError):
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    # Deleted since we opened it? Behind its last line lie zeros, or a line that was not finished.
                    size = path.read_bytes().rfind(b"\n") + 1
                except OSError:
                    os.close(descriptor)
                else:
                    yield cls(path, descriptor, size)

    def append(self, line: bytes) -> bool:
        """Write a line, given without its end. False if there is no room for it."""
        begin = self.size
        end = begin + len(line)
        if end >= self._room or self._memory is None:
            return False
        self._memory[begin:end] = line
        # Last, so that a line that has an end is whole, wherever the process is killed.
        self._memory[end] = _NEW_LINE
        self.size = end + 1
        return True

    def ends_as_gone(self) -> bool:
        """Take no more lines if somebody has deleted the file, and say whether that is news.

        What is in such a file is lost with this process.
        """
        if not self._room or self.path.exists():
            return False
        self._room = 0
        return True

    def read(self, begin: int) -> bytes:
        """Read whole lines from a position on, up to 512 KiB; empty at the end.

        Where a loss of power has left a larger hole in the file, the hole is read with what follows. It may also have
        taken lines that were carried over before it: then the position lies behind the end.

        Raises:
            OSError: The disk has failed.
        """
        left = max(self.size - begin, 0)
        for room in (_CHUNK, left):
            data = os.pread(self._descriptor, min(room, left), begin)
            if end := data.rfind(b"\n") + 1:
                return data[:end]
        return b""

    def delete(self) -> None:
        """Delete the file, and let go of it."""
        self.path.unlink(missing_ok=True)
        self._let_go()

    def close(self) -> None:
        """Let go of the file: somebody else may carry it over."""
        with suppress(OSError):
            os.ftruncate(self._descriptor, self.size)
        self._let_go()

    def _let_go(self) -> None:
        if self._memory is not None:
            self._memory.close()
        os.close(self._descriptor)


class Journal:
    """Where calls put their lines. Until it is opened they wait in memory.

    One thread appends, the event loop's; another one carries over. What both change is under the lock.

    Args:
        folder: Where the files are, on a disk of this machine.
        segment: The size of a file in bytes. It is on the disk from the start.
        most: Bytes that the files may have together; then the disk counts as full.
        retry: Seconds after which a full disk is tried again.

    Attributes:
        appended: Lines that were put in.
        lost: Lines that neither disk nor memory had room for.
    """

    def __init__(self, folder: Path, *, most: int, segment: int = _SEGMENT, retry: float = 1.0) -> None:
        self.folder = folder
        self._most = most
        self._segment = segment
        self._retry = retry
        self._tried = 0.0
        self._file: JournalFile | None = None
        self._full: list[JournalFile] = []
        self._lock = threading.Lock()
        self._memory: deque[bytes] = deque()
        self._memory_size = 0
        self._opened = False
        self._refused = ""
        self.appended = 0
        self.lost = 0

    def open(self) -> None:
        """Begin a file. Where the disk is full, that comes later.

        Raises:
            OSError: The folder can't be written to.
        """
        self._opened = True
        try:
            self._file = JournalFile.new(self.folder, self._segment)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            self._note_refusal(error.strerror or str(error))

    def append(self, line: bytes) -> None:
        """Put a line in, given without its end. Never fails, and never waits for more than a new file."""
        self.appended += 1
        # Without the lock: only this thread writes to the file.
        if self._memory or self._file is None or not self._file.append(line):
            self._append_otherwise(line)

    def files(self) -> list[JournalFile]:
        """The files with lines to be carried over, the oldest first. The last one still grows."""
        with self._lock:
            return [*self._full, *([self._file] if self._file else [])]

    def take_memory(self, limit: int) -> list[bytes]:
        """Up to `limit` of the lines that the disk doesn't take, for carrying them over without a file."""
        with self._lock:
            taken = [self._memory.popleft() for _ in range(min(limit, len(self._memory)))]
            self._memory_size -= sum(map(len, taken))
            return taken

    def give_back(self, lines: list[bytes]) -> None:
        """Take lines back that could not be carried over."""
        with self._lock:
            self._memory.extendleft(reversed(lines))
            self._memory_size += sum(map(len, lines))

    def is_growing(self, file: JournalFile) -> bool:
        """Whether a file gets new lines."""
        return file is self._file

    def leave_if_gone(self) -> None:
        """Let the next line begin another file, if somebody has deleted this one."""
        file = self._file
        # The event loop's thread makes the other one: it may be writing to this one now.
        if file is not None and file.ends_as_gone():
            _log.warning("journal_gone", folder=str(self.folder), meaning="deleted by somebody; another is made")

    def done(self, file: JournalFile) -> None:
        """Delete a full file that has been carried over."""
        with self._lock:
            self._full.remove(file)
        file.delete()

    def discard(self) -> None:
        """Delete the file, which has nothing in it."""
        if self._file is not None:
            self._file.delete()
            self._file = None

    def save_memory(self) -> None:
        """Write what waits in memory, at the end; what still finds no room on the disk is lost."""
        with self._lock:
            self._tried = 0.0
            self._write_memory()
            if self._memory:
                _log.error("calls_lost", count=len(self._memory), meaning="neither disk nor database took them")

    def close(self, carried: Mapping[str, int] | None = None) -> None:
        """Let go of all files; whoever comes next carries over what is left.

        Args:
            carried: How far journals have been carried over. Those with nothing behind that are deleted.
        """
        self.save_memory()
        with self._lock:
            for file in (*self._full, *([self._file] if self._file else [])):
                if (carried or {}).get(file.id) == file.size:
                    file.delete()
                else:
                    file.close()
            self._file = None

    def _append_otherwise(self, line: bytes) -> None:
        """Put a line into a new file, or keep it in memory: the file is full, or lines wait for one."""
        with self._lock:
            # Behind what waits in memory, so that lines keep their order.
            if self._memory_size + len(line) > _MOST_IN_MEMORY:
                self.lost += 1
            else:
                self._memory.append(line)
                self._memory_size += len(line)
            self._write_memory()

    def _write_memory(self) -> None:
        if not self._opened:
            return
        try:
            while self._memory:
                self._write(self._memory[0])
                self._memory_size -= len(self._memory.popleft())
        except OSError as error:
            self._note_refusal(error.strerror or str(error))
        else:
            self._note_refusal("")

    def _write(self, line: bytes) -> None:
        if self._file is not None and self._file.append(line):
            return
        if self._refused and time.monotonic() < self._tried + self._retry:
            raise OSError(self._refused)
        self._tried = time.monotonic()
        if (len(self._full) + 2) * self._segment > self._most:
            raise OSError("the journal has reached its size limit")
        new = JournalFile.new(self.folder, max(self._segment, len(line) + 1))
        if self._file is not None:
            self._full.append(self._file)
        self._file = new
        new.append(line)

    def _note_refusal(self, reason: str) -> None:
        """Log that lines have to wait in memory from now on, or no longer have to; once each."""
        if reason and not self._refused:
            _log.warning("journal_full", reason=reason, meaning="calls wait in memory to be counted")
        elif self._refused and not reason:
            _log.info("journal_has_room", lost=self.lost)
        self._refused = reason


def _reserve(descriptor: int, room: int) -> None:
    """Take room on the disk, so that a full one is noticed now, and not by a signal when the mapped file is written."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, room)
    else:  # macOS
        os.pwrite(descriptor, bytes(room), 0)
