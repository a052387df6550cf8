"""`main.py requests` and `main.py usage`: whose calls, and in which form."""

import json
from collections.abc import Callable, Iterator

import pytest

from app.domain.caller import caller_of_key
from app.storage.clock import now
from app.storage.database import Database
from tests.cli.conftest import Run
from tests.live import ALICE_KEY
from tests.storage.calls import call, write

_ALICE = caller_of_key(ALICE_KEY).id


@pytest.fixture
def known(run: Run, database: Database) -> tuple[str, str]:
    """The ids of two keys of the projects `lab` and `shop`, with a call each; and one of a key of API_MASTER_KEY."""
    ids = [json.loads(run("keys", "create", "ada", "--project", name, "--json"))["id"] for name in ("lab", "shop")]
    owners = [(ids[0], "lab"), (ids[1], "shop"), (_ALICE, "environment")]
    rows = [call(at=now() - 60_000, count=place, key_id=key, project=name) for place, (key, name) in enumerate(owners)]
    write(database, rows)
    return ids[0], ids[1]


@pytest.mark.parametrize(
    ("words", "owners"),
    [
        ("", ["lab", "shop", "environment"]),
        ("--project lab", ["lab"]),
        ("--project environment", ["environment"]),
        ("--key ada --project shop", ["shop"]),
        (f"--key {_ALICE}", ["environment"]),
    ],
)
def test_calls_of_a_key_or_of_a_project_are_shown(
    run: Run, known: tuple[str, str], words: str, owners: list[str]
) -> None:
    """A project that is named is never passed over; keys of API_MASTER_KEY are found by their ids."""
    assert known
    assert [row["project"] for row in json.loads(run("requests", "--json", *words.split()))] == owners
    used = json.loads(run("usage", "--by", "project", "--json", *words.split()))
    assert sorted(row["project"] for row in used) == sorted(owners)


@pytest.mark.parametrize("command", ["requests", "usage"])
def test_a_project_that_is_not_there_is_named(run: Run, command: str) -> None:
    """Instead of an empty list, which would mean that it has used nothing."""
    assert run(command, "--project", "lib", fails=True).startswith("There is no project 'lib'; there are: environment")


def test_nothing_is_said_in_a_sentence_to_people_and_as_an_empty_list_to_machines(run: Run) -> None:
    """A table without rows looks like a fault."""
    assert run("requests") == "There are no such requests.\n"
    assert run("usage", "--last", "24h") == "Nothing was used in the last 24h.\n"
    assert run("prices", "list").startswith("There are no prices yet")
    for words in ("requests", "usage", "prices list", "keys list", "people list", "limits list", "recordings list"):
        assert json.loads(run(*words.split(), "--json")) == []


@pytest.mark.parametrize("words", ["requests --limit -1", "requests --limit many", "usage --csv --json"])
def test_what_makes_no_sense_is_refused(run: Run, words: str) -> None:
    """Rather than taken for something else."""
    assert "error: argument" in run(*words.split(), fails=True)


def test_no_time_is_no_span(run: Run) -> None:
    """Instead of the sums of the hour so far."""
    assert "nothing lies in no time" in run("usage", "--last", "0d", fails=True)


def _coming(database: Database, *batches: list[dict[str, object]]) -> Callable[[float], None]:
    """A pause in which the next calls come; in the last one, somebody presses Ctrl+C."""
    rest: Iterator[list[dict[str, object]]] = iter(batches)

    def pause(_: float) -> None:
        fields = next(rest, None)
        if fields is None:
            raise KeyboardInterrupt
        write(database, [call(count=int(now()) % 4096, **one) for one in fields], journal=2)

    return pause


def test_calls_are_shown_as_they_end(run: Run, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long call is not missed because shorter ones have begun after it; with `--json`, each is a line of JSON."""
    time = now()
    write(database, [call(at=time - 5000, request_id="first", model="\x1b[31mred")])
    later = [{"at": time - 1000, "request_id": "short", "milliseconds": 500}]
    longer = [{"at": time - 9000, "request_id": "long", "milliseconds": 9000, "outcome": "failed"}]
    monkeypatch.setattr("app.cli.requests.time.sleep", _coming(database, later, longer))
    shown = run("requests", "--tail", "--json", fails=True)
    assert [json.loads(line)["request_id"] for line in shown.splitlines()] == ["first", "short", "long"]
    monkeypatch.setattr("app.cli.requests.time.sleep", _coming(database, [{"at": time, "request_id": "another"}]))
    lines = run("requests", "--tail", "--trouble", fails=True).splitlines()
    assert [line.rpartition(" s  ")[2] for line in lines] == ["failed"]
    assert "\x1b" not in run("requests")


@pytest.mark.parametrize("name", ["=1+1", "+1", "@SUM(A1)", "-1"])
def test_a_spreadsheet_runs_no_name_as_a_formula(run: Run, database: Database, name: str) -> None:
    """Names of keys and projects may be anybody's; in JSON they are as they are."""
    key = json.loads(run("keys", "create", "ada", f"--project={name}", "--json"))["id"]
    write(database, [call(at=now() - 60_000, key_id=key, project=name)])
    for by, told in (("project", f"'{name},1,"), ("key", f"'{name}/ada,1,")):
        assert run("usage", "--by", by, "--csv").splitlines()[1].startswith(told)
    assert json.loads(run("usage", "--by", "project", "--json"))[0]["project"] == name
