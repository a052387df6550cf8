"""People by the admin API, on a database of each kind."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from app.people.sign_in import Origin, sign_in_with_ticket
from app.storage.database import Database
from tests.live import LiveGateway

_FIRST = {"name": "ada", "role": "admin", "disabled": False}
_OTHERS = {"name": "grace", "role": "viewer", "disabled": True}


def _added(admin: httpx.Client, name: str, role: str = "viewer") -> dict[str, Any]:
    answer: dict[str, Any] = admin.post("/people", json={"name": name, "role": role}).raise_for_status().json()
    return answer


def _actions(admin: httpx.Client, person: dict[str, Any]) -> list[dict[str, Any]]:
    """What was written down of a person, the oldest first, without the times."""
    data = admin.get("/audit", params={"subject": f"person:{person['id']}"}).json()["data"]
    return [{name: action[name] for name in ("action", "before", "after")} for action in reversed(data)]


@contextmanager
def _browser(gateway: LiveGateway, link: str, agent: str = "") -> Iterator[httpx.Client]:
    """A browser that has followed a link."""
    with httpx.Client(base_url=gateway.base_url, headers={"user-agent": agent}, trust_env=False) as client:
        client.post("/console/sign-in", data={"ticket": link})
        yield client


def _is_in(browser: httpx.Client) -> bool:
    return browser.get("/console/account").status_code == 200


def test_a_person_is_added_and_let_in_by_a_link(admin: httpx.Client, keeper: LiveGateway) -> None:
    """The link is that of the gateway as the client sees it, opens once, and is in no other answer."""
    person = _added(admin, "ada", "admin")
    assert {field: person[field] for field in _FIRST} == _FIRST
    assert person["has_password"] is False
    path = f"/people/{person['id']}"
    made = admin.post(f"{path}/link").json()
    address, _, ticket = made["link"].partition("#")
    assert (address, made["link_shown"], made["person"]) == (f"{keeper.base_url}/console/sign-in", True, person)
    with _browser(keeper, made["link"]) as first, _browser(keeper, made["link"]) as second:
        assert (_is_in(first), _is_in(second)) == (True, False)
    for shown in ("/people", path, f"{path}/logins", "/audit"):
        assert ticket not in admin.get(shown).text
    assert _actions(admin, person)[:2] == [
        {"action": "person.create", "before": None, "after": {"name": "ada", "role": "admin", "is_disabled": False}},
        {"action": "person.link", "before": None, "after": None},
    ]


@pytest.mark.parametrize("how", ["absent", "null", "another"])
def test_a_patch_changes_what_it_names_and_nothing_else(admin: httpx.Client, how: str) -> None:
    """Over every field: what is absent stays, null is refused, a value replaces; and it is written down."""
    _added(admin, "root", "admin")
    person = _added(admin, "ada", "admin")
    expected = dict(_FIRST)
    for name, another in _OTHERS.items():
        noted = len(_actions(admin, person))
        body = {} if how == "absent" else {name: None if how == "null" else another}
        answer = admin.patch(f"/people/{person['id']}", json=body)
        if how == "null":
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)
        else:
            expected |= body
            assert answer.status_code == 200, answer.text
        shown = admin.get(f"/people/{person['id']}").json()
        assert {field: shown[field] for field in expected} == expected, name
        field = "is_disabled" if name == "disabled" else name
        change = {"action": "person.update", "before": {field: _FIRST[name]}, "after": {field: another}}
        assert _actions(admin, person)[noted:] == ([change] if how == "another" else [])


def test_whoever_is_disabled_is_signed_out_and_gets_no_link(admin: httpx.Client, keeper: LiveGateway) -> None:
    """Cookies and links stop counting at once; a person who is enabled again signs in by a new link."""
    path = f"/people/{_added(admin, 'ada')['id']}"
    opened, kept = (admin.post(f"{path}/link").json()["link"] for _ in range(2))
    with _browser(keeper, opened) as browser:
        assert _is_in(browser)
        assert admin.patch(path, json={"disabled": True}).json()["disabled"] is True
        assert not _is_in(browser)
        refused = admin.post(f"{path}/link")
        assert (refused.status_code, "disabled" in refused.json()["error"]["message"]) == (400, True)
        admin.patch(path, json={"disabled": False})
        for link, counts in ((kept, False), (admin.post(f"{path}/link").json()["link"], True)):
            with _browser(keeper, link) as another:
                assert _is_in(another) is counts


def test_an_administrator_is_left_whatever_happens(admin: httpx.Client) -> None:
    """The last one who can sign in can be neither disabled nor made a viewer; of two, either can."""
    first, second = (f"/people/{_added(admin, name, 'admin')['id']}" for name in ("ada", "grace"))
    assert admin.patch(first, json={"role": "viewer"}).status_code == 200
    for body in ({"disabled": True}, {"role": "viewer"}):
        refused = admin.patch(second, json=body)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, next(iter(body)))
    assert admin.patch(second, json={"name": "hopper"}).status_code == 200
    admin.patch(first, json={"role": "admin"})
    assert admin.patch(second, json={"disabled": True}).status_code == 200
    assert admin.patch(first, json={"disabled": True}).status_code == 400
    assert admin.patch(second, json={"name": "grace"}).status_code == 200


def test_a_name_is_given_once(admin: httpx.Client) -> None:
    """Neither a new person nor one who is renamed gets another's, and nothing of that request is done."""
    _added(admin, "ada", "admin")
    other = _added(admin, "grace")
    for refused in (
        admin.post("/people", json={"name": "ada"}),
        admin.patch(f"/people/{other['id']}", json={"name": "ada", "role": "admin"}),
    ):
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "name")
    assert [person["role"] for person in admin.get("/people").json()["data"]] == ["admin", "viewer"]


@pytest.mark.parametrize(
    "change",
    [
        lambda admin, path, headers: admin.patch(path, json={"role": "admin"}, headers=headers),
        lambda admin, path, headers: admin.post(f"{path}/link", headers=headers),
    ],
    ids=["patch", "link"],
)
def test_nobody_overwrites_what_somebody_else_has_changed(
    admin: httpx.Client, change: Callable[[httpx.Client, str, dict[str, str]], httpx.Response]
) -> None:
    """With the version of before the other's change it is a 412, and nothing is done; with that of now it is done."""
    person = _added(admin, "ada")
    path = f"/people/{person['id']}"
    old = admin.get(path).headers["etag"]
    new = admin.patch(path, json={"name": "grace"}).headers["etag"]
    assert old != new == admin.get(path).headers["etag"]
    noted = _actions(admin, person)
    refused = change(admin, path, {"if-match": old})
    assert (refused.status_code, refused.json()["error"]["code"]) == (412, "precondition_failed")
    assert _actions(admin, person) == noted
    done = change(admin, path, {"if-match": new})
    assert (done.status_code, done.headers["etag"]) == (200, admin.get(path).headers["etag"])


def test_a_request_that_is_sent_again_is_done_once(admin: httpx.Client) -> None:
    """A person is added once, and a link is shown once; another request with the same Idempotency-Key is a 409."""
    headers = {"idempotency-key": "one"}
    first, again = (admin.post("/people", json={"name": "ada"}, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code, again.json()) == (201, 200, first.json())
    assert admin.post("/people", json={"name": "grace"}, headers=headers).status_code == 409
    path = f"/people/{first.json()['id']}/link"
    assert admin.post(path, headers=headers).status_code == 409
    made, repeated = (admin.post(path, headers={"idempotency-key": "two"}).json() for _ in range(2))
    assert made["link"]
    assert repeated == {"person": first.json(), "link": None, "link_shown": False, "expires_at": None}
    assert [one["action"] for one in _actions(admin, first.json())] == ["person.create", "person.link"]


def test_logins_are_listed_and_ended(admin: httpx.Client, keeper: LiveGateway, database: Database) -> None:
    """One by one or all, those of this person only; what has been idle for too long is none any more."""
    people = [_added(admin, name) for name in ("ada", "grace")]
    paths = [f"/people/{person['id']}" for person in people]
    links = [admin.post(f"{path}/link").json()["link"] for path in (paths[0], paths[0], paths[0], paths[1])]
    with database.transaction() as connection:
        sign_in_with_ticket(connection, links.pop(0).partition("#")[2], Origin("idle"))
        connection.exec_driver_sql("UPDATE login SET seen_at = 0")
    with (
        _browser(keeper, links[0], "phone") as phone,
        _browser(keeper, links[1], "tablet") as tablet,
        _browser(keeper, links[2], "hers") as hers,
    ):
        logins = admin.get(f"{paths[0]}/logins").json()["data"]
        assert [login["browser"] for login in logins] == ["tablet", "phone"]
        page = admin.get(f"{paths[0]}/logins", params={"limit": 1}).json()
        rest = admin.get(f"{paths[0]}/logins", params={"cursor": page["next"]}).json()
        assert page["data"] + rest["data"] == logins
        assert admin.delete(f"{paths[1]}/logins/{logins[1]['id']}").status_code == 404
        assert admin.delete(f"{paths[0]}/logins/{logins[1]['id']}").status_code == 204
        assert (_is_in(phone), _is_in(tablet), _is_in(hers)) == (False, True, True)
        assert [admin.delete(f"{paths[0]}/logins").status_code for _ in range(2)] == [204, 204]
        assert (_is_in(tablet), _is_in(hers)) == (False, True)
    assert [one["after"] for one in _actions(admin, people[0])[-2:]] == [{"ended": 1}, {"ended": 1}]


def test_pages_neither_skip_nor_repeat(admin: httpx.Client) -> None:
    """People are listed once each, by name."""
    names = [f"{letter}{number}" for letter in ("a", "B", "ä", "z") for number in range(2)]
    for name in names:
        _added(admin, name)
    found: list[str] = []
    page = admin.get("/people", params={"limit": 3}).json()
    while True:
        found += [person["name"] for person in page["data"]]
        if page["next"] is None:
            break
        page = admin.get("/people", params={"limit": 3, "cursor": page["next"]}).json()
    assert found == sorted(names)
