"""Turns that were answered and can't be kept, because the session store fails in between."""

from typing import TextIO

import pytest

from app.domain.chat import Completion
from app.providers.base import CompletionRequest
from simulator.live import LiveSimulator
from tests import redis_server as real_redis
from tests.redis_server import RedisServer
from tests.scripted import HELLO, ScriptedProvider, gateway_with

shared_redis, redis_server = real_redis.shared_redis, real_redis.redis_server

TURN = [{"role": "user", "content": "Hi"}]
HISTORY = [*TURN, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "And?"}]


@pytest.mark.parametrize("stream", [False, True])
def test_only_whoever_relies_on_the_memory_is_told_that_a_turn_is_lost(
    site: LiveSimulator, log_stream: TextIO, redis_server: RedisServer, stream: bool
) -> None:
    """A client that sends its whole history gets the answer; one that sends a turn alone gets the store's 503."""

    def answered_meanwhile(_: CompletionRequest) -> Completion:
        _forget_everything(redis_server)
        return HELLO

    model = ScriptedProvider("model", answered_meanwhile)
    asked = {"model": "r", "stream": stream}
    with (
        gateway_with(site, log_stream, model, session_store_url=redis_server.url) as gateway,
        gateway.client() as client,
    ):
        in_session = {"X-Session-Id": "ada"}
        full = client.post("/v1/chat/completions", json={**asked, "messages": HISTORY}, headers=in_session)
        alone = client.post("/v1/chat/completions", json={**asked, "messages": TURN}, headers=in_session)
    assert len(model.requests) == 2
    assert full.status_code == 200
    assert "Hello." in full.text
    assert '"error"' not in full.text
    assert '"code":"session_store_unavailable"' in alone.text
    assert alone.status_code == (200 if stream else 503)


def _forget_everything(server: RedisServer) -> None:
    """As a server without persistence does that is started anew: whoever held a session holds it no longer."""
    with server.client() as client:
        client.flushall()
