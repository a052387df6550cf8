"""What all tests share: a simulated site, a gateway in front of it, and one log of the whole run."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TextIO

import httpx
import pytest

from simulator.behaviour import Behaviour
from simulator.live import LiveSimulator, running
from tests.clock import Clock
from tests.live import LiveGateway, gateway_for

StartGateway = Callable[..., AbstractContextManager[LiveGateway]]


class RunLog:
    """Everything that any gateway of this test run has logged, and the nonces that must not be in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.nonces: set[str] = set()


@pytest.fixture
def clock() -> Clock:
    """Time for what takes a clock."""
    return Clock()


@pytest.fixture(scope="session")
def run_log(tmp_path_factory: pytest.TempPathFactory) -> RunLog:
    """The log of the whole run."""
    return RunLog(tmp_path_factory.mktemp("logs") / "gateway.log")


@pytest.fixture(scope="session")
def log_stream(run_log: RunLog) -> Iterator[TextIO]:
    """Where gateways log to."""
    with run_log.path.open("a", encoding="utf-8") as stream:
        yield stream


@pytest.fixture
def site(run_log: RunLog) -> Iterator[LiveSimulator]:
    """A simulated site of this test's own."""
    with running(Behaviour()) as simulator:
        yield simulator
        run_log.nonces.update(simulator.site.issued_nonces)


@pytest.fixture
def start_gateway(site: LiveSimulator, log_stream: TextIO) -> StartGateway:
    """Starts a gateway in front of `site`, with settings of the test's choice."""
    return partial(gateway_for, site, log_stream)


@pytest.fixture
def gateway(start_gateway: StartGateway) -> Iterator[LiveGateway]:
    """A gateway with default settings in front of `site`."""
    with start_gateway() as running_gateway:
        yield running_gateway


@pytest.fixture
def client(gateway: LiveGateway) -> Iterator[httpx.Client]:
    """An HTTP client with Alice's key."""
    with gateway.client() as http:
        yield http


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The search through the run's log comes after everything that writes to it."""
    items.sort(key=lambda item: item.path.name == "test_log_secrecy.py")
