"""The feed of requests: what comes, to whom, and how often the database is asked for it."""

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, aclosing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, event

from app.api.admin import feed as feeds
from app.api.admin.feed import TASK, Feed
from app.storage.clock import now
from app.storage.database import Database
from app.storage.request_pages import RowFilter
from simulator.live import LiveSimulator
from tests.api.admin.conftest import create
from tests.conftest import StartGateway
from tests.live import ALICE_KEY, WAIT_SECONDS, LiveGateway, until
from tests.ports import free_port
from tests.processes import process, until_it_listens
from tests.storage.calls import call, write


class Watcher:
    """Somebody who follows the feed."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.iter_lines()
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["x-accel-buffering"] == "no"
        assert next(self._lines) == "retry: 2000"

    def next(self) -> dict[str, Any]:
        """The next event; its id is the request's."""
        event_id = ""
        for line in self._lines:
            name, _, value = line.partition(": ")
            if name == "id":
                event_id = value
            elif name == "data":
                row: dict[str, Any] = json.loads(value)
                assert row["id"] == event_id
                return row
        raise EOFError

    def ids(self, count: int) -> list[str]:
        """The clients' ids of so many requests that come."""
        return [self.next()["request_id"] for _ in range(count)]

    def rest(self) -> list[str]:
        """All lines until the end, but for empty ones and comments."""
        return [line for line in self._lines if line and not line.startswith(":")]


@contextmanager
def watching(client: httpx.Client, last: str | None = None, **params: str) -> Iterator[Watcher]:
    """Follow the feed."""
    headers = {} if last is None else {"last-event-id": last}
    with client.stream("GET", "/requests/feed", params=params, headers=headers, timeout=WAIT_SECONDS) as response:
        assert response.status_code == 200
        yield Watcher(response)


def test_who_watches_sees_requests_of_every_worker(
    start_gateway: StartGateway, reader: httpx.Client, keeper: LiveGateway, database: Database, settings: dict[str, Any]
) -> None:
    """As they end, each once, whichever worker has served them; as the page has them."""
    new = create(database, "ada")
    chat = {"messages": [{"role": "user", "content": "Hello"}]}
    journal = settings["journal_dir"].with_name("another-journal")
    with (
        start_gateway(**settings | {"journal_dir": journal}) as another,
        watching(reader) as watcher,
        keeper.client(new.secret) as here,
        another.client(new.secret) as there,
    ):
        for number, client in enumerate((here, there, here)):
            name = {"x-request-id": f"request-{number}"}
            client.post("/v1/chat/completions", json=chat, headers=name).raise_for_status()
            row = watcher.next()
            assert row["request_id"] == f"request-{number}"
            assert row.items() <= reader.get(f"/requests/{row['id']}").json().items()


def test_long_and_late_calls_come_too(reader: httpx.Client, database: Database) -> None:
    """A call that began minutes ago comes when it ends, after others that began later; and what was before doesn't."""
    write(database, [call(at=now() - 3000, count=1, request_id="before-it-began")])
    with watching(reader) as watcher:
        write(database, [call(at=now(), count=2, request_id="short", milliseconds=5)])
        assert watcher.ids(1) == ["short"]
        ended = now()
        write(
            database,
            [
                call(at=ended - 300_000, count=3, request_id="long", milliseconds=300_000),
                call(at=ended - 50, count=4, request_id="shorter", milliseconds=60),
            ],
        )
        assert sorted(watcher.ids(2)) == ["long", "shorter"]


def test_who_comes_back_gets_what_was_missed(reader: httpx.Client, database: Database) -> None:
    """All that ended in the meantime, also what began long before; then what comes."""
    begin = now() - 60_000
    known = call(at=begin, count=1, request_id="known", milliseconds=100)
    write(database, [call(at=begin - 20_000, count=0, request_id="long before", milliseconds=100), known])
    last = next(row["id"] for row in reader.get("/requests").json()["data"] if row["request_id"] == "known")
    missed = [
        call(at=begin - 5_000, count=2, request_id="began before", milliseconds=20_000),
        call(at=begin + 12_000, count=3, request_id="short", milliseconds=10),
        call(at=begin + 11_000, count=4, request_id="of another key", key_id="k_bob", milliseconds=10),
    ]
    write(database, missed)
    with watching(reader, last, key="k_ada") as watcher:
        assert watcher.ids(2) == ["short", "began before"]
        write(database, [call(at=now(), count=5, request_id="new")])
        assert watcher.ids(1) == ["new"]


def test_an_id_that_is_none_is_refused(reader: httpx.Client) -> None:
    """Before the stream begins."""
    for last in ("req_1", "-1", "9223372036854775808", "1.5"):
        refused = reader.get("/requests/feed", headers={"last-event-id": last})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "Last-Event-ID"), last


def test_each_sees_what_it_looks_for(reader: httpx.Client, database: Database) -> None:
    """By the same filters as the pages."""
    rows: dict[str, dict[str, Any]] = {
        "plain": {},
        "of-bob": {"key_id": "k_bob", "project": "shop"},
        "failed": {"outcome": "failed", "error": "upstream_timeout", "status": 504},
        "replayed": {"outcome": "replayed"},
        "served-by-another": {"served": "qwen", "provider": "moonshot"},
        "last": {"key_id": "k_last", "project": "shop", "provider": "moonshot", "served": "qwen", "outcome": "failed"}
        | {"error": "upstream_timeout"},
    }
    wanted: dict[str, dict[str, str]] = {
        "plain": {},
        "of-bob": {"project": "shop"},
        "failed": {"trouble": "true"},
        "served-by-another": {"model": "qwen"},
    }
    with ExitStack() as stack:
        watchers = {name: stack.enter_context(watching(reader, **params)) for name, params in wanted.items()}
        by_error = stack.enter_context(watching(reader, error="upstream_timeout", provider="kimi-web"))
        by_key = stack.enter_context(watching(reader, key="k_last"))
        at = now()
        places = enumerate(rows.items())
        write(
            database, [call(at=at, count=place, request_id=n, milliseconds=place, **row) for place, (n, row) in places]
        )
        assert watchers["plain"].ids(len(rows)) == list(rows)
        assert watchers["of-bob"].ids(2) == ["of-bob", "last"]
        assert watchers["failed"].ids(2) == ["failed", "last"]
        assert watchers["served-by-another"].ids(2) == ["served-by-another", "last"]
        assert by_error.ids(1) == ["failed"]
        assert by_key.ids(1) == ["last"]


def _asking(gateway: LiveGateway) -> int:
    """How many tasks of a gateway ask the database for the feed."""

    async def count() -> int:
        return sum(task.get_name() == TASK for task in asyncio.all_tasks())

    return gateway.run(count)


def test_however_many_watch_the_database_is_asked_by_one(
    reader: httpx.Client, keeper: LiveGateway, database: Database
) -> None:
    """Twelve watchers cost what one does; when the last one has left nobody is asked, until somebody comes again."""
    looks = 0

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        nonlocal looks
        looks += "FROM request" in statement and "WHERE request.id >=" in statement

    event.listen(Engine, "before_cursor_execute", note)
    try:
        with ExitStack() as stack:
            watchers = [stack.enter_context(watching(reader)) for _ in range(12)]
            looks, begin = 0, time.monotonic()
            for number in range(3):
                write(database, [call(at=now(), count=number, request_id=f"request-{number}")])
                assert {watcher.ids(1)[0] for watcher in watchers} == {f"request-{number}"}
            # Every fifth look is two statements. Each watcher by itself would have asked as often.
            assert 0 < looks <= ((time.monotonic() - begin) / feeds._PAUSE_SECONDS + 1) * 1.2 + 1
            assert _asking(keeper) == 1
        until(lambda: not _asking(keeper))
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    with watching(reader) as watcher:
        write(database, [call(at=now(), count=9, request_id="again")])
        assert watcher.ids(1) == ["again"]


async def test_whoever_gets_nothing_is_told_so_though_others_call(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that somebody doesn't look for put off no comment: a connection without any looks dead to proxies."""
    monkeypatch.setattr(feeds, "_QUIET_SECONDS", 0.3)
    feed = Feed(database, lambda: False)
    async with aclosing(feed.follow(None, RowFilter(project="nobody"))) as rows:
        told = asyncio.ensure_future(anext(rows))
        while not told.done():
            feed._tell({"id": 1, "project": "lab"})
            await asyncio.sleep(0)
        assert await told is None


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_the_feed_ends_when_the_server_is_told_to_stop(
    database_url: str, database: Database, site: LiveSimulator, tmp_path: Path, ending: signal.Signals
) -> None:
    """It ends in good order, long before the time for running answers is over; and so does the process."""
    new = create(database, "viewer", scopes=["admin:read"])
    port = free_port()
    with (
        process(
            "main.py",
            API_MASTER_KEY=ALICE_KEY,
            CHAT_PAGE_URL=site.page_url,
            DATABASE_URL=database_url,
            JOURNAL_DIR=str(tmp_path / "journal"),
            API_PORT=str(port),
            DRAIN_SECONDS="0.1",
            SHUTDOWN_GRACE_SECONDS="100000",
        ) as server,
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}/admin/v1",
            headers={"authorization": f"Bearer {new.secret}"},
            trust_env=False,
            timeout=WAIT_SECONDS,
        ) as client,
    ):
        until_it_listens(server)
        with watching(client) as watcher:
            server.send_signal(ending)
            assert watcher.rest() == []
        assert server.wait(WAIT_SECONDS) in (0, -ending, 128 + ending)
