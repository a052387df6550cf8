"""The admin API by the console's cookie: who it is, and what other sites can't do with it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.people.administration import new_person
from app.people.sign_in import NewLogin, Origin, make_link_ticket, sign_in_with_ticket
from app.storage.database import Database
from app.storage.people import end_login
from tests.api.admin.conftest import create
from tests.conftest import StartGateway
from tests.live import ALICE_KEY, WAIT_SECONDS, LiveGateway


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """Nothing here depends on the kind of database."""
    return f"sqlite:///{tmp_path}/gateway.db"


@pytest.fixture
def ada(database: Database) -> tuple[NewLogin, NewLogin]:
    """Two logins of an administrator."""
    with database.transaction() as connection:
        person = new_person(connection, "ada", "admin")
        first, second = (
            sign_in_with_ticket(connection, make_link_ticket(connection, person), Origin("tests")) for _ in range(2)
        )
    return first, second


@pytest.fixture
def browser(keeper: LiveGateway, ada: tuple[NewLogin, NewLogin]) -> Iterator[httpx.Client]:
    """A client with the cookie of the first, and nothing else."""
    with httpx.Client(
        base_url=f"{keeper.base_url}/admin/v1",
        cookies={"kimi_console": ada[0].cookie},
        headers={"host": "gateway.test"},
        timeout=WAIT_SECONDS,
        trust_env=False,
    ) as client:
        yield client


def _told(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_changes_need_the_login_s_token_and_are_the_person_s_in_the_log(
    browser: httpx.Client, ada: tuple[NewLogin, NewLogin]
) -> None:
    """Whatever another site may have sent is refused and changes nothing; reading takes the cookie alone."""
    login, other = ada[0].login, ada[1].login
    me = {"id": login.person_id, "name": "ada", "scopes": ["admin"], "csrf_token": login.csrf}
    assert browser.get("/me").json() == me
    right = {"x-csrf-token": login.csrf}
    for headers in (
        {},
        {"sec-fetch-site": "same-origin"},
        {"x-csrf-token": other.csrf},
        right | {"sec-fetch-site": "same-site"},
        right | {"sec-fetch-site": "cross-site"},
        right | {"sec-fetch-site": "none"},
        right | {"origin": "http://gateway.test:3000"},
    ):
        refused = browser.post("/keys", json={"name": "made"}, headers=headers)
        assert _told(refused) == (403, "csrf_failed"), headers
    made = browser.post("/keys", json={"name": "made"}, headers=right | {"sec-fetch-site": "same-origin"})
    address = f"/keys/{made.json()['key']['id']}"
    assert browser.delete(address, headers=right | {"origin": "http://gateway.test"}).status_code == 200
    entries = [one for one in browser.get("/audit").json()["data"] if one["action"].startswith("key.")]
    assert [one["action"] for one in entries] == ["key.revoke", "key.create"]
    assert {(one["actor"], one["via"]) for one in entries} == {(f"person:{login.person_id}", "api")}
    # Each look at a text is in the log, too.
    assert _told(browser.get("/requests/1/texts")) == (403, "csrf_failed")
    assert _told(browser.get("/requests/1/texts", headers=right)) == (404, "not_found")


def test_a_key_counts_before_the_cookie(browser: httpx.Client, database: Database) -> None:
    """A request with a key is that key's, whatever the login may do; credentials for a proxy are no key."""
    viewer = create(database, "viewer", scopes=["admin:read"])
    for headers, change, look in (
        ({"authorization": f"Bearer {viewer.secret}"}, (403, "missing_scope"), 200),
        ({"x-api-key": ALICE_KEY}, (403, "missing_scope"), 403),
        ({"authorization": "Bearer unknown"}, (401, "invalid_api_key"), 401),
        ({"authorization": "Basic YTpi"}, (403, "csrf_failed"), 200),
    ):
        assert _told(browser.post("/probe", json={}, headers=headers)) == change, headers
        assert browser.get("/people", headers=headers).status_code == look, headers
    assert browser.get("/me", headers={"x-api-key": viewer.secret}).json() == {
        "id": viewer.key.id,
        "name": "viewer",
        "scopes": ["admin:read"],
        "csrf_token": None,
    }


def test_where_nobody_needs_a_key_administration_does(
    start_gateway: StartGateway, database: Database, settings: dict[str, Any], ada: tuple[NewLogin, NewLogin]
) -> None:
    """AUTH_DISABLED lets everybody chat; a key with the scope, or a login, still opens the admin API."""
    viewer = create(database, "viewer", scopes=["admin:read"])
    with (
        start_gateway(**settings, auth_disabled=True) as gateway,
        httpx.Client(base_url=f"{gateway.base_url}/admin/v1", timeout=WAIT_SECONDS, trust_env=False) as client,
    ):
        assert client.get(f"{gateway.base_url}/v1/models").status_code == 200
        assert _told(client.get("/keys")) == (401, "invalid_api_key")
        key = {"authorization": f"Bearer {viewer.secret}"}
        assert client.get("/keys", headers=key).status_code == 200
        assert _told(client.post("/keys", json={"name": "made"}, headers=key)) == (403, "missing_scope")
        client.cookies.set("kimi_console", ada[0].cookie)
        assert client.get("/me").json()["name"] == "ada"


def test_a_login_that_has_ended_is_a_401(
    browser: httpx.Client, keeper: LiveGateway, database: Database, ada: tuple[NewLogin, NewLogin]
) -> None:
    """In the API's form, from the moment on at which it ends; and no login opens anything but the admin API."""
    chat = {"messages": [{"role": "user", "content": "Hello"}]}
    assert _told(browser.post(f"{keeper.base_url}/v1/chat/completions", json=chat)) == (401, "invalid_api_key")
    assert browser.get("/keys").status_code == 200
    with database.transaction() as connection:
        end_login(connection, ada[0].login.digest)
    ended = browser.get("/keys")
    assert _told(ended) == (401, "login_expired")
    assert ended.json()["error"].keys() == {"message", "type", "param", "code"}
    browser.cookies.clear()
    assert _told(browser.get("/keys", headers={"cookie": "kimi_console="})) == (401, "invalid_api_key")
    assert _told(browser.get("/keys", headers={"cookie": "__Host-kimi_console=unknown"})) == (401, "login_expired")
    assert browser.get("/keys", headers={"cookie": f"__Host-kimi_console={ada[1].cookie}"}).status_code == 200
