"""A client that leaves takes its request with it."""

import asyncio
from types import TracebackType
from typing import Self

from starlette.types import Receive

from app.domain.errors import ClientClosedRequest


class cancel_on_disconnect:  # noqa: N801 - reads like asyncio.timeout, whose brother it is
    """Cancels the code in the `async with` block when the client closes the connection.

    The request's body must have been read before. Raises `ClientClosedRequest` in place of the cancellation.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("cancel_on_disconnect works in tasks only.")
        self._task = task
        self._watcher = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watcher.cancel()
        task = self._task
        # Else its traceback, this object and the whole request would hold on to each other until the next collection.
        del self._watcher, self._task
        if self._gone and task.uncancel() == 0 and isinstance(error, asyncio.CancelledError):
            raise ClientClosedRequest("The client closed the connection.") from None

    async def _watch(self) -> None:
        task = self._task
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        task.cancel()
