"""The journal: a file to which every finished call appends a line, and which survives the process.

A call never waits for the database. A line is one `write` into the page cache (some 2 us): `kill -9` loses nothing, a
loss of power the last seconds. Where even the disk takes no more, lines stay in memory, up to a bound, and what would
go beyond that is counted as lost.
"""

import fcntl
import os
import secrets
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import structlog

_log = structlog.get_logger("kimi.ledger")

_SUFFIX = ".journal"
_MOST_IN_MEMORY = 8 * 1024 * 1024
_CHUNK = 1024 * 1024


class JournalFile:
    """A journal that this process holds: nobody else carries it over.

    Args:
        path: Its file, whose name is the journal's id.
        descriptor: The open, locked file.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.id = path.name.removesuffix(_SUFFIX)
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    @classmethod
    def new(cls, folder: Path) -> "JournalFile":
        """Make a journal.

        Raises:
            OSError: The folder can't be written to.
        """
        folder.mkdir(parents=True, exist_ok=True)
        # Nobody may know an id twice: the database would take one journal for the other.
        path = folder / f"{secrets.token_hex(8)}{_SUFFIX}"
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return cls(path, descriptor)

    @classmethod
    def left_behind(cls, folder: Path) -> Iterator["JournalFile"]:
        """Take over the journals of processes that are gone."""
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            with suppress(OSError):
                descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.stat()  # deleted since we opened it?
                except OSError:
                    os.close(descriptor)
                else:
                    yield cls(path, descriptor)

    def append(self, line: bytes) -> None:
        """Write a line as a whole, or not at all.

        Raises:
            OSError: The disk takes no more.
        """
        written = os.write(self._descriptor, line)
        if written != len(line):
            os.ftruncate(self._descriptor, self.size)
            raise OSError("the disk is full")
        self.size += written

    def read(self, begin: int) -> bytes:
        """Read whole lines from a position on, up to 1 MiB; empty at the end."""
        data = os.pread(self._descriptor, _CHUNK, begin)
        # A line that its writer could not finish has no end.
        return data[: data.rfind(b"\n") + 1]

    def delete(self) -> None:
        """Delete the file, and let go of it."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of the file: somebody else may carry it over."""
        os.close(self._descriptor)


class Journal:
    """Where calls put their lines. Until it is opened they wait in memory.

    Args:
        folder: Where the files are, on a disk of this machine.
        segment: Bytes after which a new file is begun.
        most: Bytes that the files may have together; then the disk counts as full.

    Attributes:
        appended: Lines that were put in.
        lost: Lines that neither disk nor memory had room for.
    """

    def __init__(self, folder: Path, *, most: int, segment: int = 16 * 1024 * 1024) -> None:
        self.folder = folder
        self._most = most
        self._segment = segment
        self._file: JournalFile | None = None
        self._full: list[JournalFile] = []
        self._lock = threading.Lock()
        self._memory: deque[bytes] = deque()
        self._memory_size = 0
        self.appended = 0
        self.lost = 0

    def open(self) -> None:
        """Begin a file.

        Raises:
            OSError: The folder can't be written to.
        """
        with self._lock:
            self._file = JournalFile.new(self.folder)

    def append(self, line: bytes) -> None:
        """Put a line in. Never fails and never waits for more than the page cache."""
        with self._lock:
            self.appended += 1
            if not self._memory:
                try:
                    self._write(line)
                except OSError as error:
                    _log.warning("journal_write_failed", reason=error.strerror or str(error), meaning="kept in memory")
                else:
                    return
            # Behind what waits in memory, so that lines keep their order.
            if self._memory_size + len(line) > _MOST_IN_MEMORY:
                self.lost += 1
            else:
                self._memory.append(line)
                self._memory_size += len(line)

    def files(self) -> list[JournalFile]:
        """The files with lines to be carried over, the oldest first. The last one still grows."""
        with self._lock:
            self._write_memory()
            if self._file is None:
                return []
            if self._file.size >= self._segment:
                with suppress(OSError):
                    new = JournalFile.new(self.folder)
                    self._full.append(self._file)
                    self._file = new
            return [*self._full, self._file]

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

    def done(self, file: JournalFile) -> None:
        """Delete a full file that has been carried over."""
        file.delete()
        with self._lock:
            self._full.remove(file)

    def discard(self) -> None:
        """Delete the file, which has nothing in it."""
        if self._file is not None:
            self._file.delete()
            self._file = None

    def close(self) -> None:
        """Let go of all files; whoever comes next carries over what is left."""
        with self._lock:
            self._write_memory()
            for file in (*self._full, *([self._file] if self._file else [])):
                file.close()

    def _write(self, line: bytes) -> None:
        if self._file is None:
            raise OSError("the journal is not open")
        if self._file.size + len(self._full) * self._segment >= self._most:
            raise OSError("the journal has reached its size limit")
        self._file.append(line)

    def _write_memory(self) -> None:
        with suppress(OSError):
            while self._memory:
                self._write(self._memory[0])
                self._memory_size -= len(self._memory.popleft())
