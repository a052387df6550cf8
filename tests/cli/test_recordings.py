"""`main.py recordings`: started, listed, read and deleted at a terminal."""

import json

import pytest

from app.domain.caller import caller_of_key
from app.storage.audit import actions_before
from app.storage.clock import now
from app.storage.database import Connection, Database
from app.storage.recordings import RecordedText, recording_of, write_texts
from tests.cli.conftest import Run
from tests.live import ALICE_KEY

_ALICE = caller_of_key(ALICE_KEY).id


def _text(connection: Connection, key_id: str) -> RecordedText:
    recording = recording_of(connection, key_id)
    assert recording is not None
    return RecordedText(
        id=1,
        at=now(),
        ended_at=now(),
        key_id=key_id,
        request_id="req_1",
        asked="user: clear \x1b[2J the screen\n\tnow",
        sent=None,
        answered="No.",
        cut=("asked",),
        recording=recording.started_at,
    )


def test_a_key_is_recorded_read_and_forgotten(run: Run, database: Database) -> None:
    """By its name; each step is written down under the system's user; a terminal gets no commands out of a text."""
    key_id = json.loads(run("keys", "create", "ada", "--project", "lab", "--json"))["id"]
    assert run("recordings", "list").startswith("Nothing is recorded; start with")
    assert f"lab/ada ({key_id}) is recorded until" in run("recordings", "start", "ada", "--for", "4h")
    with database.transaction() as connection:
        assert write_texts(database, connection, [_text(connection, key_id)]) == 0
    (listed,) = json.loads(run("recordings", "list", "--json"))
    assert (listed["key_id"], listed["running"], listed["texts"]) == (key_id, True, 1)
    assert listed["until"] - listed["started_at"] == 4 * 3_600_000
    assert "lab/ada  running" in run("recordings", "list")
    shown = run("recordings", "show", "req_1")
    assert shown.splitlines()[1:] == [
        "--- asked (cut)",
        "user: clear �[2J the screen",
        "\tnow",
        "--- answered",
        "No.",
    ]
    (as_json,) = json.loads(run("recordings", "show", "req_1", "--json"))
    assert as_json["asked"] == "user: clear \x1b[2J the screen\n\tnow"
    assert "was recorded until" in run("recordings", "stop", "ada", "--project", "lab")
    assert "lab/ada  ended" in run("recordings", "list")
    assert run("recordings", "delete", key_id) == "The texts of 1 call were deleted.\n"
    assert "No texts" in run("recordings", "show", "req_1", fails=True)
    with database.transaction(reads=True) as connection:
        actions = actions_before(connection, None, subject=f"key:{key_id}")
    assert [(one["action"], one["via"]) for one in actions[::-1]] == [
        ("key.create", "cli"),
        ("recording.start", "cli"),
        *[("recording.read", "cli")] * 2,
        ("recording.stop", "cli"),
        ("recording.delete", "cli"),
    ]


def test_a_key_of_the_environment_goes_by_its_id(run: Run) -> None:
    """An hour is the default."""
    started = json.loads(run("recordings", "start", _ALICE, "--json"))
    assert (started["key_id"], started["key_name"]) == (_ALICE, _ALICE)
    assert started["until"] - started["started_at"] == 3_600_000
    assert json.loads(run("recordings", "delete", _ALICE, "--json")) == {"key_id": _ALICE, "texts": 0}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("start", "nobody"), "There is no key 'nobody'"),
        (("start", "key-000000000000"), "There is no key 'key-000000000000' in API_MASTER_KEY"),
        (("start", _ALICE, "--for", "25h"), "A recording must last 15m to 24h."),
        (("start", _ALICE, "--for", "a while"), "is not a span of time"),
        (("stop", _ALICE), "has no recording"),
        (("delete", _ALICE), "has no recording"),
        (("show", "req_none"), "No texts of such a request"),
    ],
)
def test_what_cannot_be_done_is_said(run: Run, words: tuple[str, ...], told: str) -> None:
    """In one line, and nothing is recorded."""
    assert told in run("recordings", *words, fails=True)
    assert json.loads(run("recordings", "list", "--json")) == []


def test_a_revoked_key_is_not_recorded(run: Run) -> None:
    """It never opens again."""
    key_id = json.loads(run("keys", "create", "ada", "--json"))["id"]
    run("keys", "revoke", "ada")
    assert "is revoked" in run("recordings", "start", key_id, fails=True)
