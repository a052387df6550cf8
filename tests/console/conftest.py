"""What the tests of the console share."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from simulator.behaviour import Behaviour
from simulator.live import running
from tests.conftest import RunLog
from tests.console.browser import launched
from tests.console.running import Console, console_of
from tests.live import WAIT_SECONDS


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser that a module's tests share."""
    expect.set_options(timeout=WAIT_SECONDS * 1000 / 2)
    with sync_playwright() as playwright:
        browser = launched(playwright)
        yield browser
        browser.close()
