"""What all tests share: a simulated site, a gateway in front of it, and one log of the whole run."""

import gc
import os
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import httpx
import pytest
from _pytest.outcomes import Failed  # pytest.fail.Exception, with a type

from app.ledger import writer
from app.storage import feed
from simulator.behaviour import Behaviour
from simulator.live import LiveSimulator, running
from tests.clock import Clock
from tests.live import ALICE_KEY, BOB_KEY, UPSTREAM_KEY, LiveGateway, gateway_for

# Tests that are about keys or the ledger name a database of their own. The others leave no file in the checkout.
os.environ["DATABASE_URL"] = "none"
# One authority that has signed nothing: whoever reads the system's, as each HTTP client does, takes 25 ms for them.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).with_name("nobody.pem"))
# What gateways do again and again comes at shorter intervals than in earnest: tests wait for the next time.
feed.HEARTBEAT_SECONDS = writer._PAUSE_SECONDS = 0.2
# Until all tests are collected: next to nothing of what that makes is garbage.
gc.disable()
_LONGEST = (
    *("test_fuzz.py", "test_cluster.py", "test_cli.py", "test_log_secrecy.py", "test_who_pays.py", "test_model.py"),
    *("test_cluster_redis.py", "test_first_link.py", "test_browser.py", "test_provider.py", "test_package.py"),
)
StartGateway = Callable[..., AbstractContextManager[LiveGateway]]

ALARM = pytest.StashKey[Callable[[], None]]()


class RunLog:
    """What all gateways of this test run log, at level DEBUG, and the search for what must not be in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stream: TextIO = path.open("a", encoding="utf-8")

    @contextmanager
    def keeps_secrets_of(self, site: LiveSimulator) -> Iterator[None]:
        """Fail if what is logged in the context holds a nonce that the site has handed out by its end, or a key."""
        begin = self.path.stat().st_size
        yield
        self.stream.flush()
        with self.path.open("rb") as log:
            log.seek(begin)
            text = log.read()
        secrets = {ALICE_KEY, BOB_KEY, UPSTREAM_KEY, *site.site.issued_nonces}
        assert [secret for secret in secrets if secret.encode() in text] == [], "secrets in the log"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """One process more than there are processors: tests wait for servers, browsers and the clock, too."""
    return None if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else len(os.sched_getaffinity(0)) + 1


def pytest_collection_finish() -> None:
    """Look for garbage from now on, but not among all that was imported and collected, which takes 0.3 s each time."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first: several processes that share the tests then end at about the same time."""
    places = {name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture
def clock() -> Clock:
    """Time for what takes a clock."""
    return Clock()


@pytest.fixture(scope="session")
def run_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunLog]:
    """The log of the whole run."""
    log = RunLog(tmp_path_factory.mktemp("logs") / "gateway.log")
    with log.stream:
        yield log


@pytest.fixture(scope="session")
def log_stream(run_log: RunLog) -> TextIO:
    """Where gateways log to."""
    return run_log.stream


@pytest.fixture
def site(run_log: RunLog) -> Iterator[LiveSimulator]:
    """A simulated site of this test's own. When the test is over, its log must not hold any secret."""
    with running(Behaviour()) as simulator, run_log.keeps_secrets_of(simulator):
        yield simulator


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


class HungTest(Failed, SystemExit):
    """The failure of a test that took too long: a SystemExit, because event loops let nothing else through."""


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> Generator[None, object, object]:
    """Let pytest-timeout's alarm raise `HungTest`: its plain failure is swallowed where it comes up in a callback."""
    result = yield
    fail = signal.getsignal(signal.SIGALRM)
    assert callable(fail)

    def end_test(number: int, frame: FrameType | None) -> None:
        try:
            fail(number, frame)
        except Failed as failure:
            raise HungTest(str(failure)) from None

    def set_alarm() -> None:
        signal.signal(signal.SIGALRM, end_test)
        signal.setitimer(signal.ITIMER_REAL, settings.timeout)

    set_alarm()
    item.stash[ALARM] = set_alarm
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Give the teardown as long as the test: once a test has failed, pytest-timeout watches it no more."""
    if ALARM in item.stash:
        item.stash[ALARM]()
