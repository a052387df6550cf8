from collections.abc import Iterator

import httpx
import pytest

from simulator.live import LiveSimulator, running
from tests.simulator.client import open_client


@pytest.fixture
def live() -> Iterator[LiveSimulator]:
    with running() as simulator:
        yield simulator


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with open_client() as visitor:
        yield visitor
