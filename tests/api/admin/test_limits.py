"""Limits by the admin API: set, read as they stand, tried on the past."""

import time
from typing import Any

import httpx
import pytest

from app.storage.clock import now
from app.storage.database import Database
from tests.api.admin.conftest import create
from tests.conftest import RunLog, StartGateway
from tests.live import LiveGateway, until
from tests.storage.calls import call, write


def _chat(client: httpx.Client) -> httpx.Response:
    return client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hello"}]})


def _standing(admin: httpx.Client, scope: str) -> dict[str, dict[str, Any]]:
    """How the limits of a scope stand, by their texts."""
    shown = admin.get(f"/limits/{scope}").raise_for_status().json()
    return {one["limit"]: one for one in shown["standing"]}


def test_limits_are_set_and_count_and_go_back_to_those_of_the_settings(
    start_gateway: StartGateway, database: Database, settings: dict[str, Any], run_log: RunLog
) -> None:
    """On the running gateway; the list has both kinds, and the log of changes both texts. Upstreams that there aren't
    are named in the list, and once in the log."""
    begin = run_log.path.stat().st_size
    new = create(database, "ada", project="a/b")
    operator = create(database, "operator", scopes=["admin"])
    limits = {"default_limits": "1000 requests/minute", "gateway_limits": "500 at once"}
    limits["upstream_limits"] = "kimi-web: 99 at once; kimi-wep: 9 at once"
    with (
        start_gateway(**settings, **limits) as gateway,
        gateway.client(operator.secret) as admin,
        gateway.client(new.secret) as client,
    ):
        admin.base_url = f"{gateway.base_url}/admin/v1"
        scope = f"key:{new.key.id}"
        assert admin.get(f"/limits/{scope}").json()["source"] == "settings"
        done = admin.put(f"/limits/{scope}", json={"limits": "2 requests/hour,5 at once"})
        assert done.json() == {"scope": scope, "limits": "2 requests/hour, 5 at once", "source": "database"}
        assert admin.put("/limits/project:a/b", json={"limits": "none"}).json()["scope"] == "project:a/b"
        listed = admin.get("/limits").json()["data"]
        assert [(one["scope"], one["limits"], one["source"], one["exists"]) for one in listed] == [
            ("gateway", "500 at once", "settings", True),
            ("key:*", "1000 requests/minute", "settings", True),
            (scope, "2 requests/hour, 5 at once", "database", True),
            ("project:a/b", "none", "database", True),
            ("upstream:kimi-web", "99 at once", "settings", True),
            ("upstream:kimi-wep", "9 at once", "settings", False),
        ]
        run_log.stream.flush()
        told = [line for line in run_log.path.read_bytes()[begin:].decode().splitlines() if "unknown_upstream" in line]
        assert len(told) == 1
        assert "kimi-wep" in told[0]
        until(lambda: client.get("/v1/key").json()["limits"][0]["amount"] == 2)
        assert [_chat(client).status_code for _ in range(3)] == [200, 200, 429]
        unset = admin.delete(f"/limits/{scope}").json()
        assert unset == {"scope": scope, "limits": "1000 requests/minute", "source": "settings"}
        assert admin.delete(f"/limits/{scope}").json() == unset
        actions = admin.get("/audit", params={"subject": scope}).json()["data"]
        assert [(one["action"], one["before"], one["after"]) for one in actions] == [
            ("limits.unset", {"limits": "2 requests/hour, 5 at once"}, None),
            ("limits.set", None, {"limits": "2 requests/hour, 5 at once"}),
        ]


def test_how_limits_stand_is_told_by_worker(admin: httpx.Client, keeper: LiveGateway, database: Database) -> None:
    """Used, free, what each worker has leased, and when all is free again; quotas say what the ledger does."""
    new = create(database, "ada")
    scope = f"key:{new.key.id}"
    admin.put(f"/limits/{scope}", json={"limits": "60 requests/hour, 1M tokens/day, $5/month for kimi*"})
    untouched = _standing(admin, scope)
    assert untouched["60 requests/hour"] == {
        "limit": "60 requests/hour",
        "measure": "requests",
        "window": "hour",
        "models": None,
        "amount": 60,
        "used": 0,
        "free": 60,
        "resets_in": 0,
        "resets_at": untouched["60 requests/hour"]["resets_at"],
        "workers": [],
    }
    assert (untouched["$5/month for kimi*"]["amount"], untouched["$5/month for kimi*"]["models"]) == (5, "kimi*")
    [worker] = admin.get("/workers").json()["data"]
    with keeper.client(new.secret) as client:
        until(lambda: client.get("/v1/key").json()["limits"])
        assert _chat(client).status_code == 200
        until(lambda: _standing(admin, scope)["60 requests/hour"]["workers"])
        standing = _standing(admin, scope)
        requests = standing["60 requests/hour"]
        assert {one["worker"] for one in requests["workers"]} <= {worker["id"]}
        held = sum(one["held"] for one in requests["workers"])
        assert requests["used"] + held + requests["free"] == 60
        # What the worker has leased is in use once it has said so.
        until(lambda: _standing(admin, scope)["1M tokens/day"]["used"])
        until(lambda: _standing(admin, scope)["60 requests/hour"]["used"])
        standing = _standing(admin, scope)
        requests = standing["60 requests/hour"]
    assert 0 < requests["resets_in"] <= 3600
    tokens = standing["1M tokens/day"]
    assert 0 < tokens["used"] < 1000
    assert 0 < tokens["resets_in"] <= 86_400


def test_somebody_else_s_limits_aren_t_overwritten(admin: httpx.Client) -> None:
    """The version of limits is theirs alone, whatever is used of them."""
    first = admin.get("/limits/gateway").headers["etag"]
    second = admin.put("/limits/gateway", json={"limits": "9 at once"}, headers={"if-match": first}).headers["etag"]
    assert second == admin.get("/limits/gateway").headers["etag"] != first
    for method, body in (("PUT", {"limits": "8 at once"}), ("DELETE", None)):
        refused = admin.request(method, "/limits/gateway", json=body, headers={"if-match": first})
        assert refused.status_code == 412
    assert admin.get("/limits/gateway").json()["limits"] == "9 at once"


def test_only_what_exists_has_limits(admin: httpx.Client) -> None:
    """Anything else is refused, by every method."""
    for scope in ("key:k_nobody", "project:nothing", "upstream:nobody", "gateways", "gateway:x", "key:", "*"):
        for method, path in (("GET", scope), ("PUT", scope), ("DELETE", scope), ("POST", f"{scope}/try")):
            body = {"limits": "none"} if method in ("PUT", "POST") else None
            refused = admin.request(method, f"/limits/{path}", json=body)
            assert refused.status_code in (400, 404), (method, path)
            assert refused.json()["error"]["param"] == "scope"


def test_limits_are_tried_on_the_past(admin: httpx.Client, database: Database) -> None:
    """How many of its calls they would have refused, by which limit, and when; nothing is changed."""
    new = create(database, "ada")
    begin = now() - 3_600_000
    calls = [
        call(at=begin + second * 1000, count=second, key_id=new.key.id, request_id=f"request-{second}")
        for second in range(60)
    ]
    write(database, calls)
    scope = f"key:{new.key.id}"
    tried = admin.post(f"/limits/{scope}/try", json={"limits": "20 requests/minute, 100 at once"}).json()
    assert (tried["requests"], tried["limits"]) == (60, "20 requests/minute, 100 at once")
    assert 10 < tried["refused"] < 40
    assert tried["by_limit"] == [
        {"limit": "20 requests/minute", "refused": tried["refused"]},
        {"limit": "100 at once", "refused": 0},
    ]
    assert sum(stretch["refused"] for stretch in tried["by_time"]) == tried["refused"]
    assert tried["stopped_at"] is None
    assert admin.post(f"/limits/{scope}/try", json={"limits": "1 request/hour", "last": "5m"}).json()["requests"] == 0
    assert admin.post("/limits/gateway/try", json={"limits": "none", "last": "2h"}).json()["requests"] == 60
    assert admin.get("/limits").json()["data"] == []
    assert admin.get("/audit").json()["data"] == []


def test_a_trial_that_takes_too_long_says_how_far_it_came(
    admin: httpx.Client, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped between two parts, and the rest isn't counted."""
    begin = now() - 7_200_000
    write(database, [call(at=begin + place, count=0, request_id=f"request-{place}") for place in range(2500)])
    admin.get("/state")  # now the module is there
    monkeypatch.setattr("app.api.admin.limits._LONGEST_TRIAL_SECONDS", -1.0)
    tried = admin.post("/limits/gateway/try", json={"limits": "1 at once"}).json()
    assert tried["requests"] == 1000
    assert tried["stopped_at"].startswith(time.strftime("%Y-%m-%dT", time.gmtime(begin / 1000)))
