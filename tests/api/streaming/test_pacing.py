"""Typing out by one timer for all: pauses, order, clients that don't read, and failures; on a clock of its own."""

import asyncio
from collections.abc import Callable, Iterator

from starlette.types import Message

from app.api.streaming.pacing import Pacer
from app.api.streaming.writing import ResponseWriter
from tests.loops import LeapingLoop, in_leaping_time

DELAY = 0.02
# By how much a piece may be early or late: the turns of texts that are so close to each other are taken together.
SLOT = 0.004


class Client:
    """Notes when each piece came; does not read while `reads` is not set."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.pieces: list[str] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.writer = ResponseWriter(self._send, timeout=60)

    async def _send(self, message: Message) -> None:
        if not self.reads.is_set():
            await self.reads.wait()
        self.pieces.append(message["body"].decode())
        self.times.append(asyncio.get_running_loop().time())

    def gaps(self) -> list[float]:
        """The pauses between its pieces."""
        return [after - before for before, after in zip(self.times, self.times[1:], strict=False)]


def words(count: int) -> Iterator[str]:
    return (f"word{index} " for index in range(count))


def text(count: int) -> str:
    return "".join(words(count))


def typed(pacer: Pacer, client: Client, count: int) -> asyncio.Task[None]:
    return asyncio.create_task(pacer.write(client.writer, words(count), str.encode))


def test_many_texts_come_whole_in_order_and_evenly() -> None:
    """Whenever a text begins, its pieces come one each delay, each text to its end, and then nothing is left."""

    async def work() -> None:
        pacer = Pacer(DELAY)
        clients, tasks = [Client() for _ in range(40)], []
        began = []
        for index, client in enumerate(clients):
            began.append(asyncio.get_running_loop().time())
            tasks.append(typed(pacer, client, 5 + index % 7))
            await asyncio.sleep(0.0013)
        await asyncio.gather(*tasks)
        for index, client in enumerate(clients):
            assert "".join(client.pieces) == text(5 + index % 7)
            assert DELAY - SLOT - 1e-6 <= client.times[0] - began[index] <= DELAY + 1e-6
            assert all(abs(gap - DELAY) < 1e-6 for gap in client.gaps())
        assert not pacer._slots

    in_leaping_time(work())


def test_a_client_that_does_not_read_holds_up_nobody() -> None:
    """The others' pieces keep coming; its own come when it reads again, none lost, at the usual pace."""

    async def work() -> None:
        pacer = Pacer(DELAY)
        slow, other = Client(), Client()
        task, others = typed(pacer, slow, 10), typed(pacer, other, 30)
        await asyncio.sleep(4.5 * DELAY)
        slow.reads.clear()
        await others
        assert "".join(other.pieces) == text(30)
        assert all(abs(gap - DELAY) < 1e-6 for gap in other.gaps())
        assert len(slow.pieces) == 4
        slow.reads.set()
        await task
        assert "".join(slow.pieces) == text(10)
        assert min(slow.gaps()) >= DELAY - SLOT - 1e-6

    in_leaping_time(work())


def test_nothing_is_made_up_for_in_a_burst() -> None:
    """After the process was held up, everybody's next piece comes one delay later, and texts stay apart."""

    async def work() -> None:
        pacer = Pacer(DELAY)
        clients = [Client(), Client()]
        tasks = [typed(pacer, clients[0], 20)]
        await asyncio.sleep(DELAY / 2)
        tasks.append(typed(pacer, clients[1], 20))
        await asyncio.sleep(5 * DELAY)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, LeapingLoop)
        loop.clock.now += 1.0
        await asyncio.gather(*tasks)
        for client in clients:
            assert sum(gap > 2 * DELAY for gap in client.gaps()) == 1
            assert min(client.gaps()) > DELAY - SLOT - 1e-6
        assert not set(clients[0].times) & set(clients[1].times)

    in_leaping_time(work())


def test_a_text_whose_task_is_cancelled_is_not_typed_on() -> None:
    """Not a piece comes after that, and the others go on."""

    async def work() -> None:
        pacer = Pacer(DELAY)
        leaving, other = Client(), Client()
        task, others = typed(pacer, leaving, 10), typed(pacer, other, 10)
        await asyncio.sleep(3.5 * DELAY)
        task.cancel()
        await others
        assert task.cancelled()
        assert "".join(leaving.pieces) == text(3)
        assert "".join(other.pieces) == text(10)

    in_leaping_time(work())


def test_what_goes_wrong_with_one_text_is_raised_there() -> None:
    """An error of the encoder, or of the server, ends that text alone, also one that is no `Exception`."""

    def failing(error: BaseException) -> Callable[[str], bytes]:
        def encode(_: str) -> bytes:
            raise error

        return encode

    async def work() -> None:
        pacer = Pacer(DELAY)
        other = Client()
        others = typed(pacer, other, 10)
        errors = [ValueError("no text"), asyncio.CancelledError()]
        failed = [pacer.write(Client().writer, words(3), failing(error)) for error in errors]
        raised = await asyncio.gather(*failed, return_exceptions=True)
        assert [type(error) for error in raised] == [ValueError, asyncio.CancelledError]
        await others
        assert "".join(other.pieces) == text(10)

    in_leaping_time(work())
