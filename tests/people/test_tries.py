"""How often somebody may try to sign in."""

import pytest

from app.people.tries import Tries
from tests.clock import Clock


@pytest.fixture
def tries(clock: Clock) -> Tries:
    """Three tries in all, two of each address, in ten seconds."""
    return Tries(together=3, each=2, seconds=10.0, clock=clock)


def test_an_address_has_so_many_tries(tries: Tries) -> None:
    """The third one is refused; another address still has its own."""
    assert [tries.take("a"), tries.take("a"), tries.take("a"), tries.take("b")] == [True, True, False, True]


def test_many_addresses_have_no_more_than_all_together(tries: Tries) -> None:
    """Whoever has many addresses gains nothing by them."""
    assert [tries.take(address) for address in "abcde"] == [True, True, True, False, False]


def test_a_refused_try_costs_nobody_else_anything(tries: Tries) -> None:
    """An address that goes on trying uses up nothing of what is there for all."""
    assert [tries.take("a") for _ in range(10)].count(True) == 2
    assert tries.take("b")


def test_tries_come_back_with_the_next_window(tries: Tries, clock: Clock) -> None:
    """Once the window is over, and not before, however often it was tried meanwhile."""
    for _ in range(3):
        tries.take("a")
    clock.now += 9.9
    assert not tries.take("a")
    clock.now += 0.2
    assert [tries.take("a"), tries.take("a"), tries.take("a")] == [True, True, False]


def test_addresses_beyond_count_open_no_door(clock: Clock) -> None:
    """What is kept is bounded, and the bound of all together outlives any flood of addresses."""
    tries = Tries(together=5, each=1, seconds=10.0, clock=clock)
    assert sum(tries.take(str(number)) for number in range(20_000)) == 5


def test_an_address_can_have_no_name_that_stands_for_all(tries: Tries) -> None:
    """An empty address is one like any other."""
    assert [tries.take(""), tries.take(""), tries.take(""), tries.take("a")] == [True, True, False, True]
