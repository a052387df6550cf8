"""Signing in and out, and what other sites can't do with somebody's login."""

import hashlib
import re
import secrets
from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from msgspec.structs import replace
from sqlalchemy import text

from app.keys.administration import pause_key, revoke_key, update_key
from app.people.administration import new_person
from app.people.sign_in import hashed_password
from app.storage.audit import actions_before
from app.storage.clock import now
from app.storage.database import Connection, Database
from app.storage.keys import StoredKey, find_key
from app.storage.people import Person, add_ticket, change_person, find_person, has_anybody_signed_in, logins_of
from tests.console.running import COOKIE, Console, Signed

PASSWORD = "correct horse battery"


def _enter(console: Console, headers: dict[str, str] | None = None, **fields: str) -> httpx.Response:
    with console.stranger() as client:
        return client.post("/console/sign-in", data=fields, headers=headers)


def test_a_link_signs_in_once(own_console: Console) -> None:
    """The second time it is refused, in words that say how to get another one."""
    ticket = own_console.ticket()
    first, second = (_enter(own_console, ticket=ticket) for _ in range(2))
    assert (first.status_code, first.headers["location"]) == (303, "/console/welcome")
    cookies = first.headers.get_list("set-cookie")
    # Applications at other ports of the same host get it neither.
    for cookie, place in zip(cookies, ("/console", "/admin"), strict=True):
        assert cookie.startswith(f"{COOKIE}=")
        assert {"HttpOnly", "SameSite=strict", f"Path={place}"} <= set(cookie.split("; "))
    assert second.status_code == 401
    assert f"console-link --base-url {own_console.gateway.base_url}<" in second.text
    assert "set-cookie" not in second.headers


def test_a_whole_link_may_be_pasted(own_console: Console) -> None:
    """With its address, and with what people copy around it."""
    ticket = own_console.ticket()
    assert _enter(own_console, ticket=f"  http://localhost:8088/console/#{ticket}\n").status_code == 303


@pytest.mark.parametrize("wrong", ["expired", "guessed", "of somebody disabled"])
def test_a_link_that_counts_no_more_is_refused(own_console: Console, wrong: str) -> None:
    """One that has expired, one that was never given, and one of a person who is disabled since."""
    ticket = secrets.token_urlsafe(32)
    person: Person = own_console.done(new_person, "ada", "admin")
    if wrong == "expired":
        digest = hashlib.sha256(ticket.encode()).hexdigest()
        own_console.done(add_ticket, digest, person.id, now() - 1)
    elif wrong == "of somebody disabled":
        ticket = own_console.ticket(person)
        own_console.done(change_person, replace(person, disabled_at=now()))
    assert _enter(own_console, ticket=ticket).status_code == 401


def test_a_name_and_a_password_sign_in(own_console: Console) -> None:
    """The right ones; anything else is told in the same words, whether there is such a person or not."""
    person: Person = own_console.done(new_person, "ada", "viewer")
    own_console.done(change_person, replace(person, password=hashed_password(PASSWORD)))
    own_console.done(new_person, "without a password", "admin")
    assert _enter(own_console, name="ada", password=PASSWORD).status_code == 303
    tries = [("ada", "wrong"), ("nobody", PASSWORD), ("without a password", "")]
    refused = [_enter(own_console, name=name, password=password) for name, password in tries]
    assert {response.status_code for response in refused} == {401}
    assert all("Name or password is wrong." in response.text for response in refused)


def test_a_key_signs_its_holder_in(own_console: Console) -> None:
    """Who is led to the key's own page; a key that doesn't open says why."""
    new = own_console.new_key()
    with own_console.stranger() as client:
        assert client.post("/console/sign-in", data={"key": new.secret}).status_code == 303
        home = client.get("/console/")
        assert (home.status_code, home.headers["location"]) == (303, f"/console/keys/{new.key.id}")
    assert _enter(own_console, key="sk-kimi-nobody-has-this-one").status_code == 401
    other = own_console.new_key()
    own_console.done(lambda connection: revoke_key(own_console.database, connection, other.key))
    assert _enter(own_console, key=other.secret).status_code == 401


def test_tries_are_few(own_console: Console) -> None:
    """The sixth within a minute is refused, even with the right password; a link opens however many were wrong."""
    person: Person = own_console.done(new_person, "ada", "admin")
    own_console.done(change_person, replace(person, password=hashed_password(PASSWORD)))
    wrong = [_enter(own_console, name="ada", password="wrong").status_code for _ in range(5)]
    assert wrong == [401] * 5
    assert _enter(own_console, name="ada", password=PASSWORD).status_code == 429
    assert _enter(own_console, key=own_console.new_key().secret).status_code == 429
    assert [_enter(own_console, ticket="wrong").status_code for _ in range(7)] == [401] * 5 + [429] * 2
    assert _enter(own_console, ticket=own_console.ticket()).status_code == 303


def test_behind_a_proxy_each_client_has_its_own_tries(own_console: Console) -> None:
    """Whom a trusted proxy names by the last address of X-Forwarded-For; what a client makes up there is no address."""

    def enter(client: str) -> int:
        return _enter(own_console, {"x-forwarded-for": f"6.6.6.6, {client}"}, name="ada", password="-").status_code

    assert [enter("192.0.2.1") for _ in range(6)] == [401] * 5 + [429]
    assert [enter("192.0.2.2"), enter("2001:db8::1"), enter("192.0.2.1")] == [401, 401, 429]


def test_a_sign_in_is_in_the_log_of_changes(own_console: Console) -> None:
    """With who and from where; and from then on there has been one, whatever becomes of people and logins."""
    assert not own_console.done(has_anybody_signed_in)
    ticket = own_console.ticket()
    assert not own_console.done(has_anybody_signed_in)  # though there is a person
    _enter(own_console, {"x-forwarded-for": "192.0.2.7"}, ticket=ticket)
    (action,) = own_console.done(actions_before, None)
    assert (action["action"], action["via"], action["address"]) == ("person.sign_in", "console", "192.0.2.7")
    own_console.done(lambda connection: connection.execute(text("DELETE FROM login")))
    assert own_console.done(has_anybody_signed_in)


def _sign_out(console: Console, admin: Signed) -> None:
    assert admin.post("/console/account/sign-out").headers["location"] == "../sign-in"
    assert console.done(logins_of, person_id=admin.login.login.person_id, key_id=None) == []


def _disable(console: Console, admin: Signed) -> None:
    assert admin.person is not None
    console.done(change_person, replace(admin.person, disabled_at=now()))


def _be_idle(console: Console, admin: Signed) -> None:
    seen = {"at": now() - 13 * 3_600_000, "digest": admin.login.login.digest}
    statement = text("UPDATE login SET seen_at = :at WHERE digest = :digest")
    console.done(lambda connection: connection.execute(statement, seen))


def _grow_old(console: Console, admin: Signed) -> None:
    seen = {"at": now() - 1, "digest": admin.login.login.digest}
    statement = text("UPDATE login SET expires_at = :at WHERE digest = :digest")
    console.done(lambda connection: connection.execute(statement, seen))


@pytest.mark.parametrize("end", [_sign_out, _disable, _be_idle, _grow_old])
def test_a_person_s_login_ends(console: Console, end: Callable[[Console, Signed], None]) -> None:
    """When they sign out, are disabled, have been away for 12 hours, or after 30 days: the cookie opens nothing."""
    with console.signed_in("admin") as admin:
        assert admin.client.get("/console/keys").status_code == 200
        end(console, admin)
        with console.stranger() as thief:
            thief.cookies.set(COOKIE, admin.login.cookie)
            assert thief.get("/console/keys").status_code == 303
            assert thief.post("/console/keys/new", data={"csrf": admin.csrf, "name": "thief"}).status_code == 303


def _expire_key(database: Database, connection: Connection, key: StoredKey) -> None:
    update_key(database, connection, replace(key, expires_at=now() - 1))


@pytest.mark.parametrize("end", [pause_key, revoke_key, _expire_key])
def test_a_holder_s_login_ends_with_the_key(console: Console, end: Callable[..., object]) -> None:
    """One that is paused, revoked or over shows nothing any more."""
    with console.signed_in("holder") as holder:
        assert holder.key is not None
        key = holder.key.key
        assert holder.client.get(f"/console/keys/{key.id}").status_code == 200
        console.done(lambda connection: end(console.database, connection, key))
        assert holder.client.get(f"/console/keys/{key.id}").status_code == 303


def test_somebody_who_comes_back_lands_where_they_wanted(own_console: Console) -> None:
    """The page that asked to sign in is the one that is shown then, with what stood in its address."""
    with own_console.stranger() as client:
        asked = client.get("/console/requests?span=24h&outcome=failed").headers["location"]
        form = client.get(asked).text
        wanted = re.findall(r'name="next" value="([^"]+)"', form[form.index('id="ticket-form"') :])[0].replace(
            "&amp;", "&"
        )
        entered = client.post("/console/sign-in", data={"ticket": own_console.ticket(), "next": wanted})
        assert entered.headers["location"] == "/console/requests?span=24h&outcome=failed"
        assert client.get("/console/sign-in?next=/console/keys").headers["location"] == "/console/keys"


@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.example/",
        "//evil.example/console/",
        "/\\evil.example",
        "/console/\\evil.example",
        "/console//evil.example",
        "/console/..//evil.example",
        "\t//evil.example",
        "/\t/evil.example/console/",
        "javascript:alert(1)",
        "/console.evil.example/",
        "http:/console/",
        "@evil.example/console/",
    ],
)
def test_signing_in_never_leads_to_another_site(console: Console, wanted: str) -> None:
    """Nor does choosing a language; what browsers make of the address stays here."""
    with console.stranger() as client:
        for path, fields in (("sign-in", {"ticket": console.ticket()}), ("look", {"language": "zh"})):
            response = client.post(f"/console/{path}", data={**fields, "next": wanted})
            location = response.headers["location"]
            assert response.status_code == 303
            assert (
                urlsplit(urljoin(console.gateway.base_url, location)).netloc
                == urlsplit(client.base_url.__str__()).netloc
            )
            assert location in ("/console/", "/console/welcome")


@pytest.mark.parametrize(
    ("role", "wanted", "leads"),
    [
        ("admin", "", ("welcome", "")),
        ("admin", "/console/keys", ("keys", "keys")),
        ("viewer", "", ("", "")),
    ],
)
def test_whoever_has_to_begin_is_welcomed(own_console: Console, role: str, wanted: str, leads: tuple[str, str]) -> None:
    """An administrator, as long as nothing has been asked; not where another page was wanted."""
    person: Person = own_console.done(new_person, "ada", role)
    for where in leads:
        entered = _enter(own_console, ticket=own_console.ticket(person), next=wanted)
        assert entered.headers["location"] == f"/console/{where}"
        assert own_console.chat().status_code == 200
        own_console.rows()


def _headers(**named: str) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in named.items()}


@pytest.mark.parametrize(
    ("token", "headers"),
    [
        ("", {}),
        ("wrong", {}),
        ("another login's", {}),
        ("own", _headers(sec_fetch_site="cross-site")),
        ("own", _headers(sec_fetch_site="same-site")),
        ("own", _headers(sec_fetch_site="none")),
        ("own", _headers(origin="https://evil.example")),
        ("own", _headers(origin="null")),
        ("own", _headers(origin="http://127.0.0.1:1")),
    ],
)
def test_a_form_that_is_not_ours_changes_nothing(console: Console, token: str, headers: dict[str, str]) -> None:
    """Without the login's own token, or from another site as the browser says: 403."""
    with console.signed_in("admin") as admin, console.signed_in("admin") as other:
        key = console.new_key().key
        sent = {"own": admin.csrf, "another login's": other.csrf}.get(token, token)
        for path in (f"/console/keys/{key.id}/revoke", f"/console/keys/{key.id}", "/console/keys/new"):
            response = admin.client.post(path, data={"csrf": sent, "name": "forged"}, headers=headers)
            assert response.status_code == 403
        (stored,) = console.done(find_key, key.id)
        assert stored == key
        assert console.done(find_key, "forged") == []


@pytest.mark.parametrize("path", ["sign-in", "look"])
def test_another_site_signs_nobody_in_and_chooses_no_language(console: Console, path: str) -> None:
    """Forms that strangers may send come from our own pages, too."""
    fields = {"ticket": console.ticket(), "language": "zh"}
    with console.stranger() as client:
        for headers in (_headers(sec_fetch_site="cross-site"), _headers(origin="https://evil.example")):
            response = client.post(f"/console/{path}", data=fields, headers=headers)
            assert (response.status_code, response.headers.get("set-cookie")) == (403, None)


def test_forms_of_ours_are_taken(console: Console) -> None:
    """With the token, from the same origin; also from a browser that says nothing about where it comes from."""
    with console.signed_in("admin") as admin:
        host = urlsplit(console.gateway.base_url).netloc
        for headers in ({}, _headers(origin=f"http://{host}"), _headers(sec_fetch_site="same-origin")):
            key = console.new_key().key
            response = admin.client.post(f"/console/keys/{key.id}/pause", data={"csrf": admin.csrf}, headers=headers)
            assert response.status_code == 303
            (stored,) = console.done(find_key, key.id)
            assert stored.paused_at is not None


def test_a_strange_form_is_no_fault_of_the_gateway(console: Console) -> None:
    """Too many fields, and bytes that are no text, are refused or read as they can be."""
    with console.signed_in("admin") as admin:
        many = "&".join(f"field{number}=1" for number in range(200)) + f"&csrf={admin.csrf}"
        for body in (many.encode(), b"csrf=\xff\xfe%ff%00", b"\x00" * 100):
            headers = {"content-type": "application/x-www-form-urlencoded"}
            response = admin.client.post("/console/keys/new", content=body, headers=headers)
            assert response.status_code in (400, 403)
            assert response.headers["content-type"].startswith("text/html")
        assert admin.client.get("/console/requests?key=%00").status_code == 404
        assert admin.client.get("/console/keys/%00").status_code == 404
    assert _enter(console, name="a\0b", password=PASSWORD).status_code == 400


def test_a_name_takes_as_long_as_any_other(own_console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    """One password is hashed for whoever is named, so that nobody learns who exists."""
    person: Person = own_console.done(new_person, "ada", "viewer")
    own_console.done(change_person, replace(person, password=hashed_password(PASSWORD)))
    hashed: list[bytes] = []
    scrypt = hashlib.scrypt

    def noted(password: bytes, **parameters: Any) -> bytes:
        hashed.append(password)
        return scrypt(password, **parameters)

    monkeypatch.setattr(hashlib, "scrypt", noted)
    for name in ("ada", "nobody"):
        assert _enter(own_console, name=name, password="a wrong password").status_code == 401
    assert hashed == [b"a wrong password"] * 2


def test_behind_https_the_cookie_is_for_https_only(own_console: Console) -> None:
    """As a proxy says by X-Forwarded-Proto: `__Host-`, Secure, and of this very host."""
    response = _enter(own_console, {"x-forwarded-proto": "https"}, ticket=own_console.ticket())
    (cookie,) = response.headers.get_list("set-cookie")
    assert cookie.startswith(f"__Host-{COOKIE}=")
    assert {"Secure", "HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert "Domain" not in cookie


def test_a_password_has_to_be_long_and_can_be_taken_back(own_console: Console) -> None:
    """A short one is refused; the one that was set signs in, until it is taken away."""
    with own_console.signed_in("admin") as admin:
        assert admin.person is not None
        assert admin.post("/console/account/password", password="short").status_code == 400
        assert admin.post("/console/account/password", password=PASSWORD).status_code == 303
        assert _enter(own_console, name=admin.person.name, password=PASSWORD).status_code == 303
        assert admin.post("/console/account/password", password="").status_code == 303
        assert _enter(own_console, name=admin.person.name, password=PASSWORD).status_code == 401

        def stored(connection: Connection) -> Person | None:
            return find_person(connection, name=admin.person.name if admin.person else "")

        person = own_console.done(stored)
        assert person is not None
        assert person.password is None
