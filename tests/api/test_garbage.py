"""Requests leave nothing behind for the garbage collector, so that it can be told to look seldom."""

import gc
from collections.abc import Iterator

import pytest

from tests.live import LiveGateway

_REQUESTS = 40


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Nothing is collected but when the test asks for it."""
    gc.disable()
    yield
    gc.enable()


def _ask(gateway: LiveGateway, **fields: object) -> bytes:
    """A whole answer, by a client that makes no garbage of its own."""
    with gateway.send(**fields) as connection:
        answer = bytearray()
        while not answer.endswith((b"\r\n0\r\n\r\n", b"}")):
            answer += connection.recv(65536)
    return bytes(answer)


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"user": "ada"}], ids=["whole", "streamed", "session"])
def test_a_request_leaves_no_cycles(gateway: LiveGateway, no_collection: None, fields: dict[str, object]) -> None:
    """All that a request made is gone when it is over, by reference counts alone."""
    for _ in range(5):
        assert _ask(gateway, **fields).startswith(b"HTTP/1.1 200")
    gc.collect()
    for _ in range(_REQUESTS):
        _ask(gateway, **fields)
    assert gc.collect() < _REQUESTS
