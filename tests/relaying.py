"""A gateway in front of upstreams with embeddings, images, speech and the like."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from simulator.live import LiveSimulator
from tests.live import LiveGateway, gateway_for

EMBEDDER, PAINTER, JUDGE, RANKER = "text-embedding-3-small", "gpt-image-1", "omni-moderation-latest", "bge-reranker-v2"
SPEAKER, LISTENER = "gpt-4o-mini-tts", "whisper-1"
MODELS = ",".join(
    (f"small={EMBEDDER}", EMBEDDER, PAINTER, JUDGE, RANKER, SPEAKER, f"ear={LISTENER}", LISTENER, "kimi-latest")
)


@contextmanager
def relaying(site: LiveSimulator, log: TextIO, **settings: object) -> Iterator[LiveGateway]:
    """A gateway with two upstreams with an API, both of them the simulator."""
    values: dict[str, object] = {
        "moonshot_api_key": "sk-simulated",
        "moonshot_base_url": site.api_url,
        "moonshot_models": MODELS,
        "deepseek_api_key": "sk-simulated",
        "deepseek_base_url": site.api_url,
        "deepseek_models": f"second={EMBEDDER},whisper={LISTENER}",
        "model_routes": "either=small>second,listen=ear>whisper",
        "max_retries": 0,
        **settings,
    }
    with gateway_for(site, log, **values) as gateway:
        yield gateway
