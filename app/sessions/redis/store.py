"""Sessions in Redis, shared by all workers: one round trip to take a session, one to save its next turn.

Keys, with ids hashed so that no text in them can collide with another key:

    kimi:{caller}:index               when each session of the caller was saved (sorted set, ms)
    kimi:{caller}:fence               numbers the holders, so that each has its own token
    kimi:{caller}:session:ID          its writer's token, a line feed, the encoded session
    kimi:{caller}:lock:ID             the holder's token, while the holder is alive
    kimi:{caller}:queue:ID, seen:ID   owners that wait for the lock, in order, and when each last asked
    kimi:{caller}:keeper:ID           this client keeps its own history; outlives the session

The braces put all of a caller's keys on one node of a cluster, so that a script may use several of them.
"""

import asyncio
import random
import re
import secrets
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog
from msgspec import Struct

from app.domain.conversation import Session, SessionKey, SessionRecord
from app.domain.documents import UnreadableDocument
from app.domain.errors import SessionStoreUnavailable
from app.domain.spans import Trace, no_trace
from app.sessions.encoding import decode, encode
from app.sessions.line import Line, Place, busy
from app.sessions.redis.bounded_client import FIRST_PAUSE, LONGEST_VALUE, BoundedRedis, digest, milliseconds
from app.sessions.redis.scripts import DELETE, LIST, RELEASE, RENEW, REPLACE, SAVE, TAKE, Script
from app.sessions.redis.snapshots import RedisSnapshotStore

T = TypeVar("T")

# How long it is remembered after the last turn that a client keeps its own history.
_KEEPER_SECONDS = 30 * 24 * 3600.0

# A waiting owner polls with pauses between these two, in seconds. One that hasn't for `_TICKET_SECONDS` is gone.
_FIRST_POLL, _LONGEST_POLL = 0.01, 0.1
_TICKET_SECONDS = 1.0

_LISTED_AT_ONCE = 100
_MEMBER = re.compile(rb"[0-9a-f]{32}")

# The release of a lock is tried again after pauses of at most so many seconds.
_LONGEST_RELEASE_PAUSE = 1.0

# Larger sessions take more than half a millisecond to encode or decode, which is too long for the event loop.
_LARGE_CHARACTERS, _LARGE_BYTES = 32_000, 16_000


class RedisSessionStore:
    """A `SessionStore` that all workers share.

    Requests of one session take turns: within a process in a line, across processes in a queue in Redis, where each
    process has one place. A holder that dies loses the session after `lock_ttl`; one that was only believed dead can't
    overwrite what its successor has saved.

    Args:
        url: `redis://`, `rediss://` or `unix://`, with password and database as usual.
        max_sessions_per_caller: Beyond this number, a caller's oldest sessions are deleted.
        time_to_live: Seconds that a session is stored after its last turn.
        lock_wait: Seconds that a request waits for others of the same session.
        lock_ttl: Seconds after which a dead worker's sessions are released.
        connect_timeout: Seconds for a new connection.
        command_timeout: Seconds for a command, connecting included.
        key_prefix: The first part of every key.
        trace: Opens spans around taking and saving a session.

    Raises:
        ValueError: The URL or the prefix is invalid.
    """

    def __init__(
        self,
        url: str,
        *,
        max_sessions_per_caller: int,
        time_to_live: float,
        lock_wait: float,
        lock_ttl: float,
        connect_timeout: float = 1.0,
        command_timeout: float = 2.0,
        key_prefix: str = "kimi",
        trace: Trace = no_trace,
    ) -> None:
        if "{" in key_prefix:
            raise ValueError("The key prefix must not contain a brace: in a cluster it would scatter a caller's keys.")
        self.time_to_live = time_to_live
        self.lock_ttl = lock_ttl
        self._trace = trace
        self._lock_wait = lock_wait
        self._max_sessions = max_sessions_per_caller
        self._command_timeout = command_timeout
        self._prefix = key_prefix
        self._server = BoundedRedis(url, connect_timeout, command_timeout, probe_key=f"{key_prefix}:probe")
        self._lines: dict[SessionKey, Line] = {}
        self._commands: set[asyncio.Task[Any]] = set()
        self._renewals: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def hold(self, key: SessionKey) -> AsyncGenerator["_HeldInRedis", None]:
        """See `SessionStore.hold`."""
        deadline = asyncio.get_running_loop().time() + self._lock_wait
        place = Place(self._lines, key)
        try:
            with self._trace("session.take"):
                await place.come_first(deadline)
                self._server.check()
                held = _HeldInRedis(self, self._names(key), place)
                await held.take(deadline)
            try:
                yield held
            finally:
                await held.leave()
        finally:
            place.leave()

    async def load(self, key: SessionKey) -> Session | None:
        """See `SessionStore.load`."""
        (stored,) = await self._server.get([self._names(key).session])
        return await self.decoded(stored)

    async def replace(self, key: SessionKey, record: SessionRecord) -> None:
        """See `SessionStore.replace`."""
        self._server.check()
        names = self._names(key)
        keys = (names.session, names.keeper, names.index)
        await self.see_through(self._save_patiently(REPLACE, keys, names, secrets.token_hex(8).encode(), record))

    async def sessions_of(self, caller_id: str) -> Sequence[Session]:
        """See `SessionStore.sessions_of`."""
        caller = self._caller(caller_id)
        arguments = (milliseconds(self.time_to_live), self._max_sessions)
        members = await self._server.run(LIST, [f"{caller}:index"], *arguments)
        names = [f"{caller}:session:{member.decode()}" for member in members if _MEMBER.fullmatch(member)]
        sessions: list[Session] = []
        for start in range(0, len(names), _LISTED_AT_ONCE):
            stored = await self._server.get(names[start : start + _LISTED_AT_ONCE])
            sessions += [session for value in stored if (session := await self.decoded(value)) is not None]
        return sorted(sessions, key=lambda session: session.updated_at, reverse=True)

    async def start(self) -> None:
        """See `SessionStore.start`."""
        self._server.start()

    async def aclose(self) -> None:
        """See `SessionStore.aclose`. Saves and releases that are under way may finish within the command timeout."""
        for task in self._renewals:
            task.cancel()
        if self._commands:
            await asyncio.wait(self._commands, timeout=self._command_timeout)
        left = self._commands | self._renewals
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._server.aclose()

    def count(self) -> None:
        """See `SessionStore.count`."""

    def status(self) -> str:
        """See `SessionStore.status`."""
        return "ready" if self._server.is_up else "unavailable"

    def fault(self) -> str:
        """See `SessionStore.fault`."""
        return self._server.fault

    async def check(self) -> str:
        """See `SessionStore.check`."""
        return await self._server.describe()

    def snapshots(self, *, max_snapshots_per_caller: int, time_to_live: float) -> RedisSnapshotStore:
        """A snapshot store on the same server, usable while this store is open."""
        return RedisSnapshotStore(
            self._server,
            max_snapshots_per_caller=max_snapshots_per_caller,
            time_to_live=time_to_live,
            key_prefix=self._prefix,
        )

    # What follows is for `_HeldInRedis`.

    async def ask_to_take(self, names: "_KeyNames", owner: str) -> tuple[bytes, bytes | None, int] | None:
        """Run TAKE. Returns the token, the stored session and whether the client keeps its history; None to wait."""
        keys = (names.lock, names.queue, names.seen, names.fence, names.session, names.keeper)
        arguments = (owner, milliseconds(self.lock_ttl), milliseconds(_TICKET_SECONDS), milliseconds(_KEEPER_SECONDS))
        reply = await self._server.run(TAKE, keys, *arguments, LONGEST_VALUE)
        if reply is None:
            return None
        token, stored, keeps_history, replaced = reply
        if replaced:
            self._server.warn_unreadable("of another type")
        return token, self._server.as_value(stored), keeps_history

    async def save(self, names: "_KeyNames", token: bytes, record: SessionRecord) -> bool:
        """Save a record. Returns False if another owner has the lock."""
        with self._trace("session.save"):
            keys = (names.lock, names.session, names.keeper, names.index)
            return await self._save_patiently(SAVE, keys, names, token, record)

    async def _save_patiently(
        self, script: Script, keys: Sequence[str], names: "_KeyNames", token: bytes, record: SessionRecord
    ) -> bool:
        """Save, and try again within the command timeout: a server's hiccup must not lose a turn that took a minute."""
        keeper_ms = milliseconds(max(_KEEPER_SECONDS, self.time_to_live))
        arguments = (
            token,
            b"" if record.session is None else await _encoded(record.session),
            milliseconds(self.time_to_live),
            int(record.client_keeps_history),
            keeper_ms,
            names.member,
            self._max_sessions,
            names.sessions,
        )
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._command_timeout
        while True:
            try:
                return bool(await self._server.run(script, keys, *arguments, urgent=True))
            except SessionStoreUnavailable:
                if loop.time() + FIRST_PAUSE > deadline:
                    raise
            await asyncio.sleep(FIRST_PAUSE)

    async def delete(self, names: "_KeyNames", token: bytes) -> bool | None:
        """Delete a session. Returns whether there was one; None if another owner has the lock."""
        keys = (names.lock, names.session, names.index)
        reply: int = await self._server.run(DELETE, keys, token, names.member, urgent=True)
        return None if reply < 0 else bool(reply)

    async def release(self, names: "_KeyNames", owner: str) -> None:
        """Release the lock or the place in the queue. While the server can't be reached, go on trying in the
        background, until they have expired by themselves: the session's next turn would wait for that."""
        if not await self._try_to_release(names, owner, urgent=True):
            self.in_background(self._keep_releasing(names, owner))

    async def _keep_releasing(self, names: "_KeyNames", owner: str) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + max(self.lock_ttl, _TICKET_SECONDS)
        pause = FIRST_PAUSE
        while loop.time() < until:
            await asyncio.sleep(pause)
            # Not urgent: a server that is known to be down is probed by one task for all.
            if await self._try_to_release(names, owner, urgent=False):
                return
            pause = min(2 * pause, _LONGEST_RELEASE_PAUSE)

    async def _try_to_release(self, names: "_KeyNames", owner: str, *, urgent: bool) -> bool:
        try:
            await self._server.run(RELEASE, (names.lock, names.queue, names.seen), owner, urgent=urgent)
        except SessionStoreUnavailable:
            return False
        return True

    async def renew(self, names: "_KeyNames", token: bytes) -> bool:
        """Extend the lock. Returns False if it is known to be lost."""
        try:
            return bool(await self._server.run(RENEW, (names.lock,), token, milliseconds(self.lock_ttl), urgent=True))
        except SessionStoreUnavailable:
            return True

    async def decoded(self, stored: bytes | None) -> Session | None:
        """The session, or None if there is none or it can't be read."""
        if stored is None:
            return None
        data = stored.partition(b"\n")[2]
        try:
            return decode(data) if len(data) < _LARGE_BYTES else await asyncio.to_thread(decode, data)
        except UnreadableDocument as error:
            self._server.warn_unreadable(str(error))
            return None

    async def see_through(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something to its end, even if the caller is cancelled while waiting for it."""
        return await asyncio.shield(self.in_background(work))

    def in_background(self, work: Coroutine[Any, Any, T], *, renewal: bool = False) -> asyncio.Task[T]:
        """Run something that nobody needs to wait for, except `aclose`."""
        tasks = self._renewals if renewal else self._commands
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    def _caller(self, caller_id: str) -> str:
        return f"{self._prefix}:{{{digest(caller_id)}}}"

    def _names(self, key: SessionKey) -> "_KeyNames":
        return _KeyNames(self._caller(key.caller_id), digest(key.session_id))


class _HeldInRedis:
    """A `HeldSession`. Saving and deleting release it in the same round trip."""

    def __init__(self, store: RedisSessionStore, names: "_KeyNames", place: Place) -> None:
        self.record = SessionRecord()
        self._store = store
        self._names = names
        self._place = place
        self._owner = secrets.token_hex(8)
        self._token = b""
        self._released = False
        # Keeps commands in order, even those that outlive the request.
        self._in_order = asyncio.Lock()
        self._renewal: asyncio.TimerHandle | asyncio.Task[None] | None = None

    async def take(self, deadline: float) -> None:
        """Take the lock and read the record. On failure, leave no trace in the queue."""
        try:
            token, stored, keeps_history = await self._wait_for_lock(deadline)
            self._token = token
            self.record = SessionRecord(await self._store.decoded(stored), bool(keeps_history))
        except BaseException:
            self._store.in_background(self._release())
            raise
        self._renewal = asyncio.get_running_loop().call_later(self._store.lock_ttl / 3, self._begin_renewing)

    async def save(self, record: SessionRecord) -> None:
        """See `HeldSession.save`."""
        await self._store.see_through(self._save(record))

    async def delete(self) -> bool:
        """See `HeldSession.delete`."""
        return await self._store.see_through(self._delete())

    async def leave(self) -> None:
        """Release the session, unless that has been done."""
        self._stop_renewing()
        if self._released:
            return
        releasing = self._store.in_background(self._release())
        # Don't wait for a server that is down.
        if self._store.status() == "ready":
            await asyncio.shield(releasing)

    async def _wait_for_lock(self, deadline: float) -> tuple[bytes, bytes | None, int]:
        loop = asyncio.get_running_loop()
        pause = _FIRST_POLL
        while True:
            taken = await self._store.see_through(self._ask_to_take())
            if taken is not None:
                return taken
            left = deadline - loop.time()
            if left <= 0:
                raise busy()
            await asyncio.sleep(min(left, pause * random.uniform(0.5, 1.0)))  # noqa: S311 - spreads several owners' polls
            pause = min(pause * 2, _LONGEST_POLL)

    async def _ask_to_take(self) -> tuple[bytes, bytes | None, int] | None:
        async with self._in_order:
            return await self._store.ask_to_take(self._names, self._owner)

    async def _save(self, record: SessionRecord) -> None:
        async with self._in_order:
            self._check_held()
            kept = await self._store.save(self._names, self._token, record)
            self._note_released()
        if not kept:
            # Even if the client has gone, the operator should learn that locks expire too early.
            structlog.get_logger("kimi.sessions").warning("session.turn_not_kept", reason="the lock was lost")
            raise SessionStoreUnavailable(
                "The turn was not saved: the session's lock expired, and another request took the session over."
            )

    async def _delete(self) -> bool:
        async with self._in_order:
            self._check_held()
            existed = await self._store.delete(self._names, self._token)
            self._note_released()
        if existed is None:
            raise SessionStoreUnavailable("The session's lock was lost during the deletion; check if it still exists.")
        return existed

    async def _release(self) -> None:
        async with self._in_order:
            if not self._released:
                await self._store.release(self._names, self._owner)
                self._note_released()

    def _check_held(self) -> None:
        if self._released:
            raise RuntimeError("The first save or delete releases a held session; there can be no second one.")

    def _note_released(self) -> None:
        self._released = True
        self._stop_renewing()
        self._place.leave()

    def _begin_renewing(self) -> None:
        self._renewal = self._store.in_background(self._keep_renewing(), renewal=True)

    async def _keep_renewing(self) -> None:
        """Keep the lock for as long as the worker is alive, however long the upstream takes."""
        while True:
            if not await self._store.renew(self._names, self._token):
                return
            await asyncio.sleep(self._store.lock_ttl / 3)

    def _stop_renewing(self) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None


class _KeyNames(Struct, frozen=True):
    """The names of one session's keys: all begin with `caller`, and `member` is the session's hashed id."""

    caller: str
    member: str

    @property
    def index(self) -> str:
        return f"{self.caller}:index"

    @property
    def fence(self) -> str:
        return f"{self.caller}:fence"

    @property
    def sessions(self) -> str:
        return f"{self.caller}:session:"

    @property
    def session(self) -> str:
        return f"{self.caller}:session:{self.member}"

    @property
    def lock(self) -> str:
        return f"{self.caller}:lock:{self.member}"

    @property
    def queue(self) -> str:
        return f"{self.caller}:queue:{self.member}"

    @property
    def seen(self) -> str:
        return f"{self.caller}:seen:{self.member}"

    @property
    def keeper(self) -> str:
        return f"{self.caller}:keeper:{self.member}"


async def _encoded(session: Session) -> bytes:
    if session.characters < _LARGE_CHARACTERS:
        return encode(session)
    return await asyncio.to_thread(encode, session)
