"""Sessions and snapshots in this process's memory: fast, and lost when it ends."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Self

from cachetools import LRUCache, TTLCache

from app.domain.conversation import Session, SessionKey, SessionRecord
from app.domain.errors import SessionStoreUnavailable
from app.domain.spans import Trace, no_trace
from app.sessions.base import SnapshotKey
from app.sessions.line import Line, Place

# Clients that keep their own history are remembered longer than any session; each takes only a few bytes.
_HISTORY_KEEPERS_PER_SESSION = 10
# The memory that is allowed for each of `max_snapshots` (few are larger), and what one takes besides its bytes.
_SNAPSHOT_BYTES = 8 * 1024
_SNAPSHOT_OVERHEAD = 256


class MemorySessionStore:
    """A `SessionStore` on a TTLCache. When it is full, the least recently used session is dropped.

    Args:
        max_sessions: The most sessions that are stored.
        time_to_live: Seconds that a session is kept after its last turn.
        lock_wait: Seconds that a request waits for another one of the same session.
        clock: Replaced by tests that let time pass.
        trace: Opens a span where a request waits.
    """

    def __init__(
        self,
        *,
        max_sessions: int,
        time_to_live: float,
        lock_wait: float,
        clock: Callable[[], float] = time.monotonic,
        trace: Trace = no_trace,
    ) -> None:
        self.time_to_live = time_to_live
        self._trace = trace
        self._lock_wait = lock_wait
        self._sessions: TTLCache[SessionKey, Session] = TTLCache(max_sessions, time_to_live, timer=clock)
        self._history_keepers: LRUCache[SessionKey, bool] = LRUCache(max_sessions * _HISTORY_KEEPERS_PER_SESSION)
        self._lines: dict[SessionKey, Line] = {}

    def hold(self, key: SessionKey) -> "_HeldInMemory":
        """See `SessionStore.hold`."""
        return _HeldInMemory(self, key)

    async def load(self, key: SessionKey) -> Session | None:
        """See `SessionStore.load`."""
        return self._session(key)

    async def replace(self, key: SessionKey, record: SessionRecord) -> None:
        """See `SessionStore.replace`."""
        self.save(key, record)

    def record(self, key: SessionKey) -> SessionRecord:
        """Everything that is stored under a key."""
        return SessionRecord(self._session(key), self._history_keepers.get(key, False))

    def save(self, key: SessionKey, record: SessionRecord) -> None:
        """Store a record."""
        if record.session is not None:
            self._sessions[key] = record.session
        if record.client_keeps_history:
            self._history_keepers[key] = True

    def delete(self, key: SessionKey) -> bool:
        """Delete a session. Returns whether there was one."""
        return self._sessions.pop(key, None) is not None

    def place(self, key: SessionKey) -> Place:
        """Take a place in a session's line."""
        return Place(self._lines, key)

    async def turn_of(self, place: Place) -> None:
        """Wait until a place is first in its line."""
        with self._trace("session.take"):
            await place.come_first(asyncio.get_running_loop().time() + self._lock_wait)

    async def sessions_of(self, caller_id: str) -> Sequence[Session]:
        """See `SessionStore.sessions_of`."""
        self._sessions.expire()
        own = [self._sessions.get(key) for key in list(self._sessions) if key.caller_id == caller_id]
        return sorted((session for session in own if session), key=lambda session: session.updated_at, reverse=True)

    def _session(self, key: SessionKey) -> Session | None:
        # Not `get`, which looks the key up twice, and reads the clock each time.
        try:
            return self._sessions[key]
        except KeyError:
            return None

    async def start(self) -> None:
        """Nothing to open."""

    async def aclose(self) -> None:
        """Nothing to close."""

    def count(self) -> int:
        """See `SessionStore.count`."""
        return len(self._sessions)

    def fault(self) -> str:
        """See `SessionStore.fault`."""
        return ""

    async def check(self) -> str:
        """See `SessionStore.check`."""
        return "in this process's memory"

    def status(self) -> str:
        """See `SessionStore.status`."""
        return "ready"


class _HeldInMemory:
    """A `HeldSession` as a context manager. A class because `asynccontextmanager` takes several times as long."""

    __slots__ = ("_key", "_place", "_store", "record")

    def __init__(self, store: MemorySessionStore, key: SessionKey) -> None:
        self._store = store
        self._key = key

    async def __aenter__(self) -> Self:
        self._place = place = self._store.place(self._key)
        if not place.is_first:
            await self._store.turn_of(place)
        self.record = self._store.record(self._key)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._place.leave()

    async def save(self, record: SessionRecord) -> None:
        self._store.save(self._key, record)

    async def delete(self) -> bool:
        return self._store.delete(self._key)


class MemorySnapshotStore:
    """A `SnapshotStore` on a TTLCache, bounded in bytes: the larger the snapshots, the fewer are stored.

    Args:
        max_snapshots: The most that are stored, if they are of usual size.
        time_to_live: Seconds that each is stored.
        clock: Replaced by tests that let time pass.
    """

    def __init__(self, *, max_snapshots: int, time_to_live: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._snapshots: TTLCache[SnapshotKey, bytes] = TTLCache(
            max_snapshots * _SNAPSHOT_BYTES, time_to_live, timer=clock, getsizeof=_snapshot_size
        )
        self._max_snapshots = max_snapshots

    async def load(self, key: SnapshotKey) -> bytes | None:
        """See `SnapshotStore.load`."""
        return self._snapshots.get(key)

    async def save(self, key: SnapshotKey, data: bytes) -> None:
        """See `SnapshotStore.save`.

        Raises:
            SessionStoreUnavailable: The snapshot is larger than the memory for all snapshots.
        """
        try:
            self._snapshots[key] = data
        except ValueError as error:
            raise SessionStoreUnavailable("The response is too large to be stored.") from error
        while len(self._snapshots) > self._max_snapshots:
            self._snapshots.popitem()

    async def delete(self, key: SnapshotKey) -> bool:
        """See `SnapshotStore.delete`."""
        return self._snapshots.pop(key, None) is not None


def _snapshot_size(data: bytes) -> int:
    return len(data) + _SNAPSHOT_OVERHEAD
