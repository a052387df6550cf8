"""Which connections are kept, and which of them is used next."""

import asyncio

from tests.providers.http.server import client, reply, server


async def test_the_last_used_connection_is_used_first_and_old_ones_not_at_all() -> None:
    """As many as needed at once, one after the other the same, none that has waited too long."""
    async with server(reply()) as upstream, client() as http:
        await asyncio.gather(*(http.get(upstream.url, {}) for _ in range(5)))
        pool = http._opened
        assert (upstream.connections, pool.idle, pool.in_use) == (5, 5, 0)
        (waiting,) = pool._idle.values()
        for connection in waiting[:3]:
            connection.idle_since -= 15
        pool._drop_old()
        assert pool.idle == 2
        last = waiting[-1]
        await http.get(upstream.url, {})
        assert (upstream.connections, waiting[-1]) == (5, last)
        async with http.stream_json(upstream.url, b"{}", {}):
            assert last not in waiting
        for connection in waiting:
            connection.idle_since -= 15
        await http.get(upstream.url, {})
        assert (upstream.connections, pool.idle) == (6, 1)
