"""What all kinds of trouble share."""

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial

import pytest

from simulator.live import LiveSimulator
from tests.chaos.rawsite import RawSite, raw_site
from tests.chaos.watch import Watched, calm, watched
from tests.conftest import RunLog, StartGateway

Watch = Callable[..., AbstractContextManager[Watched]]


@pytest.fixture(scope="package", autouse=True)
def _search_what_is_new() -> None:
    """Every case searches the heap for what it has left behind: not among all that was there before."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def raw() -> Iterator[RawSite]:
    """An upstream of bare sockets, well until told otherwise."""
    with raw_site() as site:
        yield site


@pytest.fixture
def watch(site: LiveSimulator, start_gateway: StartGateway, run_log: RunLog) -> Watch:
    """Starts a gateway in front of `site` for one case; see `watched`. What is mended by default is the site."""
    return partial(watched, start_gateway, run_log, mend=partial(calm, site))
