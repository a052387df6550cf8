"""The keys that are in use, in memory: a look-up is a look into a dict.

What has changed in the database is forgotten within a heartbeat, on every worker. Entries are only ever read from the
database, never written back: no late answer can bring an old one back to life.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from cachetools import TTLCache
from msgspec import Struct

from app.domain.caller import Caller
from app.domain.errors import InvalidApiKey, KeyStoreUnavailable
from app.keys.secret import is_well_formed
from app.storage.clock import now
from app.storage.database import Connection, Database, DatabaseAway
from app.storage.feed import ChangeFeed
from app.storage.keys import Found, StoredKey, find_by_digest

_MOST_KEYS = 10_000
_MOST_STRANGERS, _STRANGER_SECONDS = 10_000, 30
_MOST_LOOK_UPS = 16
# For one's turn to look up. Without a bound, all who come while the database hangs would wait behind each other.
_LONGEST_WAIT_SECONDS = 2.0
_RETRY_SECONDS = 2.0
_WHY = {
    "revoked": ("key_revoked", "This API key has been revoked."),
    "paused": ("key_paused", "This API key is paused."),
    "expired": ("key_expired", "This API key has expired."),
}


class _Entry(Struct, frozen=True):
    """What a digest opens.

    Args:
        caller: Whose key it is.
        refusal: Why it doesn't open; empty if it does.
        until: When it stops opening, in seconds since the epoch.
    """

    caller: Caller
    refusal: str
    until: float


class Keyring:
    """Finds the caller of a key that the gateway has given out.

    Args:
        database: Has the keys.
        feed: Tells what changes.
        known_for: Seconds for which keys that are in memory go on opening while the database is away.
        count: Told of each look-up: "hit" or "miss".

    Attributes:
        used: Digests of secrets that have opened; whoever notes that takes them out.
    """

    def __init__(
        self,
        database: Database,
        feed: ChangeFeed,
        *,
        known_for: float,
        count: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._database = database
        self._feed = feed
        self._known_for = known_for
        self._count = count
        # By digest, the oldest first. A plain dict: a hit is on every request's way.
        self._entries: dict[bytes, _Entry] = {}
        self._strangers: TTLCache[bytes, None] = TTLCache(_MOST_STRANGERS, _STRANGER_SECONDS)
        self._asked: dict[bytes, asyncio.Task[_Entry | None]] = {}
        self._turn = asyncio.Semaphore(_MOST_LOOK_UPS)
        self.used: set[bytes] = set()

    def caller(self, presented: bytes) -> Caller | None:
        """The caller of a key that opens and is in memory; None for any other key."""
        digest = hashlib.sha256(presented).digest()
        entry = self._entries.get(digest)
        if entry is None or entry.refusal or entry.until <= time.time():
            return None
        self.used.add(digest)
        self._count("hit")
        return entry.caller

    async def look_up(self, presented: bytes) -> Caller | None:
        """The caller of a key, from the database if it isn't in memory; None if the gateway has given out no such key.

        Raises:
            InvalidApiKey: It was given out, and doesn't open any more.
            KeyStoreUnavailable: The database is away, so nobody knows.
        """
        if not is_well_formed(presented):
            return None
        digest = hashlib.sha256(presented).digest()
        entry = self._entries.get(digest)
        if entry is None:
            if digest in self._strangers:
                return None
            self._count("miss")
            entry = await self._fetched_once(digest)
        if entry is None:
            return None
        refusal = entry.refusal or ("expired" if entry.until <= time.time() else "")
        if refusal:
            code, message = _WHY[refusal]
            invalid = InvalidApiKey(f"{message} Ask whoever gave it to you for another one.", code=code)
            invalid.caller = entry.caller
            raise invalid
        self.used.add(digest)
        return entry.caller

    async def _fetched_once(self, digest: bytes) -> _Entry | None:
        """Ask the database, together with everybody who asks for the same digest."""
        task = self._asked.get(digest)
        if task is None:
            task = self._asked[digest] = asyncio.create_task(self._fetched(digest))
            task.add_done_callback(lambda _: self._asked.pop(digest, None))
        try:
            # One client that leaves takes nothing from the others.
            return await asyncio.shield(task)
        except DatabaseAway:
            raise KeyStoreUnavailable(
                "API keys can't be checked at the moment; try again soon.", retry_after=_RETRY_SECONDS
            ) from None

    async def _fetched(self, digest: bytes) -> _Entry | None:
        async with self._taking_turns():
            while True:
                found = await self._database.run(
                    lambda connection: find_by_digest(connection, digest.hex()), reads=True
                )
                if found.change > self._feed.seen:
                    # A key's limits may be as new as it is: it must not open before they are known.
                    await self._feed.catch_up()
                # What was read before a change that is known by now may be older than it.
                if found.change >= self._feed.seen:
                    break
        if found.key is None:
            self._strangers[digest] = None
            return None
        entry = _entry(found.key, found)
        while len(self._entries) >= _MOST_KEYS:
            del self._entries[next(iter(self._entries))]
        self._entries[digest] = entry
        return entry

    @asynccontextmanager
    async def _taking_turns(self) -> AsyncGenerator[None, None]:
        """Wait for a turn to ask the database, and hold it.

        Raises:
            DatabaseAway: It is so slow that the turn doesn't come soon.
        """
        try:
            async with asyncio.timeout(_LONGEST_WAIT_SECONDS):
                await self._turn.acquire()
        except TimeoutError:
            raise DatabaseAway("too many look-ups wait for it") from None
        try:
            yield
        finally:
            self._turn.release()

    def read(self, connection: Connection, changed: frozenset[str] | None) -> None:
        """See `Follower`: entries are read again when they are needed."""

    def take(self, changed: frozenset[str] | None, found: None) -> None:  # noqa: ARG002 - a Follower's
        """See `Follower`."""
        if changed is None:
            self._entries.clear()
            return
        for digest in [digest for digest, entry in self._entries.items() if entry.caller.id in changed]:
            del self._entries[digest]

    def away(self, seconds: float) -> None:
        """See `Follower`."""
        if seconds > self._known_for:
            self._entries.clear()


def caller_of(key: StoredKey) -> Caller:
    """The caller of a key from the database."""
    return Caller(
        id=key.id,
        name=key.name,
        project=key.project,
        scopes=frozenset(key.scopes),  # type: ignore[arg-type]  # checked when they were written
        models=None if key.models is None else tuple([pattern.lower() for pattern in key.models]),
        expires_at=None if key.expires_at is None else key.expires_at / 1000,
    )


def _entry(key: StoredKey, found: Found) -> _Entry:
    ends = [time_ms / 1000 for time_ms in (key.expires_at, found.valid_until) if time_ms is not None]
    state = key.state(now())
    return _Entry(caller_of(key), "" if state == "active" else state, min(ends, default=float("inf")))
