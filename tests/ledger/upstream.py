"""The scripted upstream of `tests.providers`, for tests that don't run in an event loop of their own."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.providers.openai_compatible.upstream import RawUpstream, raw_upstream


@contextmanager
def upstream_in_thread() -> Iterator[RawUpstream]:
    """Serve it from a thread of its own until the context ends. What it answers may be changed at any time."""
    started = threading.Event()
    running: list[RawUpstream] = []
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()

    async def serve() -> None:
        async with raw_upstream(()) as upstream:
            running.append(upstream)
            started.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield running[0]
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(30)
        loop.close()


def answers(upstream: RawUpstream, *scripts: Sequence[bytes], hold: bool = False) -> None:
    """Answer the next requests so, the last one's way for ever.

    Args:
        hold: The connection stays open after the last piece, until the client leaves.
    """
    upstream.answers = list(scripts)
    upstream.hold = asyncio.Event() if hold else None
