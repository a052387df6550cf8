"""What requests that are passed on cost, and whether limits let them in: through the whole stack."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import httpx
import pytest

from app.domain.granting import Scope
from app.domain.units import UNITS
from app.keys.administration import NewSecret, create_key
from app.storage.database import Database
from app.storage.limits import set_limits
from app.storage.prices import Price, set_prices
from app.storage.schema import migrate
from simulator.live import LiveSimulator
from tests.live import ALICE_KEY, until
from tests.relaying import EMBEDDER, LISTENER, PAINTER, RANKER, SPEAKER, relaying
from tests.storage.calls import rows_of

MEGABYTE = 1024 * 1024
# What httpx takes as a form: names with file names and values.
Part = tuple[str, tuple[str | None, str | bytes]]
Form = list[Part]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An SQLite file."""
    database = Database(f"sqlite:///{tmp_path}/gateway.db", timeout=5)
    migrate(database)
    yield database
    database.close()


@pytest.fixture
def client(site: LiveSimulator, log_stream: TextIO, database: Database, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client with a key of the project `lab`, at a gateway that keeps a ledger."""
    key = new_key(database)
    settings: dict[str, Any] = {"database_url": f"sqlite:///{tmp_path}/gateway.db", "journal_dir": tmp_path / "journal"}
    with relaying(site, log_stream, **settings) as gateway, gateway.client(key.secret) as http:
        yield http


def new_key(database: Database, limits: str | None = None, **fields: Any) -> NewSecret:
    """A key, perhaps with limits."""
    with database.transaction() as connection:
        new = create_key(connection, name=f"ada {limits} {fields}", project="lab", **fields)
        if limits is not None:
            set_limits(database, connection, Scope("key", new.key.id), limits)
    return new


def with_key(client: httpx.Client, key: NewSecret) -> dict[str, str]:
    """Headers with another key."""
    return {"Authorization": f"Bearer {key.secret}"}


def test_each_request_is_a_row(client: httpx.Client, database: Database) -> None:
    """With its endpoint as its dialect, its model, and the tokens that the upstream tells of."""
    upload: Form = [("model", (None, LISTENER)), ("file", ("talk.wav", b"RIFF"))]
    answers = [
        client.post("/v1/embeddings", json={"model": "small", "input": "x" * 400, "user": "bob"}),
        client.post("/v1/images/generations", json={"model": PAINTER, "prompt": "a cat", "size": "512x512"}),
        client.post("/v1/rerank", json={"model": RANKER, "query": "a", "documents": ["x" * 40]}),
        client.post("/v1/audio/transcriptions", files=upload),
        client.post("/v1/audio/transcriptions", files=[*upload, ("stream", (None, "true"))]),
    ]
    assert [answer.status_code for answer in answers] == [200] * 5
    rows = rows_of(database, 5)
    assert [row["dialect"] for row in rows] == [
        *("embeddings", "images", "rerank"),
        *("transcriptions", "transcriptions"),
    ]
    assert [(row["model"], row["provider"]) for row in rows[:2]] == [("small", "moonshot"), (PAINTER, "moonshot")]
    assert [(row["tokens_in"], row["tokens_out"], row["estimated"]) for row in rows] == [
        *((100, 0, 0), (2, 1024, 0), (10, 0, 0), (14, 5, 0), (14, 5, 0))
    ]
    assert {(row["outcome"], row["status"], row["project"]) for row in rows} == {("completed", 200, "lab")}
    assert [row["streamed"] for row in rows] == [0, 0, 0, 0, 1]
    assert rows[0]["end_user"] == "bob"
    assert all(row["request_id"] == answer.headers["x-request-id"] for row, answer in zip(rows, answers, strict=True))


def test_what_is_used_besides_tokens_is_in_the_ledger(client: httpx.Client, database: Database) -> None:
    """And in metrics: images, seconds, characters, searches. A key's holder is told the sums, and what they cost."""
    with database.transaction() as connection:
        prices = {PAINTER: {"image": 40_000_000}, LISTENER: {"audio_second": 100_000}, SPEAKER: {"character": 15_000}}
        set_prices(database, connection, [Price(model, 0, 0, 0, 0, **price) for model, price in prices.items()])
    painted = {"model": PAINTER, "prompt": "a cat"}
    verbose: Form = [
        ("model", (None, LISTENER)),
        ("response_format", (None, "verbose_json")),
        ("file", ("talk.wav", b"RIFF")),
    ]
    answers = [
        client.post("/v1/images/generations", json=painted),
        client.post("/v1/images/generations", json={**painted, "stream": True}),
        client.post("/v1/audio/transcriptions", files=verbose),
        client.post("/v1/audio/speech", json={"model": SPEAKER, "input": "Good day. 你好", "voice": "alloy"}),
        client.post("/v1/rerank", json={"model": RANKER, "query": "a", "documents": ["x"] * 101}),
        client.post("/v1/embeddings", json={"model": EMBEDDER, "input": "x"}),
    ]
    assert [answer.status_code for answer in answers] == [200] * 6
    rows = rows_of(database, 6)
    assert [(row["unit"], row["amount"], row["cost"]) for row in rows] == [
        ("images", 1, 40_000_000),
        ("images", 1, 40_000_000),
        ("audio_seconds", 2, 200_000),
        ("characters", 12, 180_000),
        ("searches", 2, 0),
        (None, None, 0),
    ]
    told = client.get("/v1/key").json()["usage"]["today"]
    assert [told[name] for name in UNITS] == [2, 2, 12, 2]
    assert told["cost_usd"] == pytest.approx(0.08038)
    metrics = client.get("/metrics", headers={"Authorization": f"Bearer {ALICE_KEY}"}).text
    lines = [line for line in metrics.splitlines() if line.startswith("kimi_units_total{")]
    assert sorted(line.partition('unit="')[2] for line in lines) == [
        *('audio_seconds"} 2.0', 'characters"} 12.0', 'images"} 2.0', 'searches"} 2.0')
    ]


def test_captions_cost_what_they_last_at_least(client: httpx.Client, database: Database) -> None:
    """They tell no seconds; the end of the last one is taken, and marked as an estimate. A bare text tells nothing."""
    with database.transaction() as connection:
        set_prices(database, connection, [Price(LISTENER, 0, 0, 0, 0, audio_second=100_000)])
    for form in ("srt", "vtt", "text"):
        upload: Form = [
            ("model", (None, LISTENER)),
            ("response_format", (None, form)),
            ("file", ("talk.wav", b"RIFF")),
        ]
        assert client.post("/v1/audio/transcriptions", files=upload).status_code == 200
    rows = rows_of(database, 3)
    assert [(row["amount"], row["cost"], row["estimated"]) for row in rows] == [(2, 200_000, 1)] * 2 + [(None, 0, 0)]


def test_a_limit_in_dollars_counts_what_is_used_besides_tokens(client: httpx.Client, database: Database) -> None:
    """Also where tokens cost nothing: a quota that is spent lets no image through."""
    key = new_key(database, "$0.05/day")
    with database.transaction() as connection:
        set_prices(database, connection, [Price(PAINTER, 0, 0, 0, 0, image=40_000_000)])
    painted = {"model": PAINTER, "prompt": "a cat"}

    def paint() -> int:
        return client.post("/v1/images/generations", json=painted, headers=with_key(client, key)).status_code

    until(lambda: paint() == 429)


def test_failures_and_refusals_are_rows(client: httpx.Client, database: Database, site: LiveSimulator) -> None:
    """A failed upstream costs nothing; a model that can't is no request; who steps in is told of."""
    site.site.update(api_failure="openai_error", api_failure_times=2)
    assert client.post("/v1/embeddings", json={"model": "small", "input": "x"}).status_code == 503
    assert client.post("/v1/embeddings", json={"model": "either", "input": "x"}).status_code == 200
    assert client.post("/v1/embeddings", json={"model": "kimi", "input": "x"}).status_code == 400
    assert client.post("/v1/embeddings", content=b"no").status_code == 400
    failed, instead, unable, unread = rows_of(database, 4)
    assert (failed["outcome"], failed["error"], failed["tokens_in"]) == ("failed", "upstream_unavailable", 0)
    assert (instead["provider"], instead["passed_over"]) == ("deepseek", "moonshot=upstream_unavailable")
    assert (unable["outcome"], unable["model"], unable["dialect"]) == ("refused", "kimi", "embeddings")
    assert (unread["outcome"], unread["dialect"]) == ("refused", "embeddings")
    assert client.get("/v1/key").json()["usage"]["today"]["requests"] == 2


def test_limits_hold(client: httpx.Client, database: Database) -> None:
    """Requests and tokens of a key are those of all endpoints together; headers say what is left."""
    key = new_key(database, "2 requests/hour")
    answer = client.post("/v1/embeddings", json={"model": "small", "input": "x"}, headers=with_key(client, key))
    assert (answer.status_code, answer.headers["x-ratelimit-remaining-requests"]) == (200, "1")
    upload: Form = [("model", (None, LISTENER)), ("file", ("talk.wav", bytes(MEGABYTE)))]
    statuses = [
        client.post("/v1/audio/transcriptions", files=upload, headers=with_key(client, key)).status_code
        for _ in range(2)
    ]
    assert statuses == [200, 429]
    key = new_key(database, "150 tokens/day")
    body = {"model": "small", "input": ["x" * 200, "x" * 200]}
    statuses = [client.post("/v1/embeddings", json=body, headers=with_key(client, key)).status_code for _ in range(2)]
    assert statuses == [200, 429]


def test_a_key_may_use_its_models_only(client: httpx.Client, database: Database) -> None:
    """What it may not use doesn't exist for it, nor is it named to it, wherever it stands in a form."""
    key = new_key(database, models=(LISTENER,))
    answer = client.post("/v1/embeddings", json={"model": EMBEDDER, "input": "x"}, headers=with_key(client, key))
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert (
        EMBEDDER
        not in client.post(
            "/v1/embeddings", json={"model": LISTENER, "input": "x"}, headers=with_key(client, key)
        ).json()["error"]["message"]
    )
    file: Part = ("file", ("a.wav", bytes(MEGABYTE)))
    allowed: Part = ("model", (None, LISTENER))
    other: Part = ("model", (None, "ear"))
    forms: list[tuple[int, Form]] = [
        (200, [allowed, file]),
        (200, [file, allowed]),
        (404, [other, file]),
        (404, [file, other]),
        (400, [allowed, file, other]),
        (400, [other, allowed, file]),
    ]
    for status, form in forms:
        answer = client.post("/v1/audio/transcriptions", files=form, headers=with_key(client, key))
        assert answer.status_code == status
