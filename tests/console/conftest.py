"""What the tests of the console share."""

from collections.abc import Iterator

import pytest

from simulator.behaviour import Behaviour
from simulator.live import running
from tests.conftest import RunLog
from tests.console.running import Console, console_of


@pytest.fixture(scope="module")
def console(run_log: RunLog, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """A console that a module's tests share. When they are over, the log must not hold any secret."""
    with (
        running(Behaviour()) as site,
        run_log.keeps_secrets_of(site),
        console_of(site, run_log.stream, tmp_path_factory.mktemp("console")) as console,
    ):
        yield console


@pytest.fixture
def own_console(run_log: RunLog, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """A console of a test's own, where nobody has tried anything yet."""
    with (
        running(Behaviour()) as site,
        console_of(site, run_log.stream, tmp_path_factory.mktemp("console")) as console,
    ):
        yield console
