"""Upstreams come, change and go while requests are answered, and none of these is lost."""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from app.providers.entries import KeyedEntry
from app.providers.following import UpstreamFollower
from app.providers.registry import ModelRoute, ProviderRegistry
from app.providers.stored import Catalog, Opened
from app.storage.database import Database
from app.storage.schema import migrate
from app.storage.sealing import Sealer
from app.storage.upstreams import StoredRoute, StoredUpstream
from simulator.live import LiveSimulator
from tests.conftest import StartGateway
from tests.live import LiveGateway, until
from tests.providers.test_stored import SECRET, Book
from tests.scripted import ScriptedProvider

_CHANGES, _CALLERS = 30, 4


class Watched(ScriptedProvider):
    """Says what becomes of it."""

    def __init__(self, entry: KeyedEntry) -> None:
        if entry.timeout == 13:
            raise ValueError("timeout: brings bad luck")
        super().__init__(entry.name)
        self.told: list[str] = []
        self.busy = False
        self.closed = asyncio.Event()

    async def start(self) -> None:
        self.told.append("start")

    async def retire(self) -> None:
        self.told.append("retire")

    async def aclose(self) -> None:
        self.told.append("close")
        self.closed.set()

    @property
    def is_idle(self) -> bool:
        return not self.busy


class Follow:
    """A follower that is told what the database has, and its registry."""

    def __init__(self) -> None:
        self.registry = ProviderRegistry("own-model", {"own": ModelRoute(("own-model",))})
        self.registry.register(ScriptedProvider("own"))
        self.made: list[Watched] = []
        catalog = Catalog(self.registry, frozenset({"own"}), self._make, Sealer(()))
        self.follower = UpstreamFollower(catalog, late_seconds=0.01)

    async def has(self, *entries: dict[str, Any], routes: dict[str, Any] | None = None) -> None:
        """The database has these upstreams and routes now."""
        upstreams = [
            Opened(StoredUpstream(one["name"], one, None, True, 1, 0, 0), KeyedEntry.model_validate(one))
            for one in entries
        ]
        self.follower.take(None, (upstreams, [StoredRoute(*route, 0) for route in (routes or {}).items()]))
        await self.follower.settled()

    def asked(self, model: str) -> list[str]:
        """Who is asked for a model."""
        return [target.provider.name for target in self.registry.resolve(model)]

    def _make(self, entry: KeyedEntry) -> Watched:
        self.made.append(Watched(entry))
        return self.made[-1]


async def test_what_has_not_changed_keeps_its_provider() -> None:
    """With its breaker and its connections; what has changed is another one, and the old one is closed."""
    follow = Follow()
    await follow.has({"name": "a"}, {"name": "b"})
    await follow.has({"name": "b"}, {"name": "a", "timeout": 5})
    a, b, new_a = follow.made
    assert list(follow.registry.providers)[1:] == [b, new_a]
    await a.closed.wait()
    assert (a.told, b.told, new_a.told) == (["start", "retire", "close"], ["start"], ["start"])
    await follow.follower.aclose()
    assert (b.told, new_a.told) == (["start", "close"], ["start", "close"])


async def test_an_upstream_with_a_call_is_not_closed_before_the_call_is_over() -> None:
    """However long it takes; the registry forgets it at once."""
    follow = Follow()
    await follow.has({"name": "a"}, {"name": "b"})
    a, b = follow.made
    a.busy = True
    await follow.has()
    await b.closed.wait()
    assert a.told == ["start", "retire"]
    assert [provider.name for provider in follow.registry.providers] == ["own"]
    a.busy = False
    await a.closed.wait()


async def test_an_upstream_that_can_t_be_made_takes_nothing_along() -> None:
    """The others are there, and it is told why it isn't."""
    follow = Follow()
    await follow.has({"name": "a", "timeout": 13}, {"name": "b"}, routes={"r": ["a/a-model", "b-model"]})
    assert follow.asked("r") == ["b"]
    assert follow.follower.faults == {"a": "timeout: brings bad luck"}
    await follow.has({"name": "a"}, {"name": "b"}, routes={"r": ["a-model", "b-model"]})
    assert (follow.asked("r"), follow.follower.faults) == (["a", "b"], {})
    await follow.follower.aclose()


async def test_routes_of_the_settings_stay_and_circles_are_left_out() -> None:
    """Whatever the database says."""
    follow = Follow()
    await follow.has({"name": "a"}, routes={"own": ["a-model"], "x": ["y"], "y": ["x"], "any": {"a-model": 1}})
    assert (follow.asked("own"), follow.asked("any")) == (["own"], ["a"])
    # The first of the two is taken, and leads nowhere; the second would close the circle.
    assert set(follow.registry.routes) == {"own", "any", "x"}
    await follow.has()
    assert set(follow.registry.routes) == {"own"}


# ── Over real sockets ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def book(tmp_path: Any) -> Iterator[Book]:
    """The upstreams of a database that a gateway follows."""
    database = Database(f"sqlite:///{tmp_path}/gateway.db", timeout=10)
    migrate(database)
    yield Book(database)
    database.close()


@pytest.fixture
def gateway(site: LiveSimulator, start_gateway: StartGateway, book: Book, tmp_path: Any) -> Iterator[LiveGateway]:
    """That gateway, with two upstreams on one route."""
    site.site.update(api_latency_s=0.02)
    entry = {"base_url": site.api_url, "any_model": True, "key": "sk-of-a-simulated-upstream"}
    book.do("add", {**entry, "name": "a"})
    book.do("add", {**entry, "name": "b"})
    book.do("set_route", "live", ["a/m", "b/m"])
    url = f"sqlite:///{tmp_path}/gateway.db"
    with start_gateway(database_url=url, journal_dir=tmp_path / "journal", secret_key=SECRET) as running:
        yield running


def _chat(client: httpx.Client, *, stream: bool) -> str:
    """What was wrong with an answer; empty for nothing."""
    body = {"model": "live", "messages": [{"role": "user", "content": "Hello"}], "stream": stream}
    response = client.post("/v1/chat/completions", json=body)
    if response.status_code != 200:
        return f"{response.status_code} {response.text[:200]}"
    return "" if not stream or response.text.rstrip().endswith("data: [DONE]") else response.text[-200:]


def test_no_request_is_lost_while_upstreams_change(gateway: LiveGateway, book: Book, site: LiveSimulator) -> None:
    """Added, changed, disabled, put in another order, removed, thirty times, under requests of both kinds."""
    ended = threading.Event()
    entry = {"base_url": site.api_url, "any_model": True}

    def ask(number: int) -> tuple[int, set[str]]:
        count, faults = 0, set()
        with gateway.client() as client:
            while not ended.is_set():
                faults.add(_chat(client, stream=(count + number) % 2 == 0))
                count += 1
        return count, faults - {""}

    def seen() -> set[str]:
        return set(client.get("/ready").json()["providers"])

    with ThreadPoolExecutor(_CALLERS) as pool, gateway.client() as client:
        callers = [pool.submit(ask, number) for number in range(_CALLERS)]
        try:
            for number in range(_CHANGES // 6):
                name, last = f"c{number}", ("a", "b")[number % 2]
                book.do("add", {**entry, "name": name})
                until(lambda name=name: name in seen())  # type: ignore[misc]  # mypy can't infer a lambda with defaults
                book.do("set_route", "live", [f"{name}/m", "a/m", "b/m"])
                book.do("change", last, {"timeout": 60 + number, "position": 1})
                book.do("change", last, {"enabled": False})
                until(lambda last=last: last not in seen())  # type: ignore[misc]
                book.do("change", last, {"enabled": True})
                book.do("set_route", "live", {"a/m": 1, "b/m": 2})
                book.do("remove", name)
                until(lambda name=name, last=last: name not in seen() and last in seen())  # type: ignore[misc]
        finally:
            ended.set()
        results = [caller.result() for caller in callers]
    assert [faults for _, faults in results if faults] == []
    assert all(count for count, _ in results)


def test_a_stream_outlives_its_upstream(gateway: LiveGateway, book: Book, site: LiveSimulator) -> None:
    """The upstream is removed in the middle of an answer: the answer goes on to its end, the next one is another's."""
    site.site.update(api_chunk_delay_s=0.2)
    body = {"model": "live", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    with gateway.client() as client, gateway.client() as other:
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            assert response.headers["x-provider"] == "a"
            lines = response.iter_lines()
            next(line for line in lines if line)
            book.do("set_route", "live", ["b/m"])
            book.do("remove", "a")
            until(lambda: "a" not in other.get("/ready").json()["providers"])
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "stop"
        site.site.update(api_chunk_delay_s=0)
        assert client.post("/v1/chat/completions", json=body).headers["x-provider"] == "b"
