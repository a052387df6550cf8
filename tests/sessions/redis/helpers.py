"""What tests of the Redis store do again and again."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable

from app.domain.chat import Message, Usage
from app.domain.conversation import LastTurn, Session, SessionKey, SessionRecord
from app.domain.errors import SessionStoreUnavailable
from app.sessions.redis import bounded_client
from app.sessions.redis.store import RedisSessionStore
from tests.redis_server import RedisServer

ADA, BEN, CLEO = (SessionKey("alice", name) for name in ("ada", "ben", "cleo"))
PATIENCE = 60.0


def session(session_id: str, *texts: str, updated_at: float = 0.0) -> Session:
    turns = tuple(Message("user", text) for text in texts)
    last = LastTurn("f", None, "Hello", "stop", Usage(1, 2), 3, 4, 5, updated_at)
    return Session(session_id, 0.0, updated_at, (), turns, last)


async def keep(store: RedisSessionStore, key: SessionKey, *texts: str) -> Session:
    kept = session(key.session_id, *texts)
    async with store.hold(key) as held:
        await held.save(SessionRecord(kept))
    return kept


async def append(store: RedisSessionStore, key: SessionKey, text: str) -> None:
    async with store.hold(key) as held:
        known = held.record.session
        texts = [message.text for message in known.turns] if known else []
        await asyncio.sleep(0)
        await held.save(SessionRecord(session(key.session_id, *texts, text)))


async def texts_of(store: RedisSessionStore, key: SessionKey) -> list[str]:
    kept = await store.load(key)
    return [message.text for message in kept.turns] if kept else []


async def eventually(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not check():  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.005)


async def until_it_works(ask: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await ask()
            except SessionStoreUnavailable:
                await asyncio.sleep(0.005)
            else:
                return


def keys_of(server: RedisServer, pattern: str) -> list[str]:
    with server.client() as client:
        return sorted(client.keys(f"kimi:*:{pattern}:*"))


def only(keys: list[str]) -> str:
    (key,) = keys
    return key


def asked(server: RedisServer) -> int:
    """How many commands of the store the server has seen since it was asked to count."""
    with server.client() as client:
        counts = client.info("commandstats")
    return sum(counts.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval", "mget"))


def name_in_keys(session_id: str) -> str:
    return bounded_client.digest(session_id)


def fence_of(token: object) -> int:
    return int(str(token).partition(":")[0])


async def hold_and_leave(store: RedisSessionStore, key: SessionKey) -> None:
    async with store.hold(key):
        pass


def is_discreet(error: BaseException, *secrets: str) -> None:
    """Nothing of the secrets is in the error, or in what a traceback would show besides lines of code."""
    chain = [error]
    while (
        cause := chain[-1].__cause__ or (None if chain[-1].__suppress_context__ else chain[-1].__context__)
    ) is not None:
        chain.append(cause)
    shown = "".join(line for link in chain for line in traceback.format_exception_only(link)) + repr(vars(error))
    assert [secret for secret in secrets if secret in shown] == []
