"""What the tests with real clients share."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import pytest
from openai import OpenAI

from simulator.live import LiveSimulator
from tests.clients.responses import Scripted
from tests.clients.sdk import connect
from tests.live import LiveGateway
from tests.scripted import ScriptedProvider, gateway_with


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


@pytest.fixture
def scripted(site: LiveSimulator, log_stream: TextIO) -> Scripted:
    """The SDK at a gateway with a provider of the test's own, not the site."""

    @contextmanager
    def run(provider: ScriptedProvider) -> Iterator[OpenAI]:
        with gateway_with(site, log_stream, provider) as gateway, connect(gateway) as client:
            yield client

    return run
