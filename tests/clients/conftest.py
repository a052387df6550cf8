"""What the tests with real clients share."""

import gc
from collections.abc import Iterator
from typing import TextIO

import pytest
from openai import OpenAI

from tests.clients.sdk import connect
from tests.live import LiveGateway


@pytest.fixture(scope="session", autouse=True)
def _leave_no_half_read_streams(log_stream: TextIO) -> Iterator[None]:
    """The SDK leaves its streams to the garbage collector and logs its coming, which must be before the log ends."""
    yield
    gc.collect()


@pytest.fixture
def openai_client(gateway: LiveGateway) -> Iterator[OpenAI]:
    """The OpenAI SDK with Alice's key, at a gateway with default settings."""
    with connect(gateway) as client:
        yield client
