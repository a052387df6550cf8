"""The addresses of hosts, each looked up once a minute at most."""

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import TypeAlias

from aiohappyeyeballs import AddrInfoType

_FRESH_SECONDS = 60.0

Place: TypeAlias = tuple[str, int]
Addresses: TypeAlias = Sequence[AddrInfoType]
LookUp: TypeAlias = Callable[[str, int], Coroutine[None, None, Addresses]]


class Names:
    """Looks up for all who ask at once, once. Use it in one event loop only.

    Args:
        look_up: Asks the system.
    """

    def __init__(self, look_up: LookUp | None = None) -> None:
        self._look_up = look_up or _look_up
        self._known: dict[Place, tuple[float, Addresses]] = {}
        self._asking: dict[Place, asyncio.Task[Addresses]] = {}

    def close(self) -> None:
        """Stop what is under way."""
        for task in self._asking.values():
            task.cancel()

    async def addresses(self, host: str, port: int) -> Addresses:
        """Where to connect to.

        Raises:
            OSError: The name is unknown, or nobody can tell.
        """
        place = (host, port)
        loop = asyncio.get_running_loop()
        until, known = self._known.get(place, (0.0, []))
        if loop.time() < until:
            return known
        if _is_address(host):
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        task = self._asking.get(place)
        if task is None:
            task = self._asking[place] = loop.create_task(self._look_up(host, port))
            task.add_done_callback(lambda done: self._answered(place, done))
        return await asyncio.shield(task)

    def _answered(self, place: Place, task: "asyncio.Task[Addresses]") -> None:
        del self._asking[place]
        # Asking for the exception says that it has been seen: all who waited may have left.
        if not task.cancelled() and task.exception() is None:
            self._known[place] = (asyncio.get_running_loop().time() + _FRESH_SECONDS, task.result())


async def _look_up(host: str, port: int) -> Addresses:
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
