"""So many requests at an upstream at once, and a bounded, fair queue in front of it."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from app.domain.errors import GatewayOverloaded
from app.domain.tracing import Trace, no_trace

# What a client that was turned away is asked to wait, in seconds.
_RETRY_AFTER = 5


class Bulkhead:
    """Hands out slots. Those who wait are served caller by caller in turn, so that none can starve the others.

    Args:
        slots: How many requests may be at the upstream at once.
        queue_size: How many more may wait.
        queue_timeout: For how many seconds one may wait.
        trace: Marks the waiting.
    """

    def __init__(self, *, slots: int, queue_size: int, queue_timeout: float, trace: Trace = no_trace) -> None:
        self._free = slots
        self._queue_size = queue_size
        self._queue_timeout = queue_timeout
        self._trace = trace
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._queued = 0

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return self._queued

    @property
    def free(self) -> int:
        """How many slots nobody uses."""
        return self._free

    @asynccontextmanager
    async def slot(self, caller_id: str, *, at_most: float) -> AsyncGenerator[None, None]:
        """Hold a slot, waiting for one if need be: no longer than `at_most` seconds, and than any may wait.

        Raises:
            GatewayOverloaded: The queue is full, or the wait was too long.
        """
        if self._free > 0 and not self._queued:
            self._free -= 1
        else:
            await self._wait(caller_id, min(at_most, self._queue_timeout))
        try:
            yield
        finally:
            self._release()

    async def _wait(self, caller_id: str, seconds: float) -> None:
        if self._queued >= self._queue_size:
            raise GatewayOverloaded("Too many requests are waiting for the upstream.", retry_after=_RETRY_AFTER)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller_id, deque()).append(turn)
        self._queued += 1
        try:
            with self._trace("queue"):
                async with asyncio.timeout(seconds):
                    await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._release()  # the slot came in the same moment: it goes to the next
            else:
                self._forget(caller_id, turn)
            if isinstance(error, TimeoutError):
                raise GatewayOverloaded(
                    "The request waited too long for its turn at the upstream.", retry_after=_RETRY_AFTER
                ) from error
            raise

    def _forget(self, caller_id: str, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(caller_id)
        if turns is None or turn not in turns:
            return  # passed over already
        turns.remove(turn)
        self._queued -= 1
        if not turns:
            del self._waiting[caller_id]

    def _release(self) -> None:
        while self._waiting:
            caller_id, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            self._queued -= 1
            if turns:
                self._waiting[caller_id] = turns  # to the end of the row: the others come first
            if not turn.done():  # one that has just given up is still in the row
                turn.set_result(None)
                return
        self._free += 1
