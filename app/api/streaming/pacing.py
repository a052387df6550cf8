"""Typing out many texts at once, with one timer."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from msgspec import Struct

from app.api.streaming.writing import ResponseWriter

T = TypeVar("T")
# Seconds. Texts whose turns are closer than this are written together, so that the process wakes up less often.
_SLOT_SECONDS = 0.004


class Pacer:
    """Writes texts piece by piece, with a pause after each piece.

    It works like a wheel that turns once in each pause: each text has a slot on it, and when the slot comes by, a piece
    is written. This wakes up no task; a sleeping task for each stream would cost twice as much and jitter more. The
    text's own task waits for the last piece, or for a client that doesn't read.

    Use it in one event loop only.

    Args:
        delay: The pause, in seconds.
    """

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self._places = max(1, round(delay / _SLOT_SECONDS))
        self._slot = delay / self._places
        # The slots in use, in the order of their turns, all within one round.
        self._slots: deque[_Slot] = deque()
        # When slot number 0 had its turn, by the event loop's clock.
        self._zero = 0.0

    async def write(self, writer: ResponseWriter, texts: Iterator[T], encode: Callable[[T], bytes]) -> None:
        """Write the texts, with a pause before each.

        Args:
            texts: Texts, or other things to be written; an empty one ends them.
            encode: Encodes one, just before it is written.

        Raises:
            Exception: Whatever `writer` and `encode` raise.
        """
        typing = _Typing(writer, texts, encode)
        while typing.has_more:
            self._join(typing)
            await typing.held_up
            await writer.finish()

    def _join(self, typing: "_Typing[Any]") -> None:
        """Take the last slot that comes by within one delay."""
        loop = asyncio.get_running_loop()
        typing.held_up = loop.create_future()
        now = loop.time()
        if not self._slots:
            self._zero = now
            self._slots.append(_Slot(self._places, [typing]))
            self._await_turn()
            return
        first, last = self._slots[0].number, self._slots[-1]
        number = min(int((now - self._zero) / self._slot), first) + self._places
        if number > last.number:
            self._slots.append(_Slot(number, [typing]))
        else:
            last.typings.append(typing)

    def _await_turn(self) -> None:
        due = self._zero + self._slots[0].number * self._slot
        asyncio.get_running_loop().call_at(due, self._take_turn, due)

    def _take_turn(self, due: float) -> None:
        late = asyncio.get_running_loop().time() - due
        if late > self._slot:
            # The event loop was blocked. The pieces are not made up for in a burst; all slots move on together.
            self._zero += late
        slot = self._slots.popleft()
        typings = [typing for typing in slot.typings if typing.take_turn()]
        if typings:
            self._come_again(_Slot(slot.number + self._places, typings))
        if self._slots:
            self._await_turn()

    def _come_again(self, slot: "_Slot") -> None:
        if self._slots and self._slots[-1].number == slot.number:
            self._slots[-1].typings.extend(slot.typings)
        else:
            self._slots.append(slot)


class _Slot(Struct):
    """A slot on the wheel.

    Args:
        number: Its next turn, counted in slots.
        typings: The texts that have it.
    """

    number: int
    typings: "list[_Typing[Any]]"


class _Typing(Generic[T]):
    """A text that is being typed out.

    `held_up` is done when the text takes no more turns for now: it has ended, the client doesn't read, something
    failed, or the waiting task was cancelled.
    """

    held_up: asyncio.Future[None]

    def __init__(self, writer: ResponseWriter, texts: Iterator[T], encode: Callable[[T], bytes]) -> None:
        self._writer = writer
        self._texts = texts
        self._encode = encode
        self._next = next(texts, None)

    @property
    def has_more(self) -> bool:
        """Whether anything is left to write."""
        return bool(self._next)

    def take_turn(self) -> bool:
        """Write a piece, if somebody still waits for it. Returns whether it wants another turn."""
        if self.held_up.done():
            return False
        try:
            # A ping may have been begun in between.
            is_done = not self._writer.is_waiting
            if is_done and self._next is not None:
                is_done = self._writer.begin(self._encode(self._next))
                self._next = next(self._texts, None)
        except BaseException as error:  # noqa: BLE001 - raised in the waiting task; the other texts go on
            self.held_up.set_exception(error)
            return False
        if is_done and self._next:
            return True
        self.held_up.set_result(None)
        return False
