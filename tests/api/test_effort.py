"""How much Python runs for a request: what no clock measures reliably, and what creeps up when nobody looks.

The bounds are half as much again as what was counted when they were set, so that a change of shape passes and a change
of order doesn't. Whoever needs more raises them, and says what for.
"""

import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType

import pytest

from simulator.live import LiveSimulator
from tests.conftest import StartGateway
from tests.live import LiveGateway

_REQUESTS = 40
_SHOWN_MODULES = 15


class _Calls:
    """Counts calls of Python functions (and resumed generators) in the gateway's thread, by module."""

    def __init__(self) -> None:
        self.by_module: Counter[str] = Counter()

    async def begin(self) -> None:
        sys.setprofile(self._note)

    async def end(self) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            self.by_module[frame.f_globals.get("__name__", "?")] += 1


def _calls(gateway: LiveGateway, requests: int, request: Callable[[], bytes]) -> Counter[str]:
    """Calls in each module for so many requests, once everything has been used before."""
    for _ in range(5):
        assert request().startswith(b"HTTP/1.1 200")
    calls = _Calls()
    gateway.run(calls.begin)
    try:
        for _ in range(requests):
            request()
    finally:
        gateway.run(calls.end)
    return calls.by_module


def _report(calls: Counter[str], each: int) -> str:
    """Where the calls are, most first, for each of so many requests or pieces."""
    lines = [f"{count / each:8.1f}  {module}" for module, count in calls.most_common(_SHOWN_MODULES)]
    return "\n".join([f"{calls.total() / each:.1f} calls, most of them in", *lines])


@pytest.mark.parametrize(
    ("fields", "most"), [({}, 425), ({"user": "ada"}, 525)], ids=["without a session", "in a session"]
)
def test_a_whole_answer_takes_only_so_many_calls(gateway: LiveGateway, fields: dict[str, object], most: int) -> None:
    """From the parsed request to the written answer, with auth, limits, metrics and logs."""
    calls = _calls(gateway, _REQUESTS, lambda: gateway.ask(**fields))
    assert calls.total() / _REQUESTS <= most, _report(calls, _REQUESTS)


def test_a_typed_piece_takes_only_so_many_calls(site: LiveSimulator, start_gateway: StartGateway) -> None:
    """What an answer of 40 pieces takes more than one of 20, for each of them."""
    answers = 10
    with start_gateway(typing_delay_seconds=0.001, typing_piece_size=10) as gateway:
        site.site.update(reply="x" * 200)
        short = _calls(gateway, answers, lambda: gateway.ask(stream=True))
        site.site.update(reply="x" * 400)
        long = _calls(gateway, answers, lambda: gateway.ask(stream=True))
    more, pieces = long - short, 20 * answers
    assert more.total() / pieces <= 14, _report(more, pieces)
