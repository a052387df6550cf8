"""Keys by the admin API, on a database of each kind."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest

from app.domain.granting import Scope
from app.storage.database import Database
from app.storage.limits import stored_limits
from tests.api.admin.conftest import create
from tests.conftest import StartGateway
from tests.live import WAIT_SECONDS, LiveGateway, until

# Of each field: what it is at first, another value, and what null makes of it; None where null is refused.
_FIELDS: dict[str, tuple[Any, Any, tuple[Any] | None]] = {
    "name": ("ada", "bob", None),
    "project": ("lab", "shop", None),
    "scopes": (["chat"], ["chat", "metrics"], None),
    "models": (["kimi*"], ["qwen*", "gpt-4o"], (None,)),
    "limits": ("60 requests/minute", "5 at once", (None,)),
    "note": ("hers", "his", ("",)),
    "expires_at": ("2030-01-01T00:00:00Z", "2031-02-03T04:05:06Z", (None,)),
}
_FIRST = {name: first for name, (first, _, _) in _FIELDS.items()}


def _made(admin: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer: dict[str, Any] = admin.post("/keys", json=fields or _FIRST).raise_for_status().json()
    return answer


def test_a_body_is_json_whatever_it_is_called(admin: httpx.Client) -> None:
    """`curl -d` calls every body a form, and some clients say nothing."""
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert admin.post("/keys", content='{"name": "ada"}', headers=form).status_code == 201
    assert admin.post("/keys", content='{"name": "bob"}').status_code == 201
    refused = admin.post("/keys", content="name=carl", headers=form)
    assert refused.status_code == 400
    assert "could not be parsed as JSON" in refused.json()["error"]["message"]


def _actions(admin: httpx.Client, subject: str) -> list[dict[str, Any]]:
    """What was written down of something, the oldest first, without the times."""
    data = admin.get("/audit", params={"subject": subject}).json()["data"]
    return [{name: action[name] for name in ("action", "before", "after")} for action in reversed(data)]


def _all(client: httpx.Client, path: str, **params: Any) -> list[dict[str, Any]]:
    """A list over all its pages."""
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = client.get(path, params=params | ({"cursor": cursor} if cursor else {})).raise_for_status().json()
        assert list(page) == ["data", "next"]
        assert len(page["data"]) <= params.get("limit", 50)
        found += page["data"]
        cursor = page["next"]
        if cursor is None:
            return found


def test_a_key_that_is_made_opens_and_its_secret_is_shown_once(admin: httpx.Client, keeper: LiveGateway) -> None:
    """With all its fields; no other answer, and no line of the log of changes, has the secret."""
    made = _made(admin)
    key, secret = made["key"], made["secret"]
    assert made["secret_shown"] is True
    assert {name: key[name] for name in _FIRST} == _FIRST
    assert (key["state"], [one["hint"] for one in key["secrets"]]) == ("active", [f"{secret[:12]}…{secret[-4:]}"])
    with keeper.client(secret) as client:
        assert client.get("/v1/key").json()["id"] == key["id"]
    for path in ("/keys", f"/keys/{key['id']}", "/audit", f"/limits/key:{key['id']}", "/settings"):
        assert secret not in admin.get(path).text
    assert _actions(admin, f"key:{key['id']}") == [
        {
            "action": "key.create",
            "before": None,
            "after": {
                **_FIRST,
                "expires_at": "2030-01-01T00:00:00+00:00",
                "is_paused": False,
                "is_revoked": False,
            },
        }
    ]


def test_a_key_opens_until_the_end_of_the_day_that_was_given(admin: httpx.Client) -> None:
    """As in the console and at the command line; what is no date is told both forms."""
    key = _made(admin, name="ada", expires_at="2030-01-31")["key"]
    assert key["expires_at"] == "2030-02-01T00:00:00Z"
    path = f"/keys/{key['id']}"
    assert admin.patch(path, json={"expires_at": "2030-03-31"}).json()["expires_at"] == "2030-04-01T00:00:00Z"
    assert (
        admin.post("/keys", json={"name": "late", "expires_at": "2020-01-31"}).json()["error"]["param"] == "expires_at"
    )
    refused = admin.patch(path, json={"expires_at": "soon"}).json()["error"]
    assert refused["param"] == "expires_at"
    assert (
        "'soon' is not a date such as 2027-01-31 (the end of that day), nor a time with its offset"
        in refused["message"]
    )


@pytest.mark.parametrize("how", ["absent", "null", "another"])
def test_a_patch_changes_what_it_names_and_nothing_else(admin: httpx.Client, database: Database, how: str) -> None:
    """Over every field: what is absent stays, null clears or is refused, a value replaces; and it is written down."""
    key_id = _made(admin)["key"]["id"]
    subject = f"key:{key_id}"
    expected = dict(_FIRST)
    for name, (_, another, cleared) in _FIELDS.items():
        noted = len(_actions(admin, subject))
        body = {} if how == "absent" else {name: None if how == "null" else another}
        answer = admin.patch(f"/keys/{key_id}", json=body)
        if how == "null" and cleared is None:
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)
        else:
            assert answer.status_code == 200, answer.text
            if how == "another":
                expected[name] = another
            elif how == "null" and cleared is not None:
                expected[name] = cleared[0]
        shown = admin.get(f"/keys/{key_id}").json()
        assert {field: shown[field] for field in expected} == expected, name
        fresh = _actions(admin, subject)[noted:]
        has_changed = answer.status_code == 200 and how != "absent"
        assert [list(action["after"]) for action in fresh] == ([[name]] if has_changed else [])
    with database.transaction(reads=True) as connection:
        assert stored_limits(connection).get(Scope("key", key_id)) == expected["limits"]


def test_a_patch_that_is_refused_changes_nothing(admin: httpx.Client) -> None:
    """Not even those of its fields that are right: limits, too, are set and undone together with the rest."""
    _made(admin, name="eve", project="lab")
    key = _made(admin)["key"]
    for body in (
        {"limits": "5 at once", "name": "eve"},
        {"note": "x", "limits": "nonsense"},
        {"note": "x", "scopes": ["all"]},
    ):
        assert admin.patch(f"/keys/{key['id']}", json=body).status_code == 400
    assert admin.get(f"/keys/{key['id']}").json() == key


def test_a_key_moves_to_another_project(admin: httpx.Client, keeper: LiveGateway) -> None:
    """Which is made if there is none; workers that know the key learn of it."""
    made = _made(admin)
    with keeper.client(made["secret"]) as client:
        assert client.get("/v1/key").json()["project"] == "lab"
        assert admin.patch(f"/keys/{made['key']['id']}", json={"project": "new"}).json()["project"] == "new"
        until(lambda: client.get("/v1/key").json()["project"] == "new")
    counts = {project["name"]: project["keys"] for project in admin.get("/projects").json()["data"]}
    assert counts == {"lab": 0, "new": 1, "operators": 1}


def test_the_last_use_of_each_secret_is_shown_and_is_no_change(admin: httpx.Client, keeper: LiveGateway) -> None:
    """After a rotation one sees which secret is still in use; whoever has read the key before may still change it."""
    made = _made(admin)
    path = f"/keys/{made['key']['id']}"
    admin.post(f"{path}/rotate", json={"grace": "24h"}).raise_for_status()
    before = admin.get(path)

    def used() -> list[str | None]:
        return [one["last_used_at"] for one in admin.get(path).json()["secrets"]]

    assert used() == [None, None]
    assert [one["valid_until"] is None for one in before.json()["secrets"]] == [True, False]
    with keeper.client(made["secret"]) as client:
        client.get("/v1/key").raise_for_status()
    until(lambda: used()[1])
    assert used()[0] is None
    assert admin.get(path).headers["etag"] == before.headers["etag"]
    assert admin.patch(path, json={"note": "his"}, headers={"if-match": before.headers["etag"]}).status_code == 200


def test_a_key_is_paused_resumed_revoked_and_rotated(admin: httpx.Client, keeper: LiveGateway) -> None:
    """Each is written down once, however often it is asked for; a rotation needs no body."""
    made = _made(admin)
    path = f"/keys/{made['key']['id']}"
    rotated = admin.post(f"{path}/rotate", json={"grace": "24h"}).json()
    assert len(rotated["key"]["secrets"]) == 2
    for secret in (made["secret"], rotated["secret"]):
        with keeper.client(secret) as client:
            assert client.get("/v1/key").status_code == 200
    assert len(admin.post(f"{path}/rotate").json()["key"]["secrets"]) == 1
    states = []
    for method, address in (
        *[("POST", f"{path}/pause")] * 2,
        *[("POST", f"{path}/resume")] * 2,
        *[("DELETE", path)] * 2,
    ):
        states.append(admin.request(method, address).json()["state"])
    assert states == ["paused", "paused", "active", "active", "revoked", "revoked"]
    for action in ("rotate", "pause", "resume"):
        refused = admin.post(f"{path}/{action}")
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "state_conflict")
        assert refused.json()["error"]["message"] == "The key 'ada' is revoked; make a new one."
    actions = _actions(admin, f"key:{made['key']['id']}")
    assert [action["action"] for action in actions] == [
        *("key.create", "key.rotate", "key.rotate", "key.pause", "key.resume", "key.revoke")
    ]
    assert actions[1]["after"] == {"secret": rotated["key"]["secrets"][0]["hint"], "grace_seconds": 86_400}
    assert actions[3] == {"action": "key.pause", "before": {"is_paused": False}, "after": {"is_paused": True}}
    shown = str(actions)
    assert made["secret"] not in shown
    assert rotated["secret"] not in shown


@pytest.mark.parametrize(
    "change",
    [
        lambda admin, path, headers: admin.patch(path, json={"note": "mine"}, headers=headers),
        lambda admin, path, headers: admin.delete(path, headers=headers),
        lambda admin, path, headers: admin.post(f"{path}/pause", headers=headers),
        lambda admin, path, headers: admin.post(f"{path}/rotate", json={}, headers=headers),
    ],
    ids=["patch", "delete", "pause", "rotate"],
)
def test_nobody_overwrites_what_somebody_else_has_changed(
    admin: httpx.Client, change: Callable[[httpx.Client, str, dict[str, str]], httpx.Response]
) -> None:
    """With the version of before the other's change it is a 412, and nothing is done; with that of now it is done."""
    path = f"/keys/{_made(admin)['key']['id']}"
    old = admin.get(path).headers["etag"]
    new = admin.patch(path, json={"limits": "5 at once"}).headers["etag"]
    assert old != new == admin.get(path).headers["etag"]
    before = admin.get(path).json()
    refused = change(admin, path, {"if-match": old})
    assert (refused.status_code, refused.json()["error"]["code"]) == (412, "precondition_failed")
    assert admin.get(path).json() == before
    done = change(admin, path, {"if-match": f'"another", {new}'})
    assert done.status_code == 200
    assert done.headers["etag"] == admin.get(path).headers["etag"] != new
    assert change(admin, path, {"if-match": "*"}).status_code in (200, 400)


@pytest.mark.parametrize("what", ["make", "rotate"])
def test_a_request_that_is_sent_again_is_done_once(admin: httpx.Client, database: Database, what: str) -> None:
    """The same key again without its secret; another request with the same Idempotency-Key is a 409, anywhere."""
    path, body, other = "/keys", {"name": "once"}, {"name": "twice"}
    if what == "rotate":
        path = f"/keys/{_made(admin)['key']['id']}/rotate"
        body, other = {"grace": "1h"}, {"grace": "2h"}
    headers = {"idempotency-key": "a key of the client's"}
    first = admin.post(path, json=body, headers=headers)
    again = admin.post(path, json=body, headers=headers)
    assert (first.status_code, again.status_code) == (201 if what == "make" else 200, 200)
    assert again.json() == {"key": first.json()["key"], "secret": None, "secret_shown": False}
    for address, content in ((path, other), ("/keys", {"name": "once", "note": "x"})):
        refused = admin.post(address, json=content, headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "idempotency_key_reused")
    subject = f"key:{first.json()['key']['id']}"
    assert len(_actions(admin, subject)) == (1 if what == "make" else 2)
    fresh = admin.post(path, json=other, headers={"idempotency-key": "another one"})
    assert fresh.json()["secret"]
    with database.transaction(reads=True) as connection:
        kept = connection.exec_driver_sql("SELECT answer FROM repeated").scalars().all()
    assert not any(secret in " ".join(kept) for secret in (first.json()["secret"], fresh.json()["secret"]))


def test_the_same_request_many_times_at_once_is_done_once(
    start_gateway: StartGateway, admin: httpx.Client, keeper: LiveGateway, settings: dict[str, Any]
) -> None:
    """Whichever worker it goes to: one answer has the secret; and of new keys of one name one is made."""
    journal = settings["journal_dir"].with_name("another-journal")

    async def ask(urls: Sequence[str], headers: dict[str, str], name: str) -> list[httpx.Response]:
        async with httpx.AsyncClient(headers=dict(admin.headers), trust_env=False, timeout=WAIT_SECONDS) as client:
            body = {"name": name, "project": name}
            return await asyncio.gather(*(client.post(url, json=body, headers=headers) for url in urls))

    with start_gateway(**settings | {"journal_dir": journal}) as another:
        urls = [f"{gateway.base_url}/admin/v1/keys" for gateway in (keeper, another)] * 4
        with httpx.Client(headers=admin.headers, trust_env=False) as client:
            for url in urls[:2]:  # now both have made it
                client.get(url).raise_for_status()
        for number in range(10):
            answers = asyncio.run(ask(urls, {"idempotency-key": f"{number}"}, f"once-{number}"))
            assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
            assert len({answer.json()["key"]["id"] for answer in answers}) == 1
            assert [answer.json()["secret_shown"] for answer in answers].count(True) == 1
            answers = asyncio.run(ask(urls, {}, f"taken-{number}"))
            assert sorted(answer.status_code for answer in answers) == [201] + [400] * 7


def test_pages_neither_skip_nor_repeat_while_keys_come_in(admin: httpx.Client, database: Database) -> None:
    """All keys that were there are listed once, by project and name, whatever the case of their names."""
    names = [f"{letter}-{number}" for letter in ("a", "B", "ä", "Z", "z", "%", "_") for number in range(3)]
    for project in ("lab", "Shop"):
        for name in names:
            create(database, name, project=project)
    whole = [(key["project"], key["name"]) for key in _all(admin, "/keys", limit=200)]
    assert len(whole) == len(set(whole)) == 2 * len(names) + 1
    found: list[tuple[str, str]] = []
    cursor, number = None, 0
    while number == 0 or cursor is not None:
        page = admin.get("/keys", params={"limit": 5} | ({"cursor": cursor} if cursor else {})).json()
        found += [(key["project"], key["name"]) for key in page["data"]]
        cursor = page["next"]
        for name in ("0", "m", "zz"):
            create(database, f"{name}-new-{number}", project="lab")
        number += 1
    assert [place for place in found if "new" not in place[1]] == whole
    assert len(found) == len(set(found))


def test_lists_have_what_is_looked_for(admin: httpx.Client) -> None:
    """By project, by state, by a part of the name or the note in any case, or by the id; signs of SQL are signs."""
    keys = {
        name: _made(admin, name=name, **fields)["key"]["id"]
        for name, fields in {
            "Ärger": {"project": "lab"},
            "50%_off": {"project": "lab", "note": "Für ÖRTLICHE Zwecke"},
            "old": {},
            "asleep": {},
            "gone": {},
        }.items()
    }
    for name in ("old", "asleep"):
        assert admin.patch(f"/keys/{keys[name]}", json={"expires_at": "2020-01-01T00:00:00Z"}).status_code == 200
    admin.post(f"/keys/{keys['asleep']}/pause")
    admin.delete(f"/keys/{keys['gone']}")

    def names(**params: Any) -> list[str]:
        return [key["name"] for key in _all(admin, "/keys", **params)]

    assert names(project="lab") == ["50%_off", "Ärger"]
    assert names(state="active", project="lab", q="ä") == ["Ärger"]
    assert names(q="%_") == ["50%_off"]
    assert names(q="örtl", limit=1) == ["50%_off"]
    assert names(q=keys["old"]) == names(state="expired") == ["old"]
    assert names(state="paused") == ["asleep"]
    assert names(state="revoked") == names(state="revoked", q="GONE") == ["gone"]
    assert "gone" not in names()
