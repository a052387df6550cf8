"""The bulkhead in front of an upstream."""

import asyncio

import pytest

from app.domain.errors import GatewayOverloaded
from app.providers.resilience.limits import Bulkhead


class Visitors:
    """Requests that hold a slot until they are told to go; `served` is the order in which they got theirs."""

    def __init__(self, bulkhead: Bulkhead) -> None:
        self.bulkhead = bulkhead
        self.served: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._leave: dict[str, asyncio.Event] = {}

    async def arrive(self, name: str, caller_id: str, at_most: float = 60.0) -> None:
        self._leave[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._visit(name, caller_id, at_most))
        await settle()

    async def leave(self, name: str) -> None:
        self._leave[name].set()
        await self.tasks[name]
        await settle()

    async def _visit(self, name: str, caller_id: str, at_most: float) -> None:
        await self.bulkhead.acquire(caller_id, at_most=at_most)
        try:
            self.served.append(name)
            await self._leave[name].wait()
        finally:
            self.bulkhead.release()


async def settle() -> None:
    """Let every task run as far as it gets without time passing."""
    for _ in range(10):
        await asyncio.sleep(0)


def bulkhead(slots: int = 1, queue_size: int = 10, queue_timeout: float = 60.0) -> Bulkhead:
    return Bulkhead(slots=slots, queue_size=queue_size, queue_timeout=queue_timeout)


async def test_no_more_requests_than_slots_are_served_at_once() -> None:
    """The third request for two slots waits until one of them is given back."""
    visitors = Visitors(bulkhead(slots=2))
    for name in ("first", "second", "third"):
        await visitors.arrive(name, "alice")
    assert visitors.served == ["first", "second"]
    await visitors.leave("first")
    assert visitors.served == ["first", "second", "third"]
    await visitors.leave("second")
    await visitors.leave("third")
    assert (visitors.bulkhead.free, visitors.bulkhead.queued) == (2, 0)


async def test_a_caller_with_many_requests_does_not_starve_another() -> None:
    """A single request of one caller is served before the rest of another caller's long row."""
    visitors = Visitors(bulkhead(slots=1))
    for name in ("a1", "a2", "a3", "a4"):
        await visitors.arrive(name, "alice")
    await visitors.arrive("b1", "bob")
    for name in ("a1", "a2", "b1", "a3", "a4"):
        await visitors.leave(name)
    assert visitors.served == ["a1", "a2", "b1", "a3", "a4"]


async def test_a_full_queue_turns_away_at_once() -> None:
    """A request beyond slots and queue gets a 503 with a time to come back, without waiting."""
    visitors = Visitors(bulkhead(slots=1, queue_size=1))
    await visitors.arrive("first", "alice")
    await visitors.arrive("second", "alice")
    with pytest.raises(GatewayOverloaded) as refusal:
        await visitors.bulkhead.acquire("bob", at_most=60)
    assert refusal.value.retry_after
    await visitors.leave("first")
    await visitors.leave("second")


@pytest.mark.parametrize(("queue_timeout", "at_most"), [(0.001, 60.0), (60.0, 0.001)])
async def test_a_wait_that_is_too_long_ends_in_503_and_leaves_no_trace(queue_timeout: float, at_most: float) -> None:
    """Both the queue's own limit and the request's deadline end a wait, and the place in the queue is free again."""
    visitors = Visitors(bulkhead(slots=1, queue_timeout=queue_timeout))
    await visitors.arrive("first", "alice")
    with pytest.raises(GatewayOverloaded):
        await visitors.bulkhead.acquire("bob", at_most=at_most)
    assert visitors.bulkhead.queued == 0
    await visitors.leave("first")
    assert visitors.bulkhead.free == 1


async def test_a_cancelled_request_gives_its_place_or_its_slot_back() -> None:
    """A client that leaves frees its slot, or its place in the queue, at once."""
    visitors = Visitors(bulkhead(slots=1))
    for name in ("first", "second", "third"):
        await visitors.arrive(name, "alice")
    visitors.tasks["second"].cancel()
    await settle()
    visitors.tasks["first"].cancel()
    await settle()
    assert visitors.served == ["first", "third"]
    await visitors.leave("third")
    assert (visitors.bulkhead.free, visitors.bulkhead.queued) == (1, 0)


async def test_a_slot_that_comes_in_the_moment_of_cancelling_goes_to_the_next() -> None:
    """No slot is lost when the request that was just given it is cancelled before it wakes."""
    visitors = Visitors(bulkhead(slots=1))
    for name in ("first", "second", "third"):
        await visitors.arrive(name, "alice")
    visitors._leave["first"].set()
    await asyncio.sleep(0)  # the first one gives its slot to the second, which has not woken yet
    visitors.tasks["second"].cancel()
    await settle()
    assert visitors.served[-1] == "third"
    await visitors.leave("third")
    assert visitors.bulkhead.free == 1


@pytest.mark.parametrize("further", [[], ["fourth"]], ids=["and the queue is empty", "and the caller has more in it"])
async def test_a_slot_is_not_handed_to_one_who_has_just_given_up(further: list[str]) -> None:
    """A request cancelled in the same moment in which a slot comes free is passed over, and no slot is lost."""
    visitors = Visitors(bulkhead(slots=1))
    for name in ("first", "second", "third", *further):
        await visitors.arrive(name, "alice")
    visitors.tasks["first"].cancel()
    visitors.tasks["second"].cancel()  # both at once: the second is still in the row when the first one leaves
    await settle()
    assert visitors.tasks["second"].cancelled()
    assert visitors.served == ["first", "third"]
    for name in ("third", *further):
        await visitors.leave(name)
    assert (visitors.bulkhead.free, visitors.bulkhead.queued) == (1, 0)
