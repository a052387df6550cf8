"""Upstreams and routes by the admin API: added, tried, changed, removed, and asked for who would answer."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.providers.entries import KeyedEntry
from app.storage.database import Database
from simulator.live import LiveSimulator
from tests.api.admin.conftest import Opened, create
from tests.conftest import RunLog, StartGateway
from tests.live import ALICE_KEY, LiveGateway, until

UPSTREAM_SECRET, TOKEN = "sk-simulated-77be1c", "token-40d1ae"


@pytest.fixture
def keeper(
    start_gateway: StartGateway, database: Database, settings: dict[str, Any], site: LiveSimulator
) -> Iterator[LiveGateway]:
    """A gateway that can keep secrets, beside an upstream that opens to one key."""
    site.site.update(api_key=UPSTREAM_SECRET)
    with start_gateway(**settings, secret_key="k" * 32, model_routes="fast=kimi-k2-instruct") as gateway:
        yield gateway


@pytest.fixture
def entry(site: LiveSimulator) -> dict[str, Any]:
    """An upstream that may be added."""
    return {"name": "gpu", "base_url": site.api_url, "key": UPSTREAM_SECRET, "models": ["qwen3"], "discover": False}


def _ask(keeper: LiveGateway, model: str, key: str = ALICE_KEY) -> httpx.Response:
    with keeper.client(key) as client:
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
        return client.post("/v1/chat/completions", json=body)


def test_an_upstream_is_added_and_answers(admin: httpx.Client, keeper: LiveGateway, entry: dict[str, Any]) -> None:
    """At once on the worker that was told; changed, disabled and removed likewise, and the log knows who did it."""
    assert _ask(keeper, "qwen3").status_code == 404
    added = admin.post("/upstreams", json=entry)
    assert added.status_code == 201
    shown = added.json()
    assert (shown["name"], shown["source"], shown["ready"], shown["enabled"]) == ("gpu", "database", True, True)
    assert (shown["models"], shown["secrets"], shown["fault"]) == (["qwen3"], ["key"], None)
    assert _ask(keeper, "qwen3").headers["x-provider"] == "gpu"
    etag = admin.get("/upstreams/gpu").headers["etag"]
    assert etag == added.headers["etag"]
    patched = admin.patch("/upstreams/gpu", json={"models": {"mine": "qwen3"}}, headers={"if-match": etag})
    assert patched.json()["models"] == ["mine"]
    assert admin.patch("/upstreams/gpu", json={"timeout": 3}, headers={"if-match": etag}).status_code == 412
    assert [_ask(keeper, model).status_code for model in ("mine", "gpu/mine", "made-up")] == [200, 200, 404]
    assert admin.patch("/upstreams/gpu", json={"enabled": False}).json()["models"] == []
    assert _ask(keeper, "mine").status_code == 404
    assert admin.delete("/upstreams/gpu", headers={"if-match": etag}).status_code == 412
    assert admin.delete("/upstreams/gpu").status_code == 204
    assert admin.get("/upstreams/gpu").status_code == 404
    actions = admin.get("/audit", params={"subject": "upstream:gpu"}).json()["data"]
    assert [(one["action"], one["via"]) for one in reversed(actions)] == [
        *(
            ("upstream.create", "api"),
            ("upstream.update", "api"),
            ("upstream.update", "api"),
            ("upstream.delete", "api"),
        )
    ]


# Fields of an upstream, as they are at first, if at all, and another value of each.
_FIRST: dict[str, Any] = {
    "base_url": "http://127.0.0.1:9/v1",
    "models": [{"id": "qwen3"}],
    "context_length": 1000,
    "timeout": 30.0,
    "breaker": {"minimum_calls": 7},
    "headers": {"X-Team": {"env": "TEAM_OF_TESTS"}},
}
_OTHERS: dict[str, Any] = {
    "preset": "ollama",
    "kind": "anthropic",
    "base_url": "http://127.0.0.1:10/v1",
    "key_env": "KEY_OF_TESTS",
    "models": [{"id": "qwen3", "upstream_id": "other"}],
    "any_model": True,
    "discover": False,
    "context_length": 2000,
    "abilities": ["tools"],
    "headers": {"X-Team": {"env": "KEY_OF_TESTS"}},
    "concurrency": 3,
    "queue": 5,
    "queue_timeout": 2.0,
    "timeout": 20.0,
    "idle_timeout": 4.0,
    "longest_pause": 6.0,
    "retries": 1,
    "breaker": {"minimum_calls": 8},
    "max_tokens": 50,
    "option_bounds": {"temperature": [0.0, 1.0]},
    "schema_rules": "moonshot",
    "max_tokens_field": "max_completion_tokens",
    "stream_usage": False,
    "reasoning_field": "reasoning_content",
    "one_system_message": True,
}


@pytest.mark.parametrize("how", ["absent", "null", "another"])
def test_a_patch_changes_what_it_names_and_nothing_else(
    admin: httpx.Client, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over every field of an upstream: what is absent stays, null takes away, a value replaces."""
    for variable in ("TEAM_OF_TESTS", "KEY_OF_TESTS"):
        monkeypatch.setenv(variable, "blue-team-of-tests")
    assert _OTHERS.keys() | {"name", "key"} == KeyedEntry.model_fields.keys()
    for place, (field, another) in enumerate(_OTHERS.items()):
        name = f"u{place}"
        admin.post("/upstreams", json={"name": name, **_FIRST}).raise_for_status()
        before = admin.get(f"/upstreams/{name}").json()
        body = {} if how == "absent" else {field: None if how == "null" else another}
        answer = admin.patch(f"/upstreams/{name}", json=body)
        if how == "null" and field == "base_url":
            assert answer.status_code == 400  # there is no preset that has one
            expected = before["entry"]
        else:
            assert answer.status_code == 200, (field, answer.text)
            expected = {**before["entry"], **body}
            if how == "null":
                expected.pop(field)
        shown = admin.get(f"/upstreams/{name}").json()
        assert shown["entry"] == expected, field
        assert (shown["enabled"], shown["position"]) == (True, before["position"])


def test_a_patch_of_a_key_an_order_and_a_name(admin: httpx.Client, entry: dict[str, Any]) -> None:
    """Absent they stay; a key is taken away by null, the others have to be something, and a name stays as it is."""
    admin.post("/upstreams", json={"name": "other", "base_url": "http://127.0.0.1:9"}).raise_for_status()
    admin.post("/upstreams", json=entry).raise_for_status()

    def shown() -> tuple[Any, ...]:
        one = admin.get("/upstreams/gpu").json()
        return one["name"], one["secrets"], one["enabled"], one["position"]

    first = ("gpu", ["key"], True, 2)
    for param in ("enabled", "position", "name"):
        refused = admin.patch("/upstreams/gpu", json={param: None})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
        assert shown() == first
    changes: tuple[tuple[dict[str, Any], tuple[Any, ...]], ...] = (
        ({}, first),
        ({"name": "gpu"}, first),
        ({"key": "sk-another-key"}, first),
        ({"position": 1}, ("gpu", ["key"], True, 1)),
        ({"enabled": False}, ("gpu", ["key"], False, 1)),
        ({"key": None}, ("gpu", [], False, 1)),
    )
    for body, expected in changes:
        assert admin.patch("/upstreams/gpu", json=body).status_code == 200
        assert shown() == expected


def test_secrets_are_never_shown_again(
    admin: httpx.Client, keeper: LiveGateway, entry: dict[str, Any], database: Database, run_log: RunLog
) -> None:
    """Neither in an answer nor in a log, also where the upstream refuses them; and no table has them."""
    begin = run_log.path.stat().st_size
    wrong = {**entry, "key": "sk-refused-0d0d0d", "headers": {"X-Token": TOKEN}}
    answers = [
        admin.post("/probe", json=wrong),
        admin.post("/upstreams", json=wrong, headers={"idempotency-key": "once"}),
        admin.post("/upstreams", json=wrong, headers={"idempotency-key": "once"}),
        admin.patch("/upstreams/gpu", json={"retries": 0}),
        admin.patch("/upstreams/gpu", json={"base_url": "http://127.0.0.1:9"}),
        _ask(keeper, "qwen3"),
        *(admin.get(path) for path in ("/upstreams", "/upstreams/gpu", "/audit", "/settings", "/state", "/routes")),
    ]
    codes = [answer.status_code for answer in answers]
    assert codes == [200, 201, 201, 200, 400, 502, *[200] * 6]
    assert answers[1].json()["secrets"] == ["key", "headers.X-Token"]
    run_log.stream.flush()
    said = run_log.path.read_bytes()[begin:].decode() + "".join(answer.text for answer in answers)
    with database.transaction(reads=True) as connection:
        for table in ("upstream", "audit", "repeated"):
            said += str(connection.exec_driver_sql(f"SELECT * FROM {table}").all())
    assert [secret for secret in ("sk-refused-0d0d0d", TOKEN, "k" * 32) if secret in said] == []


def test_a_request_that_is_sent_again_adds_nothing(admin: httpx.Client, entry: dict[str, Any]) -> None:
    """It is answered with what there is; another request with the same key is refused."""
    key = {"idempotency-key": "add-gpu"}
    assert [admin.post("/upstreams", json=entry, headers=key).status_code for _ in range(2)] == [201, 201]
    assert admin.post("/upstreams", json=entry | {"timeout": 3}, headers=key).status_code == 409
    assert len(admin.get("/upstreams").json()["data"]) == 2


HUGE, ENDLESS = 10**20, int("9" * 400)
SINCE = "2026-01-01T00:00:00Z"
NUMBERS: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/upstreams", {"context_length": HUGE}),
    ("POST", "/upstreams", {"models": [{"id": "m", "max_tokens": 2**63}]}),
    ("POST", "/upstreams", {"option_bounds": {"top_k": [0, ENDLESS]}}),
    ("PATCH", "/upstreams/gpu", {"context_length": HUGE}),
    ("PUT", "/routes/kimi", {"targets": {"kimi-k2-instruct": ENDLESS}}),
    ("PUT", "/prices", {"data": [{"model": "m", "since": SINCE, "input": HUGE, "output": 1, "cached": 1}]}),
    ("PUT", "/limits/gateway", {"limits": f"{ENDLESS} requests/minute"}),
    ("POST", "/keys", {"name": "a", "limits": f"${ENDLESS}/day"}),
]


def test_what_cannot_be_stored_is_refused(admin: httpx.Client, keeper: LiveGateway, entry: dict[str, Any]) -> None:
    """Numbers that are too large and broken texts, wherever they are, and whether or not the request may come again."""
    admin.post("/upstreams", json=entry).raise_for_status()
    for headers in ({}, {"idempotency-key": "once"}):
        for method, path, fields in NUMBERS:
            body = {**entry, "name": "other", **fields} if path == "/upstreams" else fields
            answer = admin.request(method, path, json=body, headers=headers)
            assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error"), fields
        half = json.dumps({**entry, "name": "other", "key": "\ud800"})  # a secret that is no text
        answer = admin.post("/upstreams", content=half, headers={**headers, "content-type": "application/json"})
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


def test_an_upstream_is_tried_before_it_is_added(
    admin: httpx.Client, entry: dict[str, Any], site: LiveSimulator
) -> None:
    """With its key and its list of models; a trial leaves nothing behind and asks for no answer."""
    tried = admin.post("/probe", json=entry | {"discover": True, "models": []}).json()
    assert tried["ok"]
    assert tried["models"]
    refused = admin.post("/probe", json=entry | {"key": "sk-refused-0d0d0d"}).json()
    assert (refused["ok"], refused["code"]) == (False, "upstream_key_rejected")
    assert [one["name"] for one in admin.get("/upstreams").json()["data"]] == ["kimi-web"]
    probe = admin.post("/upstreams/kimi-web/probe").json()
    assert (probe["ok"], probe["code"], probe["message"]) == (True, None, None)
    assert site.site.counters.accepted == 0


def test_routes_are_set_and_tried(
    admin: httpx.Client, opened: Opened, keeper: LiveGateway, entry: dict[str, Any], database: Database
) -> None:
    """In order or with weights, over those of the settings; who would answer is said for everybody, or for a key."""
    admin.post("/upstreams", json=entry).raise_for_status()
    put = admin.put("/routes/kimi", json={"targets": ["gpu/qwen3", "kimi-k2-instruct"]})
    assert put.json()["targets"] == ["gpu/qwen3", "kimi-k2-instruct"]
    assert _ask(keeper, "kimi").headers["x-provider"] == "gpu"
    answer = admin.get("/routes/answer", params={"model": "kimi"}).json()
    assert (answer["kind"], [one["upstream"] for one in answer["targets"]]) == ("route", ["gpu", "kimi-web"])
    admin.patch("/upstreams/gpu", json={"enabled": False}).raise_for_status()
    assert _ask(keeper, "kimi").headers["x-provider"] == "kimi-web"
    admin.patch("/upstreams/gpu", json={"enabled": True}).raise_for_status()
    assert admin.put("/routes/shared", json={"targets": {"gpu/qwen3": 1, "fast": 2}}).status_code == 200
    assert admin.get("/routes/answer", params={"model": "shared"}).json()["kind"] == "shared"
    limited = create(database, "limited", models=["gpu*"])
    nobody = admin.get("/routes/answer", params={"model": "shared", "key": limited.key.id}).json()
    assert (nobody["kind"], nobody["targets"]) == ("nothing", [])
    assert "does not exist" in nobody["message"]
    routes = {one["model"]: one for one in admin.get("/routes").json()["data"]}
    assert (routes["kimi"]["source"], routes["kimi"]["etag"]) == ("database", put.headers["etag"])
    assert (routes["fast"]["source"], routes["fast"]["given"]) == ("settings", ["kimi-k2-instruct"])
    assert (routes["qwen3"]["source"], routes["qwen3"]["targets"]) == ("upstream", ["gpu/qwen3"])
    assert routes["shared"]["given"] == {"gpu/qwen3": 1, "fast": 2}
    refused = admin.put("/routes/fast", json={"targets": ["gpu/qwen3"]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "name")
    assert admin.put("/routes/kimi", json={"targets": ["fast"]}, headers={"if-match": '"old"'}).status_code == 412
    assert admin.delete("/upstreams/gpu").status_code == 400
    assert [admin.delete(f"/routes/{name}").status_code for name in ("kimi", "shared")] == [204, 204]
    assert _ask(keeper, "kimi").headers["x-provider"] == "kimi-web"
    assert admin.delete("/upstreams/gpu").status_code == 204


def test_every_worker_follows(
    admin: httpx.Client, start_gateway: StartGateway, settings: dict[str, Any], entry: dict[str, Any]
) -> None:
    """Another worker on the same database answers soon; one that starts later answers from its first request on."""
    others = [{**settings, "journal_dir": settings["journal_dir"].with_name(name)} for name in ("second", "third")]
    with start_gateway(**others[0], secret_key=f"{'n' * 32},{'k' * 32}") as second:
        admin.post("/upstreams", json=entry).raise_for_status()
        until(lambda: _ask(second, "qwen3").status_code == 200)
        with start_gateway(**others[1], secret_key="k" * 32) as third:
            assert _ask(third, "qwen3").headers["x-provider"] == "gpu"
        with (
            start_gateway(**others[1]) as without_key,
            without_key.client(admin.headers["authorization"][7:]) as client,
        ):
            assert _ask(without_key, "qwen3").status_code == 404
            (upstream,) = (one for one in client.get("/admin/v1/upstreams").json()["data"] if one["name"] == "gpu")
            assert (upstream["ready"], upstream["fault"]) == (False, "SECRET_KEY is not set, and its key is encrypted")
            assert "gpu" not in json.dumps(client.get("/ready").json()["providers"])
