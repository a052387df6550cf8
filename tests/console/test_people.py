"""People on the console: added, let in by links, disabled; and where they are signed in."""

import re

from app.storage.audit import actions_before
from app.storage.database import Database
from app.storage.people import find_person, logins_of
from tests.console import staff
from tests.console.staff import Visit, browser, holding, make_key, signed_in
from tests.live import LiveGateway

database = staff.database
keeper = staff.keeper
admin = staff.admin

_ACTIONS = ("person.create", "person.link", "person.disable", "person.enable", "login.end")
_LINK = re.compile(r'id="secret">(http://[^<]+)#([^<]+)<')


def _actions(database: Database) -> list[tuple[str, str]]:
    with database.transaction(reads=True) as connection:
        actions = actions_before(connection, None)
    return [(one["action"], one["actor"]) for one in actions if one["action"] in _ACTIONS]


def _id(database: Database, name: str) -> str:
    with database.transaction(reads=True) as connection:
        person = find_person(connection, name=name)
    assert person is not None
    return person.id


def test_a_person_who_is_added_gets_a_link_that_opens_once(
    keeper: LiveGateway, database: Database, admin: Visit
) -> None:
    """The link is shown once, signs in as that person in that role, and is in the log of changes without its ticket."""
    found = _LINK.search(admin.send("/people", name="grace", role="viewer"))
    assert found is not None
    assert found[1] == f"{keeper.base_url}/console/sign-in"
    assert found[2] not in admin.page("/people") + admin.page("/audit")
    with browser(keeper) as grace:
        assert grace.http.post("/console/sign-in", data={"ticket": found[2]}).status_code == 200
        assert "grace" in grace.page("/account")
        grace.page("/people", 403)
        assert grace.http.post("/console/people", data={"csrf": grace.token, "name": "x"}).status_code == 403
    with browser(keeper) as late:
        assert late.http.post("/console/sign-in", data={"ticket": found[2]}).status_code == 401
    assert _actions(database)[0] == ("person.create", f"person:{_id(database, 'ada')}")


def test_a_name_is_given_once(admin: Visit) -> None:
    """A second person of the same name is refused, and what was typed is still there."""
    admin.send("/people", name="grace", role="viewer")
    again = admin.send("/people", 400, name="grace", role="admin")
    assert "already exists" in again
    assert 'value="grace"' in again


def test_whoever_is_disabled_is_signed_out_everywhere(keeper: LiveGateway, database: Database, admin: Visit) -> None:
    """Cookies and links stop counting at once, and for good; once the person is enabled again, new links count."""
    with signed_in(keeper, database, "grace") as grace:
        grace.page("/")
        link = _LINK.search(admin.send(f"/people/{_id(database, 'grace')}/link"))
        assert link is not None
        admin.send(f"/people/{_id(database, 'grace')}/disable")
        assert "/sign-in" in str(grace.http.get("/console/").url)
        assert grace.http.post("/console/sign-in", data={"ticket": link[2]}).status_code == 401
        assert "disabled" in admin.send(f"/people/{_id(database, 'grace')}/link", 400)
        admin.send(f"/people/{_id(database, 'grace')}/enable")
        again = _LINK.search(admin.send(f"/people/{_id(database, 'grace')}/link"))
        assert again is not None
        assert grace.http.post("/console/sign-in", data={"ticket": again[2]}).status_code == 200
        assert "/sign-in" not in str(grace.http.get("/console/").url)
    assert [action for action, _ in _actions(database)] == [
        "person.link",
        "person.enable",
        "person.disable",
        "person.link",
    ]


def test_nobody_disables_themselves(database: Database, admin: Visit) -> None:
    """So an administrator is left whatever happens."""
    assert "yourself" in admin.send(f"/people/{_id(database, 'ada')}/disable", 400)
    admin.page("/people")


def test_an_action_that_nobody_knows_is_missing(database: Database, admin: Visit) -> None:
    """And so is a person."""
    admin.send(f"/people/{_id(database, 'ada')}/promote", 404)
    admin.send("/people/p_nobody/link", 404)


def test_logins_are_ones_own(keeper: LiveGateway, database: Database, admin: Visit) -> None:
    """The account lists where this person is signed in, not where others are: neither people nor holders of keys."""
    first, second = make_key(database, "first"), make_key(database, "second")
    with (
        signed_in(keeper, database, "grace", agent="of-grace"),
        holding(keeper, first.secret) as one,
        holding(keeper, second.secret) as other,
    ):
        assert "of-grace" not in admin.page("/account")
        for visit in (one, other, admin):
            assert visit.page("/account").count("<tr>") == 2  # the head, and the login itself


def test_other_logins_are_ended_one_by_one_or_all(keeper: LiveGateway, database: Database, admin: Visit) -> None:
    """Each by its button, or all but the one that is used."""
    with (
        signed_in(keeper, database, agent="phone") as phone,
        signed_in(keeper, database, agent="tablet") as tablet,
        signed_in(keeper, database, "grace") as grace,
    ):
        with database.transaction(reads=True) as connection:
            logins = logins_of(connection, person_id=_id(database, "ada"), key_id=None)
            hers = logins_of(connection, person_id=_id(database, "grace"), key_id=None)
        phones = next(one.digest for one in logins if one.agent == "phone")
        admin.send("/account/logins", login=phones)
        assert "/sign-in" in str(phone.http.get("/console/").url)
        tablet.page("/")
        # Somebody else's can't be.
        admin.send("/account/logins", login=hers[0].digest)
        admin.send("/account/logins")
        assert "/sign-in" in str(tablet.http.get("/console/").url)
        assert "/sign-in" not in str(admin.http.get("/console/").url)
        assert "/sign-in" not in str(grace.http.get("/console/").url)
    assert [action for action, _ in _actions(database)] == ["login.end", "login.end"]
