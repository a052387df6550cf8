"""Recordings by the admin API: started, seen by the key's holder, read, stopped, deleted."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from app.domain.caller import caller_of_key
from app.storage.clock import now
from app.storage.database import Database
from simulator.live import LiveSimulator
from tests.api.admin.conftest import create
from tests.conftest import RunLog
from tests.live import ALICE_KEY, LiveGateway, until
from tests.storage.calls import rows_of

QUESTION, ANSWER = "What does the owl say in secret?", "Nothing that anybody may know."


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """What depends on the kind of database is in the tests of the recorder."""
    return f"sqlite:///{tmp_path}/gateway.db"


def _chat(client: httpx.Client, **fields: Any) -> str:
    """Ask, and return the request's id."""
    body = {"model": "kimi", "messages": [{"role": "user", "content": QUESTION}], **fields}
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200
    return str(answer.headers["x-request-id"])


def _texts(admin: httpx.Client, call_id: str) -> list[dict[str, Any]]:
    """The texts of a request, as soon as they are there."""
    answer = until(lambda: found if (found := admin.get(f"/requests/{call_id}/texts")).status_code == 200 else None)
    assert answer is not None
    texts: list[dict[str, Any]] = answer.json()["data"]
    return texts


def _follows(client: httpx.Client, *, recorded: bool) -> int | None:
    """Wait until the worker has followed, and return what the key's holder is told."""

    def told() -> dict[str, Any] | None:
        key: dict[str, Any] = client.get("/v1/key").json()
        return key if (key["recorded_until"] is not None) is recorded else None

    shown = until(told)
    assert shown is not None
    return shown["recorded_until"]  # type: ignore[no-any-return]  # JSON


def test_what_a_key_says_is_kept_while_it_is_recorded_and_for_administrators_only(
    admin: httpx.Client,
    reader: httpx.Client,
    keeper: LiveGateway,
    database: Database,
    site: LiveSimulator,
    run_log: RunLog,
) -> None:
    """Its holder is told, each look is written down, the log has nothing of it, and deleting leaves nothing."""
    site.site.update(reply=ANSWER)
    begin = run_log.path.stat().st_size
    new = create(database, "ada", project="lab")
    key = new.key.id
    with keeper.client(new.secret) as client, keeper.client(ALICE_KEY) as alice:
        unrecorded = _chat(client)
        assert _follows(client, recorded=False) is None
        started = admin.post("/recordings", json={"key_id": key, "duration": "1h"})
        assert started.status_code == 201
        recording = started.json()
        assert (recording["key_id"], recording["key_name"], recording["running"]) == (key, "lab/ada", True)
        until_then = _follows(client, recorded=True)
        assert until_then is not None
        assert abs(until_then - now() / 1000 - 3600) < 60
        plain, streamed, others = _chat(client), _chat(client, stream=True), _chat(alice)
        refused = client.post("/v1/chat/completions", json={"model": "nothing", "messages": []})
        assert refused.status_code >= 400
        rows = {row["request_id"]: row for row in rows_of(database, 4 + 1)}
        for request_id in (plain, streamed):
            (texts,) = _texts(admin, request_id)
            assert (texts["asked"], texts["sent"], texts["answered"]) == (f"user: {QUESTION}", QUESTION, ANSWER)
            assert (texts["request_id"], texts["key_id"], texts["cut"]) == (request_id, key, [])
            assert _texts(admin, str(rows[request_id]["id"])) == [texts]
        for request_id in (unrecorded, others, str(rows[unrecorded]["id"]), str(rows[others]["id"]), "req_none"):
            assert admin.get(f"/requests/{request_id}/texts").status_code == 404
        for request_id in (plain, str(rows[plain]["id"])):
            hidden = reader.get(f"/requests/{request_id}/texts")
            assert (hidden.status_code, hidden.json()["error"]["code"]) == (403, "missing_scope")
        assert "texts" in hidden.json()["error"]["message"]
        (listed,) = reader.get("/recordings").json()["data"]
        assert (listed["key_id"], listed["running"], listed["texts"]) == (key, True, 2)
        stopped = admin.post(f"/recordings/{key}/stop").json()
        assert (stopped["running"], stopped["texts"]) == (False, 2)
        assert _follows(client, recorded=False) is None
        late = _chat(client)
        assert len(_texts(admin, plain)) == 1
        assert admin.delete(f"/recordings/{key}").status_code == 204
        for request_id in (plain, late):
            assert admin.get(f"/requests/{request_id}/texts").status_code == 404
        assert admin.get("/recordings").json()["data"] == []
    actions = admin.get("/audit", params={"subject": f"key:{key}"}).json()["data"][::-1]
    assert [one["action"] for one in actions] == [
        "recording.start",
        *["recording.read"] * 4,
        "recording.stop",
        "recording.read",
        "recording.delete",
    ]
    assert [one["after"]["request_id"] for one in actions[1:5]] == [plain, plain, streamed, streamed]
    (operator,) = admin.get("/keys", params={"q": "admin", "project": "operators"}).json()["data"][:1]
    assert {one["actor"] for one in actions} == {f"key:{operator['id']}"}
    run_log.stream.flush()
    logged = run_log.path.read_bytes()[begin:].decode()
    assert unrecorded in logged
    assert [text for text in (QUESTION, ANSWER) if text in logged] == []


def test_a_key_of_the_environment_can_be_recorded(admin: httpx.Client, keeper: LiveGateway) -> None:
    """By its id, which stands in for it everywhere."""
    alice = caller_of_key(ALICE_KEY).id
    started = admin.post("/recordings", json={"key_id": alice, "duration": "15m"}).json()
    assert started["key_name"] == alice
    with keeper.client(ALICE_KEY) as client:
        _follows(client, recorded=True)
        (texts,) = _texts(admin, _chat(client))
    assert (texts["key_id"], texts["asked"]) == (alice, f"user: {QUESTION}")


def test_ids_of_digits_are_told_apart(admin: httpx.Client, keeper: LiveGateway, database: Database) -> None:
    """A client may give its request an id of digits only: one that is no row's, or another request's row's."""
    new = create(database, "ada")
    admin.post("/recordings", json={"key_id": new.key.id, "duration": "1h"}).raise_for_status()
    with keeper.client(new.secret) as client:
        _follows(client, recorded=True)
        first = _chat(client)
        row = str(rows_of(database, 1)[0]["id"])
        with keeper.client(ALICE_KEY) as alice:
            _chat(alice)
        others_row = next(str(one["id"]) for one in rows_of(database, 2) if one["key_id"] != new.key.id)
        for own_id in ("20261127", row, others_row):
            client.headers["x-request-id"] = own_id
            assert _chat(client, user=own_id) == own_id
    assert [one["request_id"] for one in _texts(admin, "20261127")] == ["20261127"]
    assert len(rows_of(database, 5)) == 5
    assert admin.get("/requests/20261127").json()["request_id"] == "20261127"
    assert [one["request_id"] for one in _texts(admin, row)] == [first]
    assert admin.get(f"/requests/{row}").json()["request_id"] == first
    until(lambda: admin.get("/recordings").json()["data"][0]["texts"] == 4)
    assert admin.get(f"/requests/{others_row}/texts").status_code == 404


def test_a_failed_call_is_recorded_as_far_as_it_came(
    admin: httpx.Client, keeper: LiveGateway, database: Database, site: LiveSimulator
) -> None:
    """Whoever looks for what went wrong sees what the site got; a revoked key's texts are gone with it."""
    new = create(database, "ada")
    admin.post("/recordings", json={"key_id": new.key.id, "duration": "24h"}).raise_for_status()
    site.site.update(failure="html")
    with keeper.client(new.secret) as client:
        _follows(client, recorded=True)
        body = {"messages": [{"role": "user", "content": QUESTION}]}
        failed = client.post("/v1/chat/completions", json=body)
        assert failed.status_code == 502
    request_id = failed.headers["x-request-id"]
    (texts,) = _texts(admin, request_id)
    assert (texts["sent"], texts["answered"]) == (QUESTION, "")
    assert admin.delete(f"/keys/{new.key.id}").status_code == 200
    assert admin.get(f"/requests/{request_id}/texts").status_code == 404
    again = admin.post("/recordings", json={"key_id": new.key.id, "duration": "1h"})
    assert (again.status_code, again.json()["error"]["param"]) == (400, "key_id")
    assert "revoked" in again.json()["error"]["message"]
