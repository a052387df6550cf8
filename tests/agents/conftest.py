"""What the tests with agents share."""

from collections.abc import Iterator

import pytest

from simulator.live import LiveSimulator
from tests.conftest import StartGateway
from tests.live import LiveGateway


@pytest.fixture
def roomy_gateway(start_gateway: StartGateway, site: LiveSimulator) -> Iterator[LiveGateway]:
    """A gateway to a site that takes long messages: coding agents describe tools in tens of thousands of characters."""
    site.site.update(char_limit=0)
    with start_gateway(context_max_length=200_000) as gateway:
        yield gateway
