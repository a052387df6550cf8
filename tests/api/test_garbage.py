"""Requests leave nothing behind for the garbage collector, so that it can be told to look seldom."""

import gc
from collections.abc import Iterator

import pytest

from simulator.live import LiveSimulator
from tests.conftest import StartGateway
from tests.live import LiveGateway

_REQUESTS = 40


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Nothing is collected but when the test asks for it."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"user": "ada"}], ids=["whole", "streamed", "session"])
def test_a_request_leaves_no_cycles(gateway: LiveGateway, no_collection: None, fields: dict[str, object]) -> None:
    """All that a request made is gone when it is over, by reference counts alone."""
    for _ in range(5):
        assert gateway.ask(**fields).startswith(b"HTTP/1.1 200")
    gc.collect()
    for _ in range(_REQUESTS):
        gateway.ask(**fields)
    assert gc.collect() < _REQUESTS


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_fails_leaves_no_cycles_either(
    site: LiveSimulator, start_gateway: StartGateway, no_collection: None, stream: bool
) -> None:
    """An error leads to where it was raised; nothing there leads to the error."""
    site.site.update(failure="server_error")
    with start_gateway(max_retries=0) as gateway:
        for _ in range(5):
            assert not gateway.ask(stream=stream).startswith(b"HTTP/1.1 200")
        gc.collect()
        for _ in range(_REQUESTS):
            gateway.ask(stream=stream)
        assert gc.collect() < _REQUESTS
