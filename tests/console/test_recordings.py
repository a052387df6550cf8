"""Recordings on the console: started at a key's page, marked on every page, read by administrators at a request's."""

import html
import json
import re
from typing import Any

import pytest

from app.domain.caller import caller_of_key
from app.keys.administration import NewSecret
from app.recording.administration import remove_recording, start_recording
from app.storage.audit import Actor, actions_before
from app.storage.recordings import recording_of, texts_of_request
from app.storage.request_pages import rows_of_request
from tests.console.running import PAGES, Console, Signed
from tests.live import ALICE_KEY, until

_MARK = re.compile(r'<div class="banner recorded".*?</div>', re.DOTALL)


def _mark(page: str) -> str | None:
    """What a page is marked with, without its tags."""
    found = _MARK.search(page)
    return None if found is None else " ".join(html.unescape(re.sub(r"<[^>]+>", " ", found[0])).split())


def _start(console: Console, key_id: str) -> None:
    with console.database.transaction() as connection:
        start_recording(console.database, connection, Actor("ada", "cli"), key_id, 900)


def _remove(console: Console, key_id: str) -> None:
    with console.database.transaction() as connection:
        remove_recording(console.database, connection, Actor("ada", "cli"), key_id)


def _asked(console: Console, new: NewSecret, words: str, **fields: Any) -> dict[str, Any]:
    """Ask with a key that is recorded; the row of the call, as soon as it and its texts are there."""
    with console.gateway.client(new.secret) as client:
        until(lambda: client.get("/v1/key").json()["recorded_until"])
        body = {"model": "kimi", "messages": [{"role": "user", "content": words}], **fields}
        answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200
    request_id = answer.headers["x-request-id"]
    until(lambda: console.done(texts_of_request, request_id))
    found = until(lambda: console.done(rows_of_request, request_id))
    row: dict[str, Any] = found[0]
    return row


def test_every_page_is_marked_while_a_key_is_recorded(console: Console) -> None:
    """For people with all such keys; for holders of other keys not at all; and without recordings nobody's."""
    new = console.new_key("overheard", project="lab")
    with (
        console.signed_in("admin") as admin,
        console.signed_in("viewer") as viewer,
        console.signed_in("holder") as other,
    ):
        assert _mark(admin.client.get("/console/keys").text) is None
        _start(console, new.key.id)
        _start(console, alice := caller_of_key(ALICE_KEY).id)
        for page in PAGES:
            mark = _mark(admin.client.get(f"/console/{page}").text)
            assert mark is not None, page
            assert re.fullmatch(
                rf"● Being recorded : lab/overheard until [\d-]+ [\d:]+ , {alice} until [\d-]+ [\d:]+", mark
            )
        assert _mark(viewer.client.get("/console/keys").text) == mark
        assert other.key is not None
        for page in ("requests", "playground", "account", f"keys/{other.key.key.id}"):
            assert _mark(other.client.get(f"/console/{page}").text) is None
        _start(console, other.key.key.id)
        for page in ("requests", "playground", "account", f"keys/{other.key.key.id}"):
            own = _mark(other.client.get(f"/console/{page}").text)
            assert own is not None
            assert own.startswith("● This key is being recorded: administrators can read")
            assert "overheard" not in own
        for key_id in (new.key.id, alice, other.key.key.id):
            _remove(console, key_id)
        assert _mark(admin.client.get("/console/keys").text) is None
        assert _mark(other.client.get("/console/requests").text) is None


def test_a_key_s_page_starts_and_stops_its_recording(console: Console) -> None:
    """With a form that shows its commands; what can't be done is said there."""
    new = console.new_key("recorded by a form")
    page = f"/console/keys/{new.key.id}"
    with console.signed_in("admin") as admin:

        def send(status: int = 303, **fields: str) -> str:
            answer = admin.post(f"{page}/recording", **fields)
            assert answer.status_code == status, answer.text
            if status == 303:
                assert answer.headers["location"] == page
            return admin.client.get(page).text if status == 303 else answer.text

        empty = admin.client.get(page).text
        assert f"python main.py recordings start {new.key.id} --for 1h" in empty
        assert "/admin/v1/recordings" in empty
        assert "Stop recording" not in empty
        running = send(do="start", duration="4h")
        assert "Stop recording" in running
        assert admin.person is not None
        assert f"started by {admin.person.name}" in running
        assert console.done(recording_of, new.key.id).is_running
        assert "Stop recording" not in send(do="stop")
        assert not console.done(recording_of, new.key.id).is_running
        send(do="delete")
        assert console.done(recording_of, new.key.id) is None
        assert "has no recording" in html.unescape(send(400, do="delete"))
        for wrong in ({"do": "start", "duration": "48h"}, {"do": "start"}, {"do": "dance"}, {}):
            send(400, **wrong)
        assert admin.post("/console/keys/k_nobody/recording", do="start", duration="1h").status_code == 404
        assert console.done(recording_of, new.key.id) is None


@pytest.mark.parametrize("words", ["<script>window.hit=1</script>", "{{ 7 * 7 }} \"'><svg onload=window.hit=1>"])
def test_only_administrators_read_texts_and_each_look_is_written_down(console: Console, words: str) -> None:
    """A request's page says to all who see it that its texts were recorded, and shows them to nobody unasked."""
    with (
        console.signed_in("holder") as holder,
        console.signed_in("admin") as admin,
        console.signed_in("viewer") as viewer,
    ):
        assert holder.key is not None
        _start(console, holder.key.key.id)
        row = _asked(console, holder.key, words)
        page = f"/console/requests/{row['id']}"
        for somebody in (admin, viewer, holder):
            text = somebody.client.get(page).text
            assert "The texts of this request were recorded." in text
            assert ("Show the texts" in text) is (somebody is admin)
            assert words not in html.unescape(text)
        for somebody in (viewer, holder):
            assert somebody.post(f"{page}/texts").status_code == 403
        assert _reads(console, holder) == []
        shown = admin.post(f"{page}/texts")
        assert shown.status_code == 200
        assert html.unescape(shown.text).count(f"<pre>{words}</pre>") == 1
        assert words not in shown.text
        assert _reads(console, holder) == [(f"person:{admin.login.login.person_id}", row["request_id"])]
        _remove(console, holder.key.key.id)
        assert admin.post(f"{page}/texts").status_code == 404
        assert 'id="texts"' not in admin.client.get(page).text


def _reads(console: Console, holder: Signed) -> list[tuple[str, str]]:
    """Who has read the texts of which requests of a key."""
    assert holder.key is not None
    actions = console.done(actions_before, None, subject=f"key:{holder.key.key.id}")
    return [(one["actor"], one["after"]["request_id"]) for one in actions if one["action"] == "recording.read"]


def test_a_request_without_texts_says_nothing_of_them(console: Console) -> None:
    """And there is nothing to read."""
    new = console.new_key()
    assert console.chat(new.secret).status_code == 200
    (row,) = console.rows(lambda row: row["key_id"] == new.key.id)
    with console.signed_in("admin") as admin:
        page = f"/console/requests/{row['id']}"
        assert "texts" not in admin.client.get(page).text
        for path in (page, "/console/requests/1", "/console/requests/" + "9" * 30):
            assert admin.post(f"{path}/texts").status_code == 404


def test_all_recordings_are_on_a_page(console: Console) -> None:
    """Those that have ended, too; keys of the environment are recorded there; viewers only look."""
    alice = caller_of_key(ALICE_KEY).id
    new = console.new_key("on a page", project="lab")
    page = "/console/recordings"
    with console.signed_in("admin") as admin, console.signed_in("viewer") as viewer:
        assert "Nothing is recorded" in admin.client.get(page).text
        for key_id in (alice, new.key.id):
            assert admin.post(page, do="start", key=key_id, duration="15m").headers["location"] == page
        _asked(console, new, "Hello")
        shown = admin.client.get(page).text
        assert f'<a href="/console/keys/{new.key.id}">lab/on a page</a>' in shown
        assert f'<a href="/console/requests?key={new.key.id}">1</a>' in shown
        assert f"<code>{alice}</code>" in shown
        assert 'value="stop"' in shown
        for way in ("stop", "delete"):
            assert f'value="{way}"' not in viewer.client.get(page).text
        assert admin.post(page, do="stop", key=new.key.id).status_code == 303
        assert "ended" in viewer.client.get(page).text
        assert "MB already" not in admin.post(page, do="delete", key=alice).text
        refused = admin.post(page, do="delete", key=alice)
        assert refused.status_code == 400
        assert "has no recording" in refused.text
        for wrong in ({"do": "start", "key": alice}, {"do": "dance", "key": alice}):
            assert admin.post(page, **wrong).status_code == 400
        assert admin.post(page, do="start", key="k_nobody", duration="1h").status_code == 404
        _start(console, "key-that-was-taken-out-of-the-environment")
        gone = admin.post(page, do="delete", key="key-that-was-taken-out-of-the-environment")
        assert gone.status_code == 303
        _remove(console, new.key.id)


_TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
_CALLED = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
_BEFORE = [
    {"role": "user", "content": "<b>Look!</b>"},
    {"role": "assistant", "content": "", "tool_calls": [_CALLED]},
    {"role": "tool", "content": "A cat.", "tool_call_id": "1"},
]


def test_a_recorded_request_is_opened_in_the_playground(console: Console) -> None:
    """With messages, model, tools and settings, so that the same is asked again; and the look is written down."""
    new = console.new_key("asks again")
    system = {"role": "system", "content": "Be brief."}
    told = [system, *_BEFORE, {"role": "user", "content": "And now?"}]
    with console.signed_in("admin") as admin:
        _start(console, new.key.id)
        row = _asked(console, new, "", messages=told, tools=[_TOOL], temperature=0.2, max_tokens=50, stop=["!"])
        opened = admin.post(f"/console/requests/{row['id']}/playground")
        assert opened.status_code == 200
        fields = {
            name: html.unescape(text)
            for name, text in re.findall(r'<textarea name="(\w+)"[^>]*>(.*?)</textarea>', opened.text, re.DOTALL)
        }
        assert (fields["system"], fields["message"], fields["schema"]) == ("Be brief.", "And now?", "")
        assert json.loads(fields["history"]) == _BEFORE
        assert json.loads(fields["tools"]) == [_TOOL]
        settings = {"temperature": 0.2, "max_completion_tokens": 50, "stop": ["!"]}
        assert json.loads(fields["settings"]) == settings
        assert f'<option value="{new.key.id}" selected>' in opened.text
        actions = console.done(actions_before, None, subject=f"key:{new.key.id}")
        assert [one["action"] for one in actions[:2]] == ["recording.read", "recording.start"]
        answer = admin.post("/console/playground", key=new.key.id, model="kimi", **fields)
        assert answer.status_code == 200
        until(lambda: len(console.rows(lambda one: one["key_id"] == new.key.id)) == 2)
        again = console.rows(lambda one: one["key_id"] == new.key.id)[0]
        assert again["dialect"] == "console"
        found = until(lambda: console.done(texts_of_request, again["request_id"]))
        assert found[0].request == console.done(texts_of_request, row["request_id"])[0].request
        _remove(console, new.key.id)


def test_what_is_too_long_to_be_asked_again_is_told(console: Console) -> None:
    """Its texts are shown, as far as they were kept."""
    new = console.new_key("asks a lot")
    with console.signed_in("admin") as admin:
        _start(console, new.key.id)
        history = [{"role": role, "content": "long " * 150} for role in ("user", "assistant")] * 200
        row = _asked(console, new, "", messages=[*history, {"role": "user", "content": "And now?"}])
        opened = admin.post(f"/console/requests/{row['id']}/playground")
        assert opened.status_code == 400
        assert "can't be asked again" in html.unescape(opened.text)
        assert "user: long long" in opened.text
        _remove(console, new.key.id)
