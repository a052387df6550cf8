"""Who may see and do what: every page and method of the console, for everybody who might ask."""

from typing import cast
from unittest.mock import MagicMock

import pytest
from starlette.routing import Route

from app.api.console import requests
from app.api.console.app import console_app
from app.api.console.services import ConsoleServices
from tests.console.running import PAGES as PLAIN_PAGES
from tests.console.running import Console, Signed

ADMINS, STAFF, ALL = ("admin",), ("admin", "viewer"), ("admin", "viewer", "holder")
# Viewers may spend nothing.
CHATTERS = ("admin", "holder")
# Each page, and who may use it.
PAGES = {
    ("GET", "/console/"): ALL,
    ("GET", "/console/welcome"): ADMINS,
    ("GET", "/console/requests"): ALL,
    ("GET", "/console/requests/feed"): ALL,
    ("GET", "/console/requests/{call_id:int}"): ALL,
    ("POST", "/console/requests/{call_id:int}/texts"): ADMINS,
    ("POST", "/console/requests/{call_id:int}/playground"): ADMINS,
    ("GET", "/console/recordings"): STAFF,
    ("POST", "/console/recordings"): ADMINS,
    ("GET", "/console/keys"): STAFF,
    ("GET", "/console/keys/new"): ADMINS,
    ("POST", "/console/keys/new"): ADMINS,
    ("GET", "/console/keys/{key_id}"): ALL,
    ("POST", "/console/keys/{key_id}"): ADMINS,
    ("POST", "/console/keys/{key_id}/recording"): ADMINS,
    ("POST", "/console/keys/{key_id}/{action}"): ADMINS,
    ("GET", "/console/projects"): STAFF,
    ("GET", "/console/limits/{scope:path}"): STAFF,
    ("POST", "/console/limits/{scope:path}"): ADMINS,
    ("GET", "/console/sessions"): STAFF,
    ("POST", "/console/sessions/delete"): ADMINS,
    ("GET", "/console/playground"): CHATTERS,
    ("POST", "/console/playground"): CHATTERS,
    ("POST", "/console/playground/stream"): CHATTERS,
    ("GET", "/console/upstreams"): STAFF,
    ("POST", "/console/upstreams"): ADMINS,
    ("GET", "/console/upstreams/{name}"): STAFF,
    ("POST", "/console/upstreams/{name}"): ADMINS,
    ("POST", "/console/upstreams/{name}/probe"): ADMINS,
    ("POST", "/console/routes"): ADMINS,
    ("GET", "/console/prices"): STAFF,
    ("POST", "/console/prices"): ADMINS,
    ("GET", "/console/workers"): STAFF,
    ("GET", "/console/settings"): STAFF,
    ("GET", "/console/people"): ADMINS,
    ("POST", "/console/people"): ADMINS,
    ("POST", "/console/people/{person_id}/{action}"): ADMINS,
    ("GET", "/console/audit"): STAFF,
    ("GET", "/console/account"): ALL,
    ("POST", "/console/account/password"): STAFF,
    ("POST", "/console/account/logins"): ALL,
    ("POST", "/console/account/sign-out"): ALL,
}
# Those that anybody may use, who isn't signed in either.
OPEN = {
    ("GET", "/console"),
    ("GET", "/console/static/{version}/{name}"),
    ("GET", "/console/sign-in"),
    ("POST", "/console/sign-in"),
    ("POST", "/console/look"),
}
FORMS = {
    "/console/keys/new": {"name": "made by a form"},
    "/console/keys/{key_id}": {"name": "changed by a form"},
    "/console/keys/{key_id}/recording": {"do": "start", "duration": "15m"},
    "/console/account/password": {"password": "correct horse battery"},
}
# Of forms that are sent without what they are for: whoever may send them is told so.
WITHOUT_USE = {
    "/console/people": (400,),
    "/console/people/{person_id}/{action}": (404,),
    "/console/playground": (400,),
    "/console/playground/stream": (400,),
    "/console/sessions/delete": (404,),
    "/console/requests/{call_id:int}/texts": (404,),
    "/console/requests/{call_id:int}/playground": (404,),
    "/console/recordings": (400,),
    "/console/upstreams": (400,),
    "/console/upstreams/{name}": (404,),  # one of the settings
    "/console/routes": (400,),
    "/console/prices": (400,),
}


def test_every_route_is_told_here() -> None:
    """A page that is added has to find its place in the tables above."""
    routes = cast("list[Route]", console_app(cast("ConsoleServices", MagicMock())).routes)
    found = {(method, route.path) for route in routes for method in (route.methods or set()) - {"HEAD"}}
    assert found == PAGES.keys() | OPEN
    plain = {f"GET /console/{page}".replace("/gateway", "/{scope:path}") for page in PLAIN_PAGES}
    assert plain == {
        f"{method} {path}"
        for method, path in PAGES
        if method == "GET" and ("{" not in path or "{scope" in path) and not path.endswith("/feed")
    }


def _ask(console: Console, somebody: Signed, method: str, page: str) -> int:
    """The status that somebody gets for a page that is about a key and a request of their own."""
    key = somebody.key or console.new_key()
    path = page.replace("{key_id}", key.key.id).replace("{action}", "pause").replace("{name}", "kimi-web")
    path = path.replace("{scope:path}", "gateway").replace("{person_id}", "p_1")
    if "{call_id:int}" in path:
        assert console.chat(key.secret).status_code == 200
        (row,) = console.rows(lambda row: row["key_id"] == key.key.id)
        path = path.replace("{call_id:int}", str(row["id"]))
    if method == "POST":
        return somebody.post(path, **FORMS.get(page, {})).status_code
    with somebody.client.stream("GET", path) as response:
        return response.status_code


@pytest.mark.parametrize(("method", "page"), list(PAGES))
@pytest.mark.parametrize("role", ALL)
def test_a_page_is_for_its_roles_and_nobody_else(console: Console, role: str, method: str, page: str) -> None:
    """Whoever may use it gets it, or is led on; all others get 403."""
    with console.signed_in(role) as somebody:
        status = _ask(console, somebody, method, page)
        if role not in PAGES[method, page]:
            assert status == 403
        elif method == "POST":
            assert status in WITHOUT_USE.get(page, (201, 303))
        else:
            assert status == (303 if (role, page) == ("holder", "/console/") else 200)


@pytest.mark.parametrize(("method", "page"), list(PAGES))
def test_a_stranger_is_asked_to_sign_in(console: Console, method: str, page: str) -> None:
    """At every page, whatever it would have been about."""
    path = page.replace("{key_id}", "k_1").replace("{call_id:int}", "1")
    with console.stranger() as client:
        response = client.request(method, path)
        assert response.status_code == 303
        assert response.headers["location"].startswith("/console/sign-in?next=/console/")
        assert response.headers["cache-control"] == "no-store"


def test_an_address_takes_no_other_method(console: Console) -> None:
    """PUT, PATCH and DELETE change nothing anywhere."""
    with console.signed_in("admin") as admin:
        for _, page in PAGES:
            for method in ("PUT", "PATCH", "DELETE"):
                path = page.replace("{call_id:int}", "1")
                assert admin.client.request(method, path, data={"csrf": admin.csrf}).status_code in (404, 405)


def test_a_holder_sees_nothing_of_other_keys(console: Console) -> None:
    """Another key's page and requests are as if they weren't there, and the log has only the holder's rows."""
    with console.signed_in("holder") as holder:
        assert holder.key is not None
        other = console.new_key("somebody else's")
        assert console.chat(other.secret).status_code == 200
        assert console.chat(holder.key.secret).status_code == 200
        (foreign,) = console.rows(lambda row: row["key_id"] == other.key.id)
        (own,) = console.rows(lambda row: holder.key is not None and row["key_id"] == holder.key.key.id)
        assert holder.client.get(f"/console/keys/{other.key.id}").status_code == 404
        assert holder.client.get(f"/console/requests/{foreign['id']}").status_code == 404
        for query in ("", f"?key={other.key.id}", "?key="):
            text = holder.client.get(f"/console/requests{query}").text
            assert str(own["id"]) in text
            assert str(foreign["id"]) not in text
            assert "somebody else's" not in text.replace("&#39;", "'")


def test_a_holder_s_feed_has_only_the_holder_s_rows(console: Console) -> None:
    """Also where it asks for another key's."""
    other = console.new_key()
    with (
        console.signed_in("holder") as holder,
        holder.client.stream("GET", f"/console/requests/feed?key={other.key.id}") as feed,
    ):
        assert holder.key is not None
        lines = feed.iter_lines()
        assert next(lines) == "retry: 2000"
        for secret in (other.secret, holder.key.secret):
            assert console.chat(secret).status_code == 200
        told = next(line for line in lines if line.startswith("data: "))
        assert holder.key.key.id in told


@pytest.mark.parametrize("last", ["9" * 19, "9" * 30, "-1", "\N{SUPERSCRIPT TWO}".encode().decode("latin-1"), "x"])
def test_a_feed_goes_on_after_an_id_that_is_none(console: Console, last: str) -> None:
    """With what comes from now on."""
    with (
        console.signed_in("admin") as admin,
        admin.client.stream(
            "GET", "/console/requests/feed", headers=[(b"last-event-id", last.encode("latin-1"))]
        ) as feed,
    ):
        lines = feed.iter_lines()
        assert next(lines) == "retry: 2000"
        assert console.chat().status_code == 200
        assert next(line for line in lines if line.startswith("data: "))


def test_a_feed_outlives_no_login(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends now and then, and who asks again after signing out is a stranger."""
    monkeypatch.setattr(requests, "_FEED_SECONDS", 0.0)
    with console.signed_in("admin") as admin:
        with admin.client.stream("GET", "/console/requests/feed") as feed:
            lines = feed.iter_lines()
            assert next(lines) == "retry: 2000"
            assert console.chat().status_code == 200
            assert list(lines) == [""]
        admin.post("/console/account/sign-out")
        assert admin.client.get("/console/requests/feed").status_code == 303
