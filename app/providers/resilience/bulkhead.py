"""So many requests at an upstream at once, and a bounded, fair queue in front of it."""

import asyncio
from collections import OrderedDict, deque
from types import TracebackType

from app.domain.errors import GatewayOverloaded
from app.domain.spans import Trace, no_trace

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

    def slot(self, caller_id: str, *, at_most: float) -> "Slot":
        """A slot, to be held in an `async with` statement.

        Args:
            caller_id: Whose it is, for fair shares.
            at_most: Seconds to wait for it, if need be; no longer than any may wait.
        """
        return Slot(self, caller_id, at_most)

    def take(self) -> bool:
        """Take a slot if one is free and nobody waits; `release` gives it back."""
        free = self._free > 0 and not self._queued
        self._free -= free
        return free

    async def wait(self, caller_id: str, seconds: float) -> None:
        """Wait for a slot; `release` gives it back.

        Raises:
            GatewayOverloaded: The queue is full, or the wait was too long.
        """
        if self._queued >= self._queue_size:
            raise GatewayOverloaded("Too many requests are waiting for the upstream.", retry_after=_RETRY_AFTER)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller_id, deque()).append(turn)
        self._queued += 1
        try:
            with self._trace("queue"):
                async with asyncio.timeout(min(seconds, self._queue_timeout)):
                    await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.release()  # the slot came in the same moment: it goes to the next
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

    def release(self) -> None:
        """Hand a slot on to the next in turn."""
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


class Slot:
    """A slot of a bulkhead. Raises `GatewayOverloaded` on entering if none comes free."""

    __slots__ = ("_at_most", "_bulkhead", "_caller_id")

    def __init__(self, bulkhead: Bulkhead, caller_id: str, at_most: float) -> None:
        self._bulkhead = bulkhead
        self._caller_id = caller_id
        self._at_most = at_most

    async def __aenter__(self) -> None:
        if not self._bulkhead.take():
            await self._bulkhead.wait(self._caller_id, self._at_most)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bulkhead.release()
