"""The official SDK for Node.js at the endpoints that are passed on."""

from collections.abc import Iterator
from hashlib import sha256
from typing import Any, TextIO

import pytest

from simulator.behaviour import Behaviour
from simulator.live import LiveSimulator, running
from simulator.openai_services import png, wav
from tests.clients.node_sdk import NODE_FOLDER, needs_node_modules
from tests.live import ALICE_KEY, LiveGateway
from tests.processes import run_for_json
from tests.relaying import relaying

pytestmark = needs_node_modules("openai")


@pytest.fixture(scope="module")
def upstream() -> Iterator[LiveSimulator]:
    """The simulated API."""
    with running(Behaviour()) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def gateway(upstream: LiveSimulator, log_stream: TextIO) -> Iterator[LiveGateway]:
    """A gateway in front of it."""
    with relaying(upstream, log_stream) as running_gateway:
        yield running_gateway


def seen(gateway: LiveGateway, *words: str) -> Any:
    """What came of a scenario."""
    environment = {"OPENAI_BASE_URL": gateway.openai_url, "OPENAI_API_KEY": ALICE_KEY}
    return run_for_json(["node", "relay.mjs", *words], NODE_FOLDER, environment)


def test_json_endpoints(gateway: LiveGateway) -> None:
    """Embeddings are the same packed and plain, texts are judged, an image of megabytes comes through to the byte."""
    assert seen(gateway, "embeddings") == {"same": True, "dimensions": [8, 8], "tokens": 2}
    assert seen(gateway, "moderation") == {"flagged": [False, True]}
    assert seen(gateway, "image") == {"sha256": sha256(png(1024, 1024)).hexdigest()}


def test_speech(gateway: LiveGateway) -> None:
    """Audio comes through to the byte."""
    assert seen(gateway, "speech") == {"type": "audio/wav", "sha256": sha256(wav("hello " * 99)).hexdigest()}


@pytest.mark.parametrize("size", ["1000", "3000000"])
def test_uploads(gateway: LiveGateway, upstream: LiveSimulator, size: str) -> None:
    """Files arrive to the byte; this SDK sends them before the model."""
    heard = seen(gateway, "transcription", size)
    assert heard["text"] == "This is what was said."
    assert heard["events"] == ["transcript.text.delta"] * 3 + ["transcript.text.done"]
    assert upstream.site.api.requests[-1]["file"]["sha256"] == heard["sha256"]
    edited = seen(gateway, "edit", size)
    assert edited["images"] == 1
    assert upstream.site.api.requests[-1]["image[]"]["sha256"] == edited["sha256"]
