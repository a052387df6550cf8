"""Who may do what, at every address; and what is said where there is nothing."""

import json
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from app.domain.caller import caller_of_key
from app.people.administration import new_person
from app.people.sign_in import Origin, make_link_ticket, sign_in_with_ticket
from app.recording.administration import start_recording
from app.storage.audit import Actor
from app.storage.database import Database
from tests import databases
from tests.api.admin.conftest import Opened, create
from tests.conftest import StartGateway
from tests.live import ALICE_KEY, LiveGateway


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """Nothing here depends on the kind of database."""
    return f"sqlite:///{tmp_path}/gateway.db"


_ALICE = caller_of_key(ALICE_KEY).id
# What only `admin` may read.
_TEXTS = "/requests/{call_id}/texts"
# What a request to each address gets that may be made, and has nothing wrong in it: its status, and its body.
# What isn't there is a 404.
_ROUTES: dict[tuple[str, str], tuple[int, Any]] = {
    ("GET", "/keys"): (200, None),
    ("POST", "/keys"): (201, {"name": "made"}),
    ("GET", "/keys/{key_id}"): (200, None),
    ("PATCH", "/keys/{key_id}"): (200, {"note": "changed"}),
    ("DELETE", "/keys/{key_id}"): (200, None),
    ("POST", "/keys/{key_id}/pause"): (200, None),
    ("POST", "/keys/{key_id}/resume"): (200, None),
    ("POST", "/keys/{key_id}/rotate"): (200, {"grace": "24h"}),
    ("GET", "/keys/{key_id}/sessions"): (200, None),
    ("DELETE", "/keys/{key_id}/sessions/{session_id}"): (204, None),
    ("GET", "/me"): (200, None),
    ("GET", "/people"): (200, None),
    ("POST", "/people"): (201, {"name": "made"}),
    ("GET", "/people/{person_id}"): (200, None),
    ("PATCH", "/people/{person_id}"): (200, {"name": "changed"}),
    ("POST", "/people/{person_id}/link"): (200, None),
    ("GET", "/people/{person_id}/logins"): (200, None),
    ("DELETE", "/people/{person_id}/logins"): (204, None),
    ("DELETE", "/people/{person_id}/logins/{login_id}"): (204, None),
    ("GET", "/limits"): (200, None),
    ("GET", "/limits/{scope}"): (200, None),
    ("PUT", "/limits/{scope}"): (200, {"limits": "60 requests/minute"}),
    ("DELETE", "/limits/{scope}"): (200, None),
    ("POST", "/limits/{scope}/try"): (200, {"limits": "60 requests/minute"}),
    ("GET", "/requests"): (200, None),
    ("GET", "/requests/feed"): (200, None),
    ("GET", "/requests/{call_id}"): (404, None),
    ("GET", "/requests/{call_id}/texts"): (404, None),
    ("GET", "/recordings"): (200, None),
    ("POST", "/recordings"): (201, {"key_id": _ALICE, "duration": "15m"}),
    ("POST", "/recordings/{key_id}/stop"): (200, None),
    ("DELETE", "/recordings/{key_id}"): (204, None),
    ("GET", "/usage"): (200, None),
    ("GET", "/export/requests.jsonl"): (200, None),
    ("GET", "/export/usage.csv"): (200, None),
    ("GET", "/prices"): (200, None),
    ("PUT", "/prices"): (200, {"data": []}),
    ("GET", "/projects"): (200, None),
    ("GET", "/audit"): (200, None),
    ("GET", "/state"): (200, None),
    ("GET", "/workers"): (200, None),
    ("GET", "/upstreams"): (200, None),
    ("POST", "/upstreams"): (201, {"name": "gpu", "base_url": "http://127.0.0.1:9/v1"}),
    ("GET", "/upstreams/{name}"): (200, None),
    # One of the settings: it can't be changed here.
    ("PATCH", "/upstreams/{name}"): (404, {"enabled": False}),
    ("DELETE", "/upstreams/{name}"): (404, None),
    ("POST", "/upstreams/{name}/probe"): (200, None),
    ("POST", "/probe"): (200, {"name": "gpu", "base_url": "http://127.0.0.1:9/v1"}),
    ("GET", "/routes"): (200, None),
    ("GET", "/routes/answer?model=kimi"): (200, None),
    ("PUT", "/routes/{name}"): (200, {"targets": ["kimi"]}),
    ("DELETE", "/routes/{name}"): (204, None),
    ("GET", "/settings"): (200, None),
}


# Requests, and the field that is at fault.
_WRONG: tuple[tuple[str, str, bytes, str | None], ...] = (
    ("POST", "/keys", b"{", None),
    ("POST", "/keys", b"[]", None),
    ("POST", "/keys", b"\xff", None),
    ("POST", "/keys", b"", None),
    ("POST", "/keys", b"{}", "name"),
    ("POST", "/keys", b'{"name": "a", "colour": "red"}', "colour"),
    ("POST", "/keys", b'{"name": "a\\u0000b"}', "name"),
    ("POST", "/keys", b'{"name": "\\ud800"}', "name"),
    ("POST", "/keys", b'{"name": "a", "models": ["kimi", "a\\u0000"]}', "models"),
    ("POST", "/keys", b'{"name": "a", "\\ud800": 1}', None),
    ("POST", "/keys", b'{"name": "a", "models": [3]}', "models[0]"),
    ("POST", "/keys", b'{"name": " a"}', "name"),
    ("POST", "/keys", b'{"name": "a", "scopes": []}', "scopes"),
    ("POST", "/keys", b'{"name": "a", "project": "environment"}', "project"),
    ("POST", "/keys", b'{"name": "a", "limits": "60 bananas/minute"}', "limits"),
    ("POST", "/keys", b'{"name": "a", "limits": " "}', "limits"),
    ("POST", "/keys", b'{"name": "a", "expires_at": "9999-12-31T23:00:00-12:00"}', "expires_at"),
    ("POST", "/keys", b'{"name": "a", "expires_at": "2030-01-01T00:00:00"}', "expires_at"),
    ("POST", "/keys/k_1/rotate", b'{"grace": "for ever"}', "grace"),
    ("POST", "/keys/k_1/rotate", b'{"grace": "9999d"}', "grace"),
    ("POST", "/people", b"{}", "name"),
    ("POST", "/people", b'{"name": " a"}', "name"),
    ("POST", "/people", b'{"name": "a", "role": "holder"}', "role"),
    ("POST", "/people", b'{"name": "a", "password": "of my choice"}', "password"),
    ("PATCH", "/people/p_1", b'{"disabled": 1}', "disabled"),
    ("PATCH", "/people/p_1", b'{"name": "\\ud800"}', "name"),
    ("POST", "/recordings", b'{"key_id": "k_1"}', "duration"),
    ("POST", "/recordings", b'{"key_id": "k_nobody", "duration": "1h"}', "key_id"),
    ("POST", "/recordings", b'{"key_id": "%s", "duration": "a while"}' % _ALICE.encode(), "duration"),
    ("POST", "/recordings", b'{"key_id": "%s", "duration": "14m"}' % _ALICE.encode(), "duration"),
    ("POST", "/recordings", b'{"key_id": "%s", "duration": "25h"}' % _ALICE.encode(), "duration"),
    ("PUT", "/limits/somebody", b'{"limits": "none"}', "scope"),
    ("POST", "/limits/gateway/try", b'{"limits": "none", "last": "0s"}', "last"),
    ("PUT", "/prices", b'{"data": [{"model": "kimi"}]}', "data[0].since"),
    ("PUT", "/prices", b'{"data": [{"model": "kimi", "price": 3}]}', "data[0].since"),
    ("POST", "/upstreams", b"{}", "name"),
    ("POST", "/upstreams", b'{"name": "gpu"}', None),
    ("POST", "/upstreams", b'{"name": "GPU", "base_url": "http://127.0.0.1:9"}', "name"),
    ("POST", "/upstreams", b'{"name": "gpu", "base_url": "127.0.0.1"}', "base_url"),
    ("POST", "/upstreams", b'{"name": "gpu", "base_url": "http://127.0.0.1:9", "key": "k"}', "key"),
    ("POST", "/upstreams", b'{"name": "gpu", "base_url": "http://127.0.0.1:9", "models": [{"id": 3}]}', "models[0].id"),
    ("POST", "/upstreams", b'{"name": "gpu", "base_url": "http://127.0.0.1:9", "headers": {"Host": "x"}}', "headers"),
    ("POST", "/upstreams", b'{"name": "kimi-web", "base_url": "http://127.0.0.1:9"}', "name"),
    ("POST", "/probe", b'{"name": "gpu", "base_url": "http://127.0.0.1:9", "preset": "x"}', "preset"),
    ("PATCH", "/upstreams/gpu", b"[]", None),
    ("PUT", "/routes/r", b'{"targets": []}', "targets"),
    ("PUT", "/routes/r", b'{"targets": ["nowhere"]}', "targets"),
    ("PUT", "/routes/r", b'{"targets": {"kimi": 0}}', "targets"),
    ("GET", "/routes/answer", b"", "model"),
    ("GET", "/routes/answer?model=kimi&key=k_nobody", b"", "key"),
    ("GET", "/keys?limit=0", b"", "limit"),
    ("GET", "/keys?limit=201", b"", "limit"),
    ("GET", "/keys?limt=3", b"", "limt"),
    ("GET", "/keys?state=asleep", b"", "state"),
    ("GET", "/keys?q=a%00", b"", "q"),
    ("GET", "/keys?cursor=x", b"", "cursor"),
    ("GET", "/requests?cursor=WzFd0", b"", "cursor"),
    ("GET", "/requests?cursor=WzkyMjMzNzIwMzY4NTQ3NzU4MDhd", b"", "cursor"),
    ("GET", "/requests?since=yesterday", b"", "since"),
    ("GET", "/requests?since=0001-01-01T00:00:00Z", b"", "since"),
    ("GET", "/requests/feed?since=2030-01-01T00:00:00Z", b"", "since"),
    ("GET", "/requests/feed?model=unlisted", b"", "model"),
    ("GET", "/usage?since=2026-01-01T00:00:00Z&until=2026-01-01T00:00:00Z", b"", "since"),
    ("GET", "/usage?since=2000-01-01T00:00:00Z&until=2026-01-01T00:00:00Z", b"", "since"),
    ("GET", "/usage?by=colour", b"", "by[0]"),
    ("GET", "/keys/a%00b", b"", "key_id"),
)


def _asked(client: httpx.Client, method: str, path: str, body: Any = None) -> tuple[int, str | None]:
    """The status of an answer, and the code of its error."""
    with client.stream(method, path, json=body) as response:
        if response.status_code >= 400:
            response.read()
            error = response.json()["error"]
            assert list(error) == ["message", "type", "param", "code"]
            assert response.headers["x-request-id"]
            return response.status_code, error["code"]
        return response.status_code, None


@pytest.mark.parametrize("by", ["key", "cookie"])
def test_every_address_has_its_exact_status_for_every_role(
    keeper: LiveGateway, opened: Opened, signed_in: Opened, database: Database, by: str
) -> None:
    """Without a key 401, with one for chatting 403, `admin:read` looks and changes nothing, `admin` may do all.

    So may a key's holder, a viewer and an administrator who are signed in to the console.
    """
    subject = create(database, "subject")
    with database.transaction() as connection:
        person = new_person(connection, "subject", "admin")
        login = sign_in_with_ticket(connection, make_link_ticket(connection, person), Origin("")).login
    session = {"messages": [{"role": "user", "content": "Hello"}], "user": "me"}
    with keeper.client(subject.secret) as client:
        client.post("/v1/chat/completions", json=session).raise_for_status()
    with database.transaction() as connection:
        start_recording(database, connection, Actor("ada", "cli"), subject.key.id, 900)
    with (
        httpx.Client(base_url=f"{keeper.base_url}/admin/v1", trust_env=False) as nobody,
        opened("chat", "metrics") if by == "key" else signed_in("holder") as chats,
        opened("admin:read") if by == "key" else signed_in("viewer") as reads,
        opened("admin") if by == "key" else signed_in("admin") as changes,
    ):
        described = changes.get("/openapi.json").json()["paths"]
        routes = {(method.upper(), path) for path, operations in described.items() for method in operations}
        assert {(method, f"/admin/v1{path.partition('?')[0]}") for method, path in _ROUTES} == routes
        names = {"key_id": subject.key.id, "session_id": "me", "scope": "gateway", "call_id": "1", "name": "kimi-web"}
        names |= {"person_id": person.id, "login_id": login.digest}
        for (method, path), (status, body) in _ROUTES.items():
            address, what = path.format(**names), f"{method} {path}"
            assert _asked(nobody, method, address, body) == (401, "invalid_api_key"), what
            assert _asked(chats, method, address, body) == (403, "missing_scope"), what
            allowed = (status, "not_found" if status == 404 else None)
            may_read = method == "GET" and path != _TEXTS
            assert _asked(reads, method, address, body) == (allowed if may_read else (403, "missing_scope")), what
            if method != "DELETE" or path.endswith(("{session_id}", "{login_id}", "{name}")):
                assert _asked(changes, method, address, body) == allowed, what
        for address, status in (
            (f"/recordings/{_ALICE}", 204),
            (f"/keys/{subject.key.id}", 200),
            ("/limits/gateway", 200),
            (f"/people/{person.id}/logins", 204),
        ):
            assert _asked(changes, "DELETE", address) == (status, None)
        missing = {"key_id": "k_nobody", "session_id": "x", "scope": "key:k_nobody", "call_id": "1", "name": "nobody"}
        missing |= {"person_id": "p_nobody", "login_id": "x"}
        for (method, path), (_, body) in _ROUTES.items():
            if "404" in described[f"/admin/v1{path.partition('?')[0]}"][method.lower()]["responses"]:
                assert _asked(changes, method, path.format(**missing), body) == (404, "not_found"), path


def test_admin_keys_do_nothing_else(keeper: LiveGateway, opened: Opened) -> None:
    """They can neither chat nor list models; and a key of API_MASTER_KEY doesn't administer."""
    with opened("admin") as client:
        chat = {"messages": [{"role": "user", "content": "Hello"}]}
        assert client.post(f"{keeper.base_url}/v1/chat/completions", json=chat).status_code == 403
        assert client.get(f"{keeper.base_url}/v1/models").status_code == 403
    with keeper.client(ALICE_KEY) as client:
        assert _asked(client, "GET", "/admin/v1/keys") == (403, "missing_scope")


def test_unknown_addresses_are_404s_in_the_api_s_form(admin: httpx.Client, keeper: LiveGateway) -> None:
    """Whatever dialect the client may speak elsewhere; what climbs out of the admin API is unknown, too."""
    server = urlsplit(keeper.base_url)
    headers = {"authorization": admin.headers["authorization"], "anthropic-version": "2023-06-01"}
    for method, path in (
        *(("GET", path) for path in ("", "/", "/nothing", "/keys/", "/keys/k_1/nothing", "/openapi")),
        # A proxy that lets only some clients to /admin takes these for other addresses, so nothing may be done by them.
        ("GET", "/../v1/keys"),
        ("DELETE", "/keys/k_1/sessions/../../../../../v1/models"),
        ("DELETE", "/keys/k_1/sessions/..%2f..%2f..%2f..%2f..%2fv1/models"),
    ):
        with closing(HTTPConnection(str(server.hostname), server.port)) as connection:
            connection.request(method, f"/admin/v1{path}", headers=headers)
            refused = connection.getresponse()
            assert (refused.status, json.loads(refused.read())["error"]["code"]) == (404, "unknown_url"), path


def test_wrong_methods_are_told_the_right_ones(admin: httpx.Client) -> None:
    """A 405 with `Allow`; HEAD is answered wherever GET is, without a body, also where that would never end."""
    described = admin.get("/openapi.json").json()["paths"]
    for path, operations in described.items():
        methods = {method.upper() for method in operations}
        address = path.removeprefix("/admin/v1").format(
            key_id="k", session_id="s", person_id="p", login_id="l", scope="gateway", call_id="1", name="n"
        )
        if path.endswith(("/{scope}/try", "/routes/answer")):
            continue  # may also be a scope, or a route, of that name
        wrong = admin.request("PUT" if "PUT" not in methods else "POST", address)
        assert wrong.status_code == 405, path
        assert set(wrong.headers["allow"].split(", ")) == methods | ({"HEAD"} if "GET" in methods else set())
        assert wrong.json()["error"]["code"] == "method_not_allowed"
        if "GET" in methods:
            head = admin.head(address)
            assert (head.status_code in (200, 404), head.content) == (True, b""), path
            again = admin.get("/state")  # on the same connection
            assert again.status_code == 200


def test_what_is_wrong_is_said_by_name(admin: httpx.Client) -> None:
    """A 400 that names the field, and changes nothing."""
    for method, path, content, param in _WRONG:
        refused = admin.request(method, path, content=content, headers={"content-type": "application/json"})
        error = refused.json()["error"]
        assert (refused.status_code, error["param"]) == (400, param), (method, path, content, refused.text)
        assert error["message"]
    assert admin.get("/audit").json()["data"] == []


def test_without_a_database_it_is_said_that_there_is_none(start_gateway: StartGateway) -> None:
    """Whoever has a key learns which setting it takes; others don't get that far."""
    with start_gateway(database_url="none") as gateway, gateway.client() as client:
        for method, path in (("GET", "/admin/v1/keys"), ("POST", "/admin/v1/keys"), ("GET", "/admin/v1/openapi.json")):
            refused = client.request(method, path)
            assert (refused.status_code, refused.json()["error"]["code"]) == (404, "unknown_url")
            assert "DATABASE_URL is none" in refused.json()["error"]["message"]
        assert httpx.get(f"{gateway.base_url}/admin/v1/keys", trust_env=False).status_code == 401


def test_answers_are_for_who_asked(admin: httpx.Client) -> None:
    """No cache keeps them, and they have the request's id."""
    answer = admin.get("/keys", headers={"x-request-id": "an-id-of-ours"})
    assert (answer.headers["cache-control"], answer.headers["x-request-id"]) == ("no-store", "an-id-of-ours")
    assert answer.headers["content-type"] == "application/json"


class TestWithPostgresql:
    """What happens while the database is away."""

    @pytest.fixture
    def database_url(self, own_postgres: databases.PostgresServer) -> str:
        """Of a server that the test may stop."""
        return own_postgres.new_database()

    def test_a_database_that_is_away_is_a_503_that_says_when_to_try_again(
        self, admin: httpx.Client, own_postgres: databases.PostgresServer
    ) -> None:
        """For reading and for changing; and when it is back, all is well."""
        assert admin.get("/keys").status_code == 200
        own_postgres.stop()
        for method, path in (
            *(("GET", "/keys"), ("GET", "/requests"), ("GET", "/requests/feed"), ("GET", "/export/requests.jsonl")),
            *(("POST", "/keys"), ("PUT", "/limits/gateway"), ("PUT", "/prices")),
        ):
            body = {"/keys": {"name": "ada"}, "/limits/gateway": {"limits": "none"}, "/prices": {"data": []}}.get(path)
            refused = admin.request(method, path, json=body if method != "GET" else None)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "key_store_unavailable"), path
            assert int(refused.headers["retry-after"]) >= 1
        assert admin.get("/state").json()["database"] == "away"
        own_postgres.start()
        assert admin.post("/keys", json={"name": "ada"}).status_code == 201


def test_the_description_needs_the_key_and_names_it(admin: httpx.Client, keeper: LiveGateway) -> None:
    """It is a document of its own, and the main one has none of its addresses."""
    document = admin.get("/openapi.json").json()
    assert document["openapi"].startswith("3.")
    assert {tag["name"] for tag in document["tags"]} >= {
        tag for operations in document["paths"].values() for one in operations.values() for tag in one["tags"]
    }
    assert all(one["security"] for operations in document["paths"].values() for one in operations.values())
    with keeper.client() as client:
        main = client.get("/openapi.json").json()
    assert not [path for path in main["paths"] if "admin" in path]
    assert "sk-kimi-" not in json.dumps(document)
