"""State, workers, upstreams, sessions, settings, prices; and what a worker has imported for them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from app.storage.database import Database
from simulator.live import LiveSimulator
from tests.api.admin.conftest import create
from tests.conftest import StartGateway
from tests.live import ALICE_KEY, BOB_KEY, LiveGateway, until

ROOT = Path(__file__).parents[3]


def test_all_workers_are_listed_though_nothing_is_limited(
    start_gateway: StartGateway, reader: httpx.Client, keeper: LiveGateway, settings: dict[str, Any]
) -> None:
    """With machine, version and start, whether or not they have served anybody; `/state` says which one answers."""
    journal = settings["journal_dir"].with_name("another-journal")
    with start_gateway(**settings | {"journal_dir": journal}):
        workers = until(lambda: found if len(found := reader.get("/workers").json()["data"]) == 2 else [])
        state = reader.get("/state").json()
        assert all(worker["is_alive"] and worker["machine"] and worker["version"] for worker in workers)
        assert workers[0]["started_at"] >= workers[1]["started_at"]
        [own] = [worker for worker in workers if worker["id"] == state["worker"]]
        assert (own["started_at"], own["version"]) == (state["started_at"], state["version"])
        seen = {worker["id"]: worker["seen_at"] for worker in workers}
        until(lambda: all(one["seen_at"] > seen[one["id"]] for one in reader.get("/workers").json()["data"]))


def test_a_worker_that_is_silent_is_not_alive(reader: httpx.Client, keeper: LiveGateway, database: Database) -> None:
    """By the clock that workers share, and not by the time of day of some machine."""
    until(lambda: reader.get("/workers").json()["data"])
    with database.transaction() as connection:
        connection.exec_driver_sql(
            "INSERT INTO worker (id, machine, version, started_at, seen_at, beat, message)"
            " SELECT 'w_dead', 'far', '0.0.9', 1, seen_at + 86400000, beat - 60000, 1 FROM worker LIMIT 1"
        )
    alive = {worker["id"]: worker["is_alive"] for worker in reader.get("/workers").json()["data"]}
    assert alive.pop("w_dead") is False
    assert list(alive.values()) == [True]


def test_settings_are_told_without_their_secrets(
    start_gateway: StartGateway, database: Database, settings: dict[str, Any], monkeypatch: Any
) -> None:
    """Each with its value and where it comes from; of keys and addresses with passwords only that they are set."""
    operator = create(database, "viewer", scopes=["admin:read"])
    secrets = {"metrics_key": "a-key-for-prometheus-71c2", "session_store_url": "memory://"}
    monkeypatch.setenv("LIMIT_WAIT", "2.5")
    with start_gateway(**settings, **secrets) as gateway, gateway.client(operator.secret) as client:
        text = client.get("/admin/v1/settings").text
        for secret in (ALICE_KEY, BOB_KEY, "a-key-for-prometheus-71c2", str(settings["database_url"])):
            assert secret not in text
        shown = {one["name"]: one for one in json.loads(text)["data"]}
        assert (shown["API_MASTER_KEY"]["value"], shown["API_MASTER_KEY"]["is_set"]) == (None, True)
        assert shown["POSTGRES_PASSWORD"]["is_set"] is False
        assert (shown["LIMIT_WAIT"]["value"], shown["LIMIT_WAIT"]["source"]) == ("2.5", "environment")
        assert shown["MAX_RETRIES"]["source"] == "default"


def test_sessions_are_listed_without_texts_and_forgotten(
    admin: httpx.Client, keeper: LiveGateway, database: Database
) -> None:
    """In pages that neither skip nor repeat; what was forgotten begins anew, and it is written down whose it was."""
    new = create(database, "ada")
    path = f"/keys/{new.key.id}/sessions"
    with keeper.client(new.secret) as client:

        def turn(user: str) -> str:
            body = {"messages": [{"role": "user", "content": "words of mine"}], "user": user}
            return client.post("/v1/chat/completions", json=body).headers["x-session-action"]

        names = ["me", "a/b", "ä@example.org"]
        assert [turn(name) for name in names] == ["new"] * 3
        listed = admin.get(path)
        assert "words of mine" not in listed.text
        assert {one["id"] for one in listed.json()["data"]} == set(names)
        first = admin.get(path, params={"limit": 2}).json()
        rest = admin.get(path, params={"limit": 2, "cursor": first["next"]}).json()
        assert first["data"] + rest["data"] == listed.json()["data"]
        assert rest["next"] is None
        assert admin.delete(f"{path}/a/b").status_code == 204
        assert admin.delete(f"{path}/a/b").status_code == 404
        assert turn("a/b") == "new"
        assert turn("me") == "continued"
    [action] = admin.get("/audit", params={"subject": f"key:{new.key.id}"}).json()["data"]
    assert (action["action"], action["after"]) == ("session.delete", None)


def test_prices_are_set_once_and_written_down(admin: httpx.Client) -> None:
    """Those of the same model and day are replaced; who has read an older list overwrites nothing."""
    kimi = {"model": "kimi", "since": "2026-01-01T00:00:00Z", "input": 0.15, "output": 2.5, "cached": 0.038}
    by_the_piece = {"image": 0.04, "audio_second": 0.0001, "characters": 15.0, "search": 0.002, "cache_write": 3.75}
    qwen = kimi | {"model": "moonshot/qwen", "input": 1e6, **by_the_piece}
    first = admin.put("/prices", json={"data": [qwen, kimi]})
    kimi |= dict.fromkeys(by_the_piece, 0.0) | {"cache_write": None}
    assert first.json() == {"data": [kimi, qwen], "next": None}
    dearer = kimi | {"input": 0.3}
    second = admin.put("/prices", json={"data": [dearer]}, headers={"if-match": first.headers["etag"]})
    assert second.json()["data"] == [dearer, qwen]
    assert admin.put("/prices", json={"data": [kimi]}, headers={"if-match": first.headers["etag"]}).status_code == 412
    assert admin.put("/prices", json={"data": [dearer]}).headers["etag"] == admin.get("/prices").headers["etag"]
    changed, made = admin.get("/audit", params={"subject": "prices"}).json()["data"]
    assert [price["model"] for price in made["after"]["data"]] == ["kimi", "moonshot/qwen"]
    assert [price["input"] for price in (*changed["before"]["data"], *changed["after"]["data"])] == [150, 300]


def test_a_worker_that_is_never_asked_has_not_imported_it(site: LiveSimulator, tmp_path: Path) -> None:
    """The admin API takes memory and time from its first request on; chats, pages and health checks don't need it."""
    script = """
import sys, httpx
from app.assembly.app import create_app
from app.settings import load_settings
from app.storage.database import Database
from app.storage.schema import migrate
from app.keys.administration import create_key
from tests.live import ALICE_KEY, serving

database = Database(sys.argv[1])
migrate(database)
with database.transaction() as connection:
    secret = create_key(connection, name="viewer", scopes=["admin:read"]).secret
settings = load_settings(_env_file=None, api_master_key=ALICE_KEY, chat_page_url=sys.argv[2], database_url=sys.argv[1])
loaded = lambda: [name for name in sys.modules if name.startswith(("app.api.admin", "app.assembly.administration"))]
with serving(create_app(settings)) as gateway, gateway.client() as client:
    chat = {"messages": [{"role": "user", "content": "Hello"}]}
    client.post("/v1/chat/completions", json=chat).raise_for_status()
    for path in ("/", "/health", "/ready", "/metrics", "/v1/models", "/v1/key", "/openapi.json"):
        client.get(path).raise_for_status()
    assert client.get("/admin/v1/keys").status_code == 403
    assert client.get("/admins").status_code == 404
    assert loaded() == [], loaded()
    with gateway.client(secret) as viewer:
        viewer.get("/admin/v1/keys").raise_for_status()
    assert loaded()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, f"sqlite:///{tmp_path}/gateway.db", site.page_url],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "JOURNAL_DIR": str(tmp_path / "journal")},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
