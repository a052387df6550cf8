"""Kept answers as clients meet them: in each dialect, whole and streamed, from memory and from Redis."""

import json
from collections.abc import Iterator
from typing import Any, TextIO

import httpx
import pytest

from app.domain.chat import Completion
from app.providers.base import CompletionRequest
from simulator.live import LiveSimulator
from tests import redis_server as servers
from tests.addresses import address
from tests.api.test_answering import DIALECTS
from tests.live import ALICE_KEY, BOB_KEY, LiveGateway
from tests.redis_server import RedisServer
from tests.scripted import ScriptedProvider, gateway_with

shared_redis, redis_server = servers.shared_redis, servers.redis_server

ASKING = {"Cache-Control": "max-age=60"}
KEYS = f"{ALICE_KEY},{BOB_KEY}"


class Words(ScriptedProvider):
    """Says something else each time."""

    def __init__(self) -> None:
        super().__init__("words", self._next, abilities=["messages"])

    def _next(self, _: CompletionRequest) -> Completion:
        return Completion(f"This is answer number {len(self.requests)}.")


@pytest.fixture
def words() -> Words:
    """The upstream."""
    return Words()


@pytest.fixture
def gateway(site: LiveSimulator, log_stream: TextIO, words: Words) -> Iterator[LiveGateway]:
    """A gateway that keeps answers."""
    with gateway_with(site, log_stream, words, answer_cache_seconds=600, api_master_key=KEYS) as running:
        yield running


def _texts(response: httpx.Response) -> list[str]:
    """The pieces of text of an answer, whichever dialect it has."""
    if response.headers["content-type"] == "application/json":
        return _found(response.json(), ("content", "text"))
    events = [line[6:] for line in response.text.splitlines() if line.startswith("data: {")]
    return [text for event in map(json.loads, events) for text in _piece(event)]


def _piece(event: dict[str, Any]) -> list[str]:
    if "type" in event and not event["type"].endswith("delta"):
        return []  # responses and messages tell the whole once more in other events
    return _found(event, ("content", "text", "delta"))


def _found(value: Any, names: tuple[str, ...]) -> list[str]:
    if isinstance(value, list):
        return [text for one in value for text in _found(one, names)]
    if not isinstance(value, dict):
        return []
    own = [one for name, one in value.items() if name in names and isinstance(one, str) and one]
    return own + [text for one in value.values() for text in _found(one, names)]


@pytest.mark.parametrize(
    ("path", "asked"), [(path, asked) for path, asked, _ in DIALECTS], ids=lambda one: str(one)[:20]
)
def test_each_dialect_gives_kept_answers(gateway: LiveGateway, words: Words, path: str, asked: dict[str, Any]) -> None:
    """A miss and then hits, whole and typed out; no other key's, and none to whoever doesn't ask."""
    body = {"model": "r", **asked}
    whole_at, streamed_at = address(path, "r"), address(path, "r", stream=True)
    with gateway.client() as alice, gateway.client(BOB_KEY) as bob:
        miss = alice.post(whole_at, json=body, headers=ASKING)
        whole = alice.post(whole_at, json=body, headers=ASKING)
        streamed = alice.post(streamed_at, json={**body, "stream": True}, headers=ASKING)
        strange = bob.post(streamed_at, json={**body, "stream": True}, headers=ASKING)
        plain = alice.post(whole_at, json=body)
        numbers = alice.get("/metrics").text
    answers = [miss, whole, streamed, strange, plain]
    assert [answer.headers.get("x-cache") for answer in answers] == ["MISS", "HIT", "HIT", "MISS", None]
    assert [answer.headers.get("age", "")[:1].isdigit() for answer in answers] == [False, True, True, False, False]
    assert whole.headers["x-session-action"] == streamed.headers["x-session-action"] == "replayed"
    assert all(answer.headers["cache-control"] in ("no-store", "no-cache, no-store") for answer in answers)
    said = ["".join(_texts(answer)) for answer in answers]
    assert said == [f"This is answer number {number}." for number in (1, 1, 1, 2, 3)]
    assert len(_texts(streamed)) > 5
    assert len(words.requests) == 3
    assert 'kimi_answer_cache_total{result="hit"} 2.0' in numbers
    assert 'kimi_answer_cache_total{result="miss"} 2.0' in numbers


def test_workers_share_kept_answers_in_redis(
    site: LiveSimulator, log_stream: TextIO, words: Words, redis_server: RedisServer
) -> None:
    """Each for no longer than answers are kept; and while Redis is away, the upstream answers."""
    options: dict[str, Any] = {"answer_cache_seconds": 600, "session_store_url": redis_server.url}
    options["api_master_key"] = KEYS
    body = {"model": "r", "messages": [{"role": "user", "content": "Hello"}]}
    with gateway_with(site, log_stream, words, **options) as one, one.client() as client:
        first = client.post("/v1/chat/completions", json=body, headers=ASKING)
    with redis_server.client() as store:
        lives = [store.pttl(name) for name in store.scan_iter("kimi:*snapshot*")]
    assert lives
    assert all(0 < life <= 600_000 for life in lives)
    with gateway_with(site, log_stream, words, **options) as other, other.client() as client:
        second = client.post("/v1/chat/completions", json=body, headers=ASKING)
        strange = client.post(
            "/v1/chat/completions", json=body, headers={**ASKING, "Authorization": f"Bearer {BOB_KEY}"}
        )
        with redis_server.paused():
            away = client.post("/v1/chat/completions", json=body, headers=ASKING)
    told = [(answer.headers["x-cache"], "".join(_texts(answer))[-2:]) for answer in (first, second, strange, away)]
    assert told == [("MISS", "1."), ("HIT", "1."), ("MISS", "2."), ("MISS", "3.")]
