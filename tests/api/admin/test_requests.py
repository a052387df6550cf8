"""The ledger by the admin API: pages, sums, exports."""

import csv
import io
import json
from datetime import UTC, datetime
from typing import Any

import httpx

from app.storage.clock import now
from app.storage.database import Database
from app.storage.usage import DAY, HOUR
from tests.api.admin.conftest import create
from tests.live import LiveGateway, until
from tests.storage.calls import call, some_calls, write

_COUNT = 400


def _written(database: Database) -> list[Any]:
    """Calls of the last two days, in the order of time."""
    calls = some_calls(_COUNT, begin=now() - 2 * DAY, milliseconds=2 * DAY - HOUR)
    write(database, calls)
    return calls


def _pages(client: httpx.Client, **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = client.get("/requests", params=params | ({"cursor": cursor} if cursor else {})).json()
        found += page["data"]
        cursor = page["next"]
        if cursor is None:
            return found


def test_a_request_is_found_by_either_of_its_ids(admin: httpx.Client, keeper: LiveGateway, database: Database) -> None:
    """With what it has used, and without any text; who has asked is its key."""
    new = create(database, "ada", project="lab")
    with keeper.client(new.secret) as client:
        body = {"messages": [{"role": "user", "content": "a secret of mine"}], "user": "me"}
        answer = client.post("/v1/chat/completions", json=body)
    [row] = until(lambda: admin.get("/requests").json()["data"])
    assert (row["key_id"], row["project"], row["outcome"], row["status"]) == (new.key.id, "lab", "completed", 200)
    assert row["request_id"] == answer.headers["x-request-id"]
    assert row["tokens_in"] > 0
    detail = admin.get(f"/requests/{row['id']}").json()
    assert row.items() <= detail.items()
    assert admin.get(f"/requests/{row['request_id']}").json() == detail
    assert admin.get("/requests", params={"session": row["session"]}).json()["data"] == [row]
    assert admin.get("/requests", params={"session": "session-of-nobody"}).json()["data"] == []
    assert "secret" not in str(row)
    for nothing in ("1", "9223372036854775807", "9223372036854775808", "99999999999999999999", "req_nothing", "٣"):
        assert admin.get(f"/requests/{nothing}").status_code == 404


def test_pages_neither_skip_nor_repeat_while_requests_come_in(reader: httpx.Client, database: Database) -> None:
    """What was there at first is on the pages once, the newest first, whatever is written in between."""
    calls = _written(database)
    found: list[str] = []
    cursor, number = None, 0
    while number == 0 or cursor is not None:
        page = reader.get("/requests", params={"limit": 37} | ({"cursor": cursor} if cursor else {})).json()
        found += [row["request_id"] for row in page["data"]]
        cursor = page["next"]
        write(database, [call(at=now(), count=number, request_id=f"new-{number}")])
        number += 1
    assert found == [row.request_id for row in reversed(calls)]


def test_filters_find_what_they_say(reader: httpx.Client, database: Database) -> None:
    """Each by itself and with others, over all pages, and in the export likewise."""
    calls = _written(database)
    middle = calls[_COUNT // 2].at
    at = datetime.fromtimestamp(middle / 1000, UTC).isoformat()
    for params, wanted in (
        ({}, lambda _: True),
        ({"key": "k_bob"}, lambda row: row.key_id == "k_bob"),
        ({"project": "shop"}, lambda row: row.project == "shop"),
        ({"model": "qwen"}, lambda row: row.served == "qwen"),
        ({"model": "unlisted"}, lambda row: not row.listed),
        ({"outcome": "abandoned"}, lambda row: row.outcome == "abandoned"),
        ({"error": "upstream_timeout"}, lambda row: row.error == "upstream_timeout"),
        ({"trouble": "true", "key": "k_ada"}, lambda row: row.outcome != "completed" and row.key_id == "k_ada"),
        ({"since": at}, lambda row: row.at >= middle),
        ({"until": at, "model": "kimi"}, lambda row: row.at < middle and row.served == "kimi"),
        ({"since": "9998-12-31T00:00:00Z"}, lambda _: False),
        ({"until": "1971-01-01T00:00:00Z"}, lambda _: False),
        ({"provider": "nobody"}, lambda _: False),
    ):
        expected = [row.request_id for row in reversed(calls) if wanted(row)]
        assert [row["request_id"] for row in _pages(reader, **params, limit=50)] == expected, params
        lines = reader.get("/export/requests.jsonl", params=params).text.splitlines()
        assert [json.loads(line)["request_id"] for line in lines] == expected, params


def test_the_export_comes_in_parts_and_is_what_the_pages_are(reader: httpx.Client, database: Database) -> None:
    """A line for each request, more than are read at once; as a file to be kept."""
    write(
        database,
        [call(at=now() - 1_000_000 + place, count=0, request_id=f"request-{place}") for place in range(2345)],
    )
    with reader.stream("GET", "/export/requests.jsonl") as answer:
        assert answer.headers["content-disposition"] == 'attachment; filename="requests.jsonl"'
        assert "content-length" not in answer.headers
        lines = [json.loads(line) for line in answer.iter_lines()]
    assert [line["request_id"] for line in lines] == [f"request-{place}" for place in reversed(range(2345))]
    assert lines[:200] == reader.get("/requests?limit=200").json()["data"]


def test_sums_add_up_to_the_requests(reader: httpx.Client, database: Database) -> None:
    """In one, by all that they can be told apart by, by hour and by day; as a table, too."""
    calls = [row for row in _written(database) if row.outcome not in ("refused", "replayed")]
    whole = reader.get("/usage").json()
    [total] = whole["data"]
    assert (total["requests"], total["tokens_in"]) == (_COUNT, sum(row.tokens_in for row in calls))
    assert total["begins_at"] is total["key"] is total["model"] is None
    assert 0 < total["p50_milliseconds"] <= total["p95_milliseconds"]
    for by in (["key"], ["model", "provider"], ["outcome"], ["project"]):
        for every in ("hour", "day", None):
            params: dict[str, Any] = {"by": by} | ({"every": every} if every else {})
            data = reader.get("/usage", params=params).json()["data"]
            assert sum(one["requests"] for one in data) == _COUNT, params
            assert all((one["begins_at"] is None) is (every is None) for one in data)
            assert all(one[name] is not None for one in data for name in by)
    assert {one["key"]: one["requests"] for one in reader.get("/usage?by=key").json()["data"]} == {
        key: len([row for row in calls if row.key_id == key]) for key in ("k_ada", "k_bob", "k_eve")
    }
    table = list(csv.DictReader(io.StringIO(reader.get("/export/usage.csv").text)))
    assert sum(int(row["requests"]) for row in table) == _COUNT
    too_old = reader.get("/usage?by=key&every=hour&since=2026-01-01T00:00:00Z&until=2026-02-01T00:00:00Z")
    assert (too_old.status_code, too_old.json()["error"]["param"]) == (400, "every")
