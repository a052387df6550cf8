"""How much Python runs for a request: what no clock measures reliably, and what creeps up when nobody looks.

The bounds are a tenth above what was counted when they were set. Whoever needs more raises them, and says what for.
"""

import sys
from collections.abc import Callable
from types import FrameType

import pytest

from simulator.live import LiveSimulator
from tests.conftest import StartGateway
from tests.live import LiveGateway

_REQUESTS = 40


class _Calls:
    """Counts calls of Python functions (and resumed generators) in the gateway's thread."""

    def __init__(self) -> None:
        self.count = 0

    async def begin(self) -> None:
        sys.setprofile(self._note)

    async def end(self) -> None:
        sys.setprofile(None)

    def _note(self, _: FrameType, event: str, __: object) -> None:
        self.count += event == "call"


def _calls(gateway: LiveGateway, requests: int, request: Callable[[], bytes]) -> float:
    """Calls for each request, once everything has been used before."""
    for _ in range(5):
        assert request().startswith(b"HTTP/1.1 200")
    calls = _Calls()
    gateway.run(calls.begin)
    try:
        for _ in range(requests):
            request()
    finally:
        gateway.run(calls.end)
    return calls.count / requests


@pytest.mark.parametrize(
    ("fields", "most"), [({}, 395), ({"user": "ada"}, 580)], ids=["without a session", "in a session"]
)
def test_a_whole_answer_takes_only_so_many_calls(gateway: LiveGateway, fields: dict[str, object], most: int) -> None:
    """From the parsed request to the written answer, with auth, limits, metrics and logs."""
    assert _calls(gateway, _REQUESTS, lambda: gateway.ask(**fields)) <= most


def test_a_typed_piece_takes_only_so_many_calls(site: LiveSimulator, start_gateway: StartGateway) -> None:
    """What an answer of 40 pieces takes more than one of 20, for each of them."""
    with start_gateway(typing_delay_seconds=0.001, typing_piece_size=10) as gateway:
        site.site.update(reply="x" * 200)
        short = _calls(gateway, 10, lambda: gateway.ask(stream=True))
        site.site.update(reply="x" * 400)
        long = _calls(gateway, 10, lambda: gateway.ask(stream=True))
    assert (long - short) / 20 <= 14
