"""A Redis client with bounded waits, and the border where redis-py's errors end."""

import asyncio
import contextlib
import hashlib
import os
import random
import secrets
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from functools import partial
from typing import Any, TypeVar

import structlog
from redis import exceptions as refusals
from redis.asyncio import ConnectionPool, Redis

from app.domain.errors import SessionStoreUnavailable
from app.sessions.redis.scripts import READ, Script

T = TypeVar("T")

# While the server is down, it is probed after pauses between these two (in seconds), and requests fail at once.
FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0

_CONNECTIONS = 32
_HARMLESS_POLICIES = ("noeviction", "volatile-ttl")
_LONGEST_WORDS = 100

# Nothing that the gateway stores is larger.
LONGEST_VALUE = 32 * 1024 * 1024
# What can't be read is logged no more often.
_WARNING_SECONDS = 60.0

# What redis-py lets through besides its own errors: those of sockets, of streams, and of uvloop for a closed transport.
_FAULTS = (refusals.RedisError, OSError, EOFError, RuntimeError)
_BROKEN_CONNECTION = (refusals.ConnectionError, ConnectionError, EOFError, RuntimeError)

# What is said about a fault. The most specific kind comes first.
_REASONS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (refusals.BusyLoadingError, "is still loading its data"),
    (
        (refusals.AuthenticationError, refusals.AuthorizationError, refusals.NoPermissionError),
        "refuses the gateway's credentials",
    ),
    ((refusals.TimeoutError, TimeoutError), "does not answer in time"),
    (refusals.OutOfMemoryError, "is out of memory"),
    (refusals.ReadOnlyError, "accepts no writes"),
    (refusals.ResponseError, "refuses the gateway's commands"),
    (Exception, "can't be reached"),
)


class BoundedRedis:
    """Runs commands, each within a bounded time.

    After a failure nobody waits for the server: a task probes it until it is back, and meanwhile commands fail at once.
    `urgent` commands, on which a finished turn depends, are tried all the same.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        connect_timeout: Seconds for a new connection.
        command_timeout: Seconds for a command, connecting included.
        probe_key: The key that probes write to.

    Raises:
        ValueError: The URL is invalid.
    """

    def __init__(self, url: str, connect_timeout: float, command_timeout: float, *, probe_key: str) -> None:
        self._pool = _pool(url, connect_timeout)
        self._client = Redis(connection_pool=self._pool)
        # Not redis-py's BlockingConnectionPool: it loses the connection of a task that is cancelled while returning it.
        self._slots = asyncio.Semaphore(_CONNECTIONS)
        self._command_timeout = command_timeout
        self._probe_key = probe_key
        self._log = structlog.get_logger("kimi.sessions")
        self._failure: str | None = None
        self._fault = ""
        self._was_up = False
        self._closed = False
        self._next_warning = 0.0
        self._watch: asyncio.Task[None] | None = None

    @property
    def fault(self) -> str:
        """Why the last command failed, for the operator; empty if it didn't."""
        return self._fault if self._failure is not None else ""

    async def describe(self) -> str:
        """Try what sessions need, and describe the server.

        Raises:
            SessionStoreUnavailable: It can't be used.
        """
        key, value = f"{self._probe_key}:{secrets.token_hex(4)}", secrets.token_bytes(8)
        await self._ask(partial(self._client.set, key, value, px=10_000), urgent=True)
        if await self._ask(partial(self._client.getdel, key), urgent=True) != value:
            return "a server that forgets at once what it is told to keep"
        about: Any = await self._ask(self._client.info, urgent=True)
        policy, limit = str(about.get("maxmemory_policy", "")), int(about.get("maxmemory") or 0)
        text = f"Redis {about.get('redis_version', 'of unknown version')}"
        if limit and policy not in _HARMLESS_POLICIES:
            text += f"; its maxmemory-policy {policy} may drop sessions early (volatile-ttl or noeviction is better)"
        return text

    @property
    def is_up(self) -> bool:
        """Whether the last command succeeded."""
        return self._was_up and self._failure is None

    async def run(
        self, script: Script, keys: Sequence[str], *arguments: bytes | str | int, urgent: bool = False
    ) -> Any:
        """Run a script and return its result.

        Raises:
            SessionStoreUnavailable: It is unknown whether the script ran.
        """
        return await self._ask(partial(self._evaluate, script, (*keys, *arguments), len(keys)), urgent=urgent)

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values of some keys, None where there is none. See `as_value`.

        Raises:
            SessionStoreUnavailable: They can't be read.
        """
        replaced, values = await self.run(READ, keys, LONGEST_VALUE)
        if replaced:
            self.warn_unreadable("of another type")
        return [self.as_value(value) for value in values]

    def as_value(self, value: bytes) -> bytes | None:
        """What a `GETRANGE` up to `LONGEST_VALUE` has read; None if there is nothing, or too much, which is logged."""
        if len(value) > LONGEST_VALUE:
            self.warn_unreadable("too large")
            return None
        return value or None

    def warn_unreadable(self, reason: str) -> None:
        """Log that something in the store isn't the gateway's, or can't be read by this version: now and then."""
        now = time.monotonic()
        if now >= self._next_warning:
            self._next_warning = now + _WARNING_SECONDS
            self._log.warning("session.unreadable", reason=reason, meaning="it counts as missing, and is overwritten")

    def start(self) -> None:
        """Start probing the server, without waiting for it."""
        self._look_for_it(0.0)

    def check(self) -> None:
        """Raise SessionStoreUnavailable if the server is known to be down."""
        if self._failure is not None:
            raise _unavailable(self._failure)

    async def aclose(self) -> None:
        """Close all connections. Commands fail from here on."""
        self._closed = True
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        with contextlib.suppress(*_FAULTS):
            await self._pool.aclose()

    async def _evaluate(self, script: Script, arguments: Sequence[bytes | str | int], key_count: int) -> Any:
        try:
            return await self._client.evalsha(script.digest, key_count, *arguments)
        except refusals.NoScriptError:
            # The server has restarted and lost its scripts; `eval` also caches this one again.
            return await self._client.eval(script.text, key_count, *arguments)

    async def _ask(self, command: Callable[[], Awaitable[T]], *, urgent: bool = False) -> T:
        if self._closed:
            raise SessionStoreUnavailable("The gateway is shutting down.")
        if not urgent:
            self.check()
        try:
            async with asyncio.timeout(self._command_timeout), self._slots:
                try:
                    answer = await command()
                except _BROKEN_CONNECTION:
                    # Most likely the connection broke while it was idle. Every command may safely be sent twice.
                    answer = await command()
        except _FAULTS as fault:
            # Not chained: these errors quote addresses and commands.
            raise self._note_failure(fault) from None
        self._note_success()
        return answer

    def _note_failure(self, fault: Exception) -> SessionStoreUnavailable:
        reason = next(text for kind, text in _REASONS if isinstance(fault, kind))
        self._fault = _fault(reason, fault)
        if self._failure is None:
            self._log.warning("session_store.unavailable", reason=self._fault, kind=type(fault).__name__)
        self._failure = reason
        self._look_for_it(FIRST_PAUSE)
        return _unavailable(reason)

    def _note_success(self) -> None:
        if not self.is_up:
            self._log.info("session_store.ready")
        self._was_up, self._failure = True, None

    def _look_for_it(self, pause: float) -> None:
        if not self._closed and (self._watch is None or self._watch.done()):
            # In an empty context: what it logs belongs to no request.
            self._watch = asyncio.get_running_loop().create_task(self._look(pause), context=Context())

    async def _look(self, pause: float) -> None:
        while True:
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - spreads the probes of several workers
            with contextlib.suppress(*_FAULTS):
                await self._pool.disconnect(inuse_connections=False)
            # A write: a server that is full or read-only is of no use.
            with contextlib.suppress(SessionStoreUnavailable):
                await self._ask(partial(self._client.set, self._probe_key, b"", px=1000), urgent=True)
            if self._failure is None:
                return
            pause = min(max(pause * 2, FIRST_PAUSE), _LONGEST_PAUSE)


def _pool(url: str, connect_timeout: float) -> ConnectionPool:
    try:
        pool = ConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            # Commands are bounded as a whole; redis-py would spend another task on a timeout of its own.
            socket_timeout=None,
            socket_connect_timeout=connect_timeout,
            # RESP3 would only add push messages, which nobody reads, and a longer handshake.
            protocol=2,
            driver_info=None,
        )
        # Sessions are bytes, whatever the URL says.
        pool.connection_kwargs["decode_responses"] = False
        pool.connection_class(**pool.connection_kwargs)
    except (ValueError, TypeError, refusals.RedisError):
        # Not chained: these errors quote parts of the URL.
        raise ValueError("The Redis URL is invalid; expected redis://[[user]:password@]host[:port][/db].") from None
    return pool


def _fault(reason: str, error: BaseException | None) -> str:
    """The reason, with what the system, the resolver, OpenSSL or the server says. None of these quotes a password."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"{reason}: certificate not trusted ({error.verify_message})"
        if isinstance(error, socket.gaierror):
            return f"{reason}: name not found"
        if isinstance(error, OSError) and error.errno:
            # redis-py's own numbers stand in front of the words of several attempts.
            return f"{reason}: {os.strerror(abs(error.errno)).lower()}"
        if isinstance(error, refusals.ResponseError | refusals.AuthenticationError):
            # An unknown command is quoted with its arguments.
            return f"{reason}: {str(error).partition(', with args')[0][:_LONGEST_WORDS]}"
        error = error.__cause__ or error.__context__
    return reason


def _unavailable(reason: str) -> SessionStoreUnavailable:
    return SessionStoreUnavailable(f"The session store {reason}.", retry_after=1.0)


def digest(text: str) -> str:
    """Hash an id for use in a key, so that no text in it can collide with another key."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def milliseconds(seconds: float) -> int:
    """Convert a time to live to Redis's unit."""
    return max(1, round(seconds * 1000))
