"""What tests of the Redis store share."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from app.sessions.redis.store import RedisSessionStore
from tests import redis_server as servers
from tests.redis_server import RedisServer
from tests.sessions.redis.helpers import PATIENCE
from tests.sessions.redis.wire import Wire

shared_redis, redis_server = servers.shared_redis, servers.redis_server
own_redis, persistent_redis = servers.own_redis, servers.persistent_redis

OpenStore = Callable[..., RedisSessionStore]


@pytest.fixture
async def open_store() -> AsyncIterator[OpenStore]:
    """Opens stores as different workers would; afterwards nothing may be left running."""
    stores: list[RedisSessionStore] = []

    def open_one(server: RedisServer | str, **options: Any) -> RedisSessionStore:
        url = server if isinstance(server, str) else server.url
        usual = {
            "max_sessions_per_caller": 1000,
            "time_to_live": 60,
            "lock_wait": PATIENCE,
            "lock_ttl": 60,
            "command_timeout": 10,
        }
        stores.append(RedisSessionStore(url, **(usual | options)))
        return stores[-1]

    yield open_one
    for store in stores:
        await store.aclose()
        assert store._lines == {}
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
async def wire(redis_server: RedisServer) -> AsyncIterator[Wire]:
    """An unreliable way to the shared server."""
    async with Wire(redis_server).running() as running:
        yield running


@pytest.fixture
def store(open_store: OpenStore, redis_server: RedisServer) -> RedisSessionStore:
    """A store on the shared server."""
    return open_store(redis_server)
