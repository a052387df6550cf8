"""Limits on the console: how they stand, what others would have refused, who has set them. Projects and sessions."""

import html
import re
import subprocess

from app.domain.granting import Scope
from app.storage.audit import actions_before
from app.storage.clock import now
from app.storage.database import Database
from app.storage.limits import stored_limits
from app.storage.prices import Price, set_prices
from tests.console import staff
from tests.console.staff import Visit, holding, make_key, signed_in
from tests.live import LiveGateway, until
from tests.storage.calls import rows_of

database = staff.database
keeper = staff.keeper
admin = staff.admin


def _chat(gateway: LiveGateway, secret: str, times: int = 1, session: str = "") -> None:
    with gateway.client(secret) as client:
        for _ in range(times):
            body = {"messages": [{"role": "user", "content": "Hello, my name is Ada."}]}
            assert client.post("/v1/chat/completions", json=body, headers={"x-session-id": session}).status_code == 200


def _limits(database: Database, scope: Scope) -> str | None:
    with database.transaction(reads=True) as connection:
        return stored_limits(connection).get(scope)


def _plain(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_a_keys_limits_are_tried_before_they_are_saved(keeper: LiveGateway, database: Database, admin: Visit) -> None:
    """The page says what they would have refused of the ledger's calls, keeps what was typed, and changes nothing."""
    key = make_key(database)
    _chat(keeper, key.secret, times=3)
    rows_of(database, 3)
    tried = admin.send(f"/keys/{key.key.id}", do="try", name="laptop", limits="1 request/hour")
    assert "1 request/hour would have refused 2 of 3 requests in 7 days." in _plain(tried)
    assert "Most on" in tried
    assert 'name="limits" value="1 request/hour"' in tried
    assert _limits(database, Scope("key", key.key.id)) is None
    assert "not a limit" in admin.send(f"/keys/{key.key.id}", 400, do="try", name="laptop", limits="a lot")
    admin.send(f"/keys/{key.key.id}", name="laptop", limits="1 request/hour")
    assert _limits(database, Scope("key", key.key.id)) == "1 request/hour"


def test_a_keys_page_shows_how_all_its_limits_stand(keeper: LiveGateway, database: Database, admin: Visit) -> None:
    """Its own, its project's and the gateway's: used, free, by worker. The list has bars, a week, the last use."""
    key = make_key(database)
    admin.send(f"/keys/{key.key.id}", name="laptop", limits="1000 requests/day, 4 at once")
    admin.send("/limits/project:default", do="save", limits="500 requests/day")
    admin.send("/limits/gateway", do="save", limits="2000 requests/day")

    def holds() -> bool:
        with keeper.client(key.secret) as client:
            return len(client.get("/v1/key").json()["limits"]) == 4

    until(holds)
    _chat(keeper, key.secret, times=2)
    rows_of(database, 2)
    with signed_in(keeper, database, "vera", "viewer") as viewer, holding(keeper, key.secret) as holder:
        for visit in (viewer, holder):
            shown = _plain(visit.page(f"/keys/{key.key.id}"))
            assert "2 of 1,000 used · 998 free now · held by workers:" in shown
            assert "(of the project) 2 of 500 used" in shown
            assert "(of the gateway) 2 of 2,000 used" in shown
            assert "all free in" in shown
            assert ">Try</button>" not in visit.page(f"/keys/{key.key.id}")
    listed = admin.page("/keys")
    assert listed.count('class="bar"') == 2
    assert listed.count('class="spark"') == 1
    assert "2 of 1,000 used" in listed
    assert re.search(r'data-label="Last use"><time', listed)


def test_projects_are_listed_with_their_use(keeper: LiveGateway, database: Database, admin: Visit) -> None:
    """Keys, use in 7 days, limits; a name that needs to be quoted leads to its page all the same."""
    key = make_key(database, project="research/π & more")
    make_key(database, "other")
    _chat(keeper, key.secret)
    rows_of(database, 1)
    shown = admin.page("/projects")
    link = re.search(r'href="/console(/limits/project:research[^"]+)"', shown)
    assert link is not None
    rows = [_plain(row) for row in shown.split("<tr>")]
    assert any(row.startswith("research/π &amp; more 1 – 1 ") for row in rows), rows
    assert any(row.startswith("default 1 – 0 ") for row in rows), rows
    admin.send(link[1], do="save", limits="90 requests/minute")
    assert _limits(database, Scope("project", "research/π & more")) == "90 requests/minute"
    assert "90 requests/minute" in admin.page("/projects")


def test_limits_of_the_gateway_and_of_upstreams_are_set_and_taken_back(database: Database, admin: Visit) -> None:
    """Each change is noted with what was before."""
    name = re.search(r'/console/limits/upstream:([^"]+)"', admin.page("/upstreams"))
    assert name is not None
    scope = Scope("upstream", name[1])
    tried = admin.send(f"/limits/upstream:{name[1]}", do="try", limits="5 requests/minute")
    assert "would have sent 0 of 0 requests" in tried
    assert _limits(database, scope) is None
    admin.send(f"/limits/upstream:{name[1]}", do="save", limits="5 requests/minute")
    assert _limits(database, scope) == "5 requests/minute"
    assert "0 of 5 used" in admin.page("/upstreams")
    assert "is not a limit" in admin.send("/limits/gateway", 400, do="save", limits="very many")
    admin.send(f"/limits/upstream:{name[1]}", do="unset")
    assert _limits(database, scope) is None
    assert "· limits.set: 700 at once" in _plain(admin.send("/limits/gateway", do="save", limits="700 at once"))
    with database.transaction(reads=True) as connection:
        actions = actions_before(connection, None, subject=f"upstream:{name[1]}")
    assert [one["action"] for one in actions] == ["limits.unset", "limits.set"]
    assert actions[0]["before"] == {"limits": "5 requests/minute"}


def test_commands_may_be_pasted_into_a_shell(database: Database, admin: Visit) -> None:
    """Dollars, spaces and quotation marks reach the command as they are."""
    make_key(database, project="Ada's lab")
    page = admin.send("/limits/project:Ada's%20lab", do="save", limits="$10/month")
    commands = re.search(r"<pre>(.*?)</pre>", page, re.DOTALL)
    assert commands is not None
    setting = html.unescape(commands[1]).splitlines()[1]
    script = f"python() {{ printf '%s\\n' \"$@\"; }}; {setting}"
    words = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True).stdout
    assert words.splitlines() == ["main.py", "limits", "set", "project:Ada's lab", "$10/month"]


def test_a_limit_of_dollars_says_that_nothing_has_a_price(database: Database, admin: Visit) -> None:
    """Else nobody would notice that it never applies."""
    unused = admin.send("/limits/gateway", do="save", limits="$10/month")
    assert "never applies" in unused
    assert "all free in" not in unused
    assert "never applies" not in admin.send("/limits/gateway", do="save", limits="10 requests/month")
    price = Price("kimi", now(), 1, 1, 1)
    with database.transaction() as connection:
        set_prices(database, connection, [price])
    assert "never applies" not in admin.send("/limits/gateway", do="save", limits="$10/month")


def test_only_what_exists_has_limits(keeper: LiveGateway, database: Database, admin: Visit) -> None:
    """And only administrators change them."""
    for name in ("upstream:nowhere", "project:nowhere", "galaxy", "key:k_nobody", "gateway:x"):
        admin.page(f"/limits/{name}", 404)
    with signed_in(keeper, database, "vera", "viewer") as viewer:
        assert ">Try</button>" not in viewer.page("/limits/gateway") + viewer.page("/upstreams")
        viewer.send("/limits/gateway", 403, do="save", limits="1 request/day")


def test_a_keys_sessions_are_listed_without_texts_and_deleted(
    keeper: LiveGateway, database: Database, admin: Visit
) -> None:
    """How many messages and characters; who has deleted one is noted, and the gateway has forgotten it."""
    key = make_key(database)
    _chat(keeper, key.secret, session="notes/1")
    shown = admin.page("/sessions", key=key.key.id)
    assert "<code>notes/1</code>" in shown
    assert "Ada" not in shown.replace(">ada<", "")
    assert re.search(r'data-label="Messages">2<', shown)
    admin.send("/sessions/delete", key=key.key.id, session="notes/1")
    assert "The key has no sessions." in admin.page("/sessions", key=key.key.id)
    admin.send("/sessions/delete", 404, key=key.key.id, session="notes/1")
    with keeper.client(key.secret) as client:
        assert client.get("/v1/sessions").json()["data"] == []
    with database.transaction(reads=True) as connection:
        assert actions_before(connection, None, subject=f"key:{key.key.id}")[0]["action"] == "session.delete"
