"""The playground: calls under a key's own limits, what the upstream got of them, and answers that stay harmless."""

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from app.domain.caller import caller_of_key
from app.domain.granting import Scope
from app.keys.administration import pause_key
from app.storage.database import Database
from app.storage.limits import set_limits
from simulator.live import LiveSimulator
from tests.console import staff
from tests.console.browser import Tab, tab
from tests.console.staff import Visit, holding, make_key, signed_in
from tests.live import ALICE_KEY, WAIT_SECONDS, LiveGateway, until
from tests.storage.calls import rows_of

database = staff.database
keeper = staff.keeper
admin = staff.admin

_CHAT = "0123456789abcdef"


def _stream(visit: Visit, **fields: str) -> tuple[Any, list[dict[str, Any]]]:
    """The response and the events of a streamed answer."""
    answer = visit.http.post("/console/playground/stream", data=fields, headers={"x-csrf-token": visit.token})
    blocks = answer.text.split("\n\n") if answer.headers["content-type"].startswith("text/event-stream") else []
    return answer, [json.loads(block.removeprefix("data: ")) for block in blocks if block.startswith("data: ")]


def _plain(tree: Any) -> str:
    if isinstance(tree, str):
        return tree
    return "".join(_plain(one) for one in (tree if isinstance(tree, list) else tree.get("children", [])))


def test_a_call_is_the_keys_own(database: Database, admin: Visit) -> None:
    """It is streamed with the headers of the API, the prompt that was sent, and the API's own events; and it is in the
    ledger under that key, with the dialect `console`."""
    key = make_key(database)
    answer, events = _stream(admin, key=key.key.id, model="kimi", message="Hello, who are you?", system="Be brief.")
    assert answer.status_code == 200
    assert answer.headers["x-session-action"] == "stateless"
    size, limit = answer.headers["x-prompt-chars"].split("/")
    sent = events[0]["sent"]
    assert (sent["size"], sent["limit"]) == (int(size), int(limit)) == (len(sent["text"]), 1000)
    assert sent["text"] == "[System]: Be brief.\n[User]: Hello, who are you?"
    assert [(part["role"], part["state"]) for part in sent["parts"]] == [("system", "whole"), ("user", "whole")]
    text = "".join(event.get("text", "") for event in events)
    assert events[-1]["kind"] == "ending"
    assert "".join(_plain(events[-1]["tree"]).split()) == "".join(text.split())
    raw = "".join(event["raw"] for event in events)
    assert raw.startswith("data: {")
    assert raw.endswith("data: [DONE]\n\n")
    (row,) = rows_of(database, 1)
    assert (row["key_id"], row["dialect"], row["streamed"]) == (key.key.id, "console", 1)


def test_a_key_that_doesnt_open_is_refused(database: Database, admin: Visit) -> None:
    """So are keys that may not chat, keys that don't exist, and what isn't JSON; each by an error with its status."""
    paused, watching = make_key(database, "paused"), make_key(database, "watching", scopes=["metrics"])
    with database.transaction() as connection:
        pause_key(database, connection, paused.key)
    good = make_key(database, "good")
    for fields, message in (
        ({"key": paused.key.id}, "This key is paused."),
        ({"key": watching.key.id}, "'chat'"),
        ({"key": "k_nobody"}, "Choose a key."),
        ({"key": good.key.id, "tools": "[{"}, "tools: this is not JSON"),
        ({"key": good.key.id, "schema": "[" * 5000}, "schema: this is not JSON"),
        ({"key": good.key.id, "tools": '{"a": 1}'}, "tools"),
        ({"key": good.key.id, "settings": "[]"}, "settings: write an object"),
        ({"key": good.key.id, "history": "{}"}, "history: write a list"),
        # Past the key's models and limits.
        ({"key": good.key.id, "settings": '{"models": ["another"]}'}, "models is not passed on"),
        ({"key": good.key.id, "model": "gpt-nothing"}, "does not exist"),
    ):
        answer, events = _stream(admin, **{"model": "kimi", "message": "Hello", **fields})
        assert 400 <= answer.status_code < 500, fields
        assert message in answer.json()["error"]["message"]
        assert events == []


def test_a_call_needs_the_token_and_a_role(keeper: LiveGateway, database: Database, admin: Visit) -> None:
    """Other sites can't send one, and viewers may not spend anything."""
    key = make_key(database)
    fields = {"key": key.key.id, "model": "kimi", "message": "Hello"}
    assert admin.http.post("/console/playground/stream", data=fields).status_code == 403
    foreign = {"x-csrf-token": admin.token, "sec-fetch-site": "cross-site"}
    assert admin.http.post("/console/playground/stream", data=fields, headers=foreign).status_code == 403
    with signed_in(keeper, database, "vera", "viewer") as viewer:
        viewer.page("/playground", 403)
        assert _stream(viewer, **fields)[0].status_code == 403


def test_a_holder_uses_no_key_but_their_own(keeper: LiveGateway, database: Database) -> None:
    """Whatever key the form names."""
    own, other = make_key(database, "own", models=["kimi"]), make_key(database, "other")
    with holding(keeper, own.secret) as holder:
        shown = holder.page("/playground")
        assert other.key.id not in shown
        assert set(re.findall(r"<option>([^<]+)</option>", shown)) == {"kimi"}
        _, events = _stream(holder, key=other.key.id, model="kimi", message="Hello")
        assert events[-1]["kind"] == "ending"
        assert _rows_key(database) == own.key.id


def test_a_key_of_the_environment_can_be_chosen(keeper: LiveGateway, database: Database, admin: Visit) -> None:
    """With its limits, by administrators: it is listed by its id, and never shown. A holder can't use it."""
    alice = caller_of_key(ALICE_KEY)
    with database.transaction() as connection:
        set_limits(database, connection, Scope("key", alice.id), "1 request/hour")
    shown = admin.page("/playground")
    assert f'<option value="{alice.id}">environment/{alice.name}</option>' in shown
    assert ALICE_KEY not in shown
    with keeper.client(ALICE_KEY) as client:
        until(lambda: "1 request/hour" in client.get("/v1/key").text)
    fields = {"key": alice.id, "model": "kimi", "message": "Hello"}
    answer, events = _stream(admin, **fields)
    assert (answer.headers["x-ratelimit-remaining-requests"], events[-1]["kind"]) == ("0", "ending")
    assert _stream(admin, **fields)[0].status_code == 429
    assert rows_of(database, 2)[0]["key_id"] == alice.id
    own = make_key(database, "own")
    with holding(keeper, own.secret) as holder:
        assert alice.id not in holder.page("/playground")
        assert _stream(holder, **fields)[0].status_code == 200
    assert rows_of(database, 3)[2]["key_id"] == own.key.id


def _rows_key(database: Database) -> str:
    key: str = rows_of(database, 1)[0]["key_id"]
    return key


def test_a_keys_limits_hold(database: Database, admin: Visit, keeper: LiveGateway) -> None:
    """What they leave is in the headers, and what they refuse is answered as the API would."""
    key = make_key(database)
    with database.transaction() as connection:
        set_limits(database, connection, Scope("key", key.key.id), "1 request/hour")
    with keeper.client(key.secret) as client:
        until(lambda: client.get("/v1/key").json()["limits"])
    first, _ = _stream(admin, key=key.key.id, model="kimi", message="Hello")
    assert first.headers["x-ratelimit-remaining-requests"] == "0"
    second, _ = _stream(admin, key=key.key.id, model="kimi", message="Hello again")
    assert second.status_code == 429
    assert second.headers["x-ratelimit-limit-requests"] == "1"
    page = admin.send("/playground", 429, key=key.key.id, model="kimi", message="Hello again")
    assert "HTTP 429" in page
    assert "x-ratelimit-limit-requests" in page


def test_a_session_goes_on_and_what_no_longer_fits_is_marked(database: Database, admin: Visit) -> None:
    """The conversation is told as the upstream got it: whole messages, cut ones, dropped ones."""
    key = make_key(database)
    fields = {"key": key.key.id, "model": "kimi", "session": "1", "chat": _CHAT}
    _stream(admin, message="My name is Ada.", **fields)
    answer, events = _stream(admin, message="What is my name?", **fields)
    assert answer.headers["x-session-action"] == "continued"
    assert [part["role"] for part in events[0]["sent"]["parts"]] == ["user", "assistant", "user"]
    assert "Ada" in _plain(events[-1]["tree"])
    for number in range(3):
        _stream(admin, message=f"Remember number {number}: " + f"{number}word " * 100, **fields)
    answer, events = _stream(admin, message="And now?", **fields)
    states = [part["state"] for part in events[0]["sent"]["parts"]]
    assert states.count("dropped") >= 1
    assert states[-1] == "whole"
    assert int(answer.headers["x-context-dropped"]) == events[0]["sent"]["dropped"] > 0


def test_nobody_gets_at_what_others_have_said_with_a_key(keeper: LiveGateway, database: Database, admin: Visit) -> None:
    """Sessions of the playground are their visitor's own, whatever the form names."""
    key = make_key(database)
    fields = {"key": key.key.id, "model": "kimi", "session": "1"}
    _stream(admin, message="The password is swordfish.", chat=_CHAT, **fields)
    with keeper.client(key.secret) as client:
        body = {"messages": [{"role": "user", "content": "The password is swordfish."}]}
        client.post("/v1/chat/completions", json=body, headers={"x-session-id": "secret-plans"})
        (known,) = [one["id"] for one in client.get("/v1/sessions").json()["data"] if "playground" in one["id"]]
    actions = []
    with signed_in(keeper, database, "eve") as eve:
        for chat in (_CHAT, known, known.removeprefix("playground-"), "secret-plans"):
            answer, _ = _stream(eve, message="What is the password?", chat=chat, **fields)
            assert "swordfish" not in answer.text
            actions.append(answer.headers["x-session-action"])
    assert actions == ["new", "stateless", "stateless", "stateless"]


def test_an_answer_without_scripts_is_a_page(database: Database, admin: Visit) -> None:
    """Two models, what each got, the headers, the same request as commands."""
    key = make_key(database)
    page = admin.send("/playground", key=key.key.id, model="kimi", model2="kimi", message="It's <b>bold</b> & 'so'")
    assert page.count('class="result"') == 2
    assert "hidden data-whole" not in page
    assert page.count("<dt>x-prompt-chars</dt>") == 2
    assert "It&#39;s &lt;b&gt;bold" in page
    assert "<b>bold" not in page
    assert "'\\''so" in page.replace("&#39;", "'")
    assert all(row["dialect"] == "console" for row in rows_of(database, 2))


def test_tools_are_offered_and_called(site: LiveSimulator, database: Database, admin: Visit) -> None:
    """The calls of the answer are told whole."""
    key = make_key(database)
    tools = '[{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]'
    message = 'Call get_weather with {"city": "Paris"}'
    _, events = _stream(admin, key=key.key.id, model="kimi", message=message, tools=tools)
    assert [call["name"] for call in events[-1]["calls"]] == ["get_weather"]
    assert json.loads(events[-1]["calls"][0]["arguments"]) == {"city": "Paris"}


def test_an_answer_that_nobody_waits_for_is_given_up(site: LiveSimulator, database: Database, admin: Visit) -> None:
    """Streamed or whole: the call ends with the connection, and the ledger says so."""
    key = make_key(database)
    site.site.update(failure="hang")
    fields = {"key": key.key.id, "model": "kimi", "message": "Hello"}
    for path in ("/console/playground/stream", "/console/playground"):
        asked = admin.http.build_request("POST", path, data=fields, headers={"x-csrf-token": admin.token})
        head = b"".join(b"%s: %s\r\n" % header for header in asked.headers.raw)
        with socket.create_connection((asked.url.host, asked.url.port), timeout=WAIT_SECONDS) as connection:
            connection.sendall(b"POST %s HTTP/1.1\r\n%s\r\n%s" % (path.encode(), head, asked.read()))
            assert site.site.wait_for(lambda counters: counters.in_flight == 1)
        assert site.site.wait_for(lambda counters: counters.in_flight == 0)
    assert [row["outcome"] for row in rows_of(database, 2)] == ["abandoned", "abandoned"]


@pytest.fixture
def opened(browser: Browser, keeper: LiveGateway, admin: Visit) -> Iterator[Tab]:
    """A tab of the administrator's."""
    home = f"{keeper.base_url}/console"
    with tab(browser, home) as opened:
        opened.page.context.add_cookies(
            [{"name": one.name, "value": one.value or "", "url": home} for one in admin.http.cookies.jar]
        )
        yield opened


def test_an_answer_is_typed_out_and_then_rendered(site: LiveSimulator, database: Database, opened: Tab) -> None:
    """Markdown becomes elements; HTML and links to scripts stay text. The session goes on. Axe finds nothing."""
    key = make_key(database)
    site.site.update(reply=REPLY)
    page = opened.page
    opened.go(f"playground?key={key.key.id}")
    page.select_option("[name=model2]", index=1)
    page.fill("[name=message]", "Say it in **Markdown**")
    page.click("form#playground > button:not([type])")
    for number in (1, 2):
        column = page.locator(f"#result-{number}")
        expect(column.locator("[data-part=state]")).to_contain_text("complete", timeout=WAIT_SECONDS * 1000)
        answer = column.locator("[data-part=answer]")
        expect(answer.locator("h3")).to_have_text("A heading")
        expect(answer.locator("strong")).to_have_text("bold")
        expect(answer.locator("td").first).to_have_text("1")
        expect(answer).to_contain_text("<img src=x onerror=alert(1)>")
        assert answer.locator("a").evaluate_all("all => all.map(one => one.href)") == ["https://example.org/"]
        assert answer.locator("img, script").count() == 0
        expect(column.locator("[data-part=size]")).to_contain_text("22/1000")
        expect(column.locator("[data-part=headers]")).to_contain_text("x-provider")
        expect(column.locator("[data-part=raw]")).to_contain_text("[DONE]")
    expect(page.locator("[data-snippet=curl]")).to_contain_text("Say it in **Markdown**")
    assert opened.axe() == []
    page.select_option("[name=model2]", "")
    page.fill("[name=message]", "And again. " * 20)
    page.click("form#playground > button:not([type])")
    expect(page.locator("#result-1 [data-part=told] li")).to_have_count(3)
    expect(page.locator("#result-1 [data-part=headers]")).to_contain_text("continued")
    expect(page.locator("#result-2")).to_be_hidden()
    assert opened.overflow() <= 0


def test_pages_of_a_key_have_nothing_that_axe_finds(database: Database, admin: Visit, opened: Tab) -> None:
    """Nor are they wider than a telephone. Those that are about nothing particular are in test_browser.py."""
    key = make_key(database)
    admin.send(f"/keys/{key.key.id}", name="laptop", limits="10 requests/minute, 100k tokens/day")
    opened.page.set_viewport_size({"width": 360, "height": 740})
    for path in ("keys", f"keys/{key.key.id}", "limits/project:default", f"sessions?key={key.key.id}"):
        opened.go(path)
        assert opened.axe() == []
        assert opened.overflow() <= 0, path


REPLY = """# A heading

Some **bold** text, <img src=x onerror=alert(1)>, [here](https://example.org/), [there](javascript:alert(1)).

| a | b |
|---|---|
| 1 | 2 |

![a picture](data:image/png;base64,xx)
"""
