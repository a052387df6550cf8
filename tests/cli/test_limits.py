"""`main.py limits`, and limits in `main.py keys`, on a database of each kind."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.domain.caller import caller_of_key
from app.domain.granting import Claim, Quota, Scope
from app.domain.limits import period_at
from app.storage.changes import newest_change
from app.storage.clock import now
from app.storage.database import Database
from app.storage.limits import Worker, exchange
from app.storage.requests import UTC, delete_rows_before
from app.storage.rows import RequestRow, id_at
from tests.cli.conftest import Run
from tests.live import ALICE_KEY
from tests.storage.calls import call, write

_DAY = 86_400_000
_ALICE = caller_of_key(ALICE_KEY).id


def _make_key(run: Run, *words: str) -> str:
    """The id of a new key in the project `lab`."""
    made = json.loads(run("keys", "create", "ada", "--project", "lab", "--json", *words))
    return str(made["id"])


def _rows(*ages: float, at: int = 0, key: str = "k_ada", **fields: Any) -> list[RequestRow]:
    """Rows of calls that began so many seconds before a time, or before now."""
    base = at or now()
    values: dict[str, Any] = {"key_id": key, "tokens_in": 10, "tokens_out": 10, "milliseconds": 1000, **fields}
    return [call(at=base - round(age * 1000), count=place % 4096, **values) for place, age in enumerate(ages)]


def _tried(run: Run, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("limits", "try", *words, "--json"))
    return found


def test_limits_are_set_and_shown_and_taken_away(run: Run) -> None:
    """Of a key by name or id, its project, an upstream and the gateway; written as people write them, told as one."""
    key_id = _make_key(run)
    assert run("limits", "list").startswith("There are no limits yet")
    assert "60 requests/minute, 5 at once" in run("limits", "set", "key:ada", "60 Requests per min; 5 at once")
    run("limits", "set", "project:lab", "1M tokens/day")
    run("limits", "set", "upstream:kimi-web", "32 at once")
    run("limits", "set", "gateway", "10_000 requests/hour")
    listed = {row["scope"]: (row["limits"], row["from"]) for row in json.loads(run("limits", "list", "--json"))}
    assert listed == {
        f"key:{key_id}": ("60 requests/minute, 5 at once", "set"),
        "project:lab": ("1M tokens/day", "set"),
        "upstream:kimi-web": ("32 at once", "set"),
        "gateway": ("10k requests/hour", "set"),
    }
    assert "key:ada of project:lab" in run("limits", "list")
    run("limits", "set", f"key:{key_id}", "none")
    assert run("limits", "show", "key:ada") == "key:ada of project:lab: none\n"
    run("limits", "unset", "project:lab")
    run("limits", "set", "gateway", "default")
    assert {row["scope"] for row in json.loads(run("limits", "list", "--json"))} == {
        f"key:{key_id}",
        "upstream:kimi-web",
    }


def test_limits_of_the_settings_are_shown_as_such(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """They hold where none were set; `none` and `default` say which of the two a key has."""
    monkeypatch.setenv("DEFAULT_LIMITS", "100 requests/minute")
    monkeypatch.setenv("GATEWAY_LIMITS", "50 at once")
    monkeypatch.setenv("UPSTREAM_LIMITS", "kimi-web: 32 at once")
    _make_key(run)
    rows = json.loads(run("limits", "list", "--json"))
    assert [(row["scope"], row["limits"], row["from"]) for row in rows] == [
        ("gateway", "50 at once", "GATEWAY_LIMITS"),
        ("upstream:kimi-web", "32 at once", "UPSTREAM_LIMITS"),
        ("key:*", "100 requests/minute", "DEFAULT_LIMITS"),
    ]
    assert run("limits", "show", "key:ada").startswith("key:ada of project:lab, by DEFAULT_LIMITS\n")
    assert "none" in run("limits", "set", "key:ada", "none")
    assert run("limits", "show", "key:ada") == "key:ada of project:lab: none\n"
    assert run("limits", "unset", "key:ada") == "key:ada of project:lab: 100 requests/minute (DEFAULT_LIMITS)\n"


def test_every_change_is_told_to_all_workers(run: Run, database: Database) -> None:
    """Setting and unsetting each note a change, which workers follow within two seconds."""

    def newest() -> int:
        with database.transaction(reads=True) as connection:
            return newest_change(connection)

    seen = [newest()]
    for words in (("set", "gateway", "5 at once"), ("unset", "gateway")):
        run("limits", *words)
        seen.append(newest())
    _make_key(run, "--limits", "5 at once")
    seen.append(newest())
    run("keys", "update", "ada", "--limits", "none")
    seen.append(newest())
    assert sorted(set(seen)) == seen


def test_a_key_is_made_and_changed_with_limits(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`keys` shows them, and where they come from if they are not its own; other fields stay."""
    monkeypatch.setenv("DEFAULT_LIMITS", "7 at once")
    _make_key(run, "--limits", "60 requests/minute", "--note", "hers")

    def shown() -> tuple[str, str]:
        key = json.loads(run("keys", "show", "ada", "--json"))
        (listed,) = json.loads(run("keys", "list", "--json"))
        assert listed == key
        return key["limits"], key["note"]

    assert shown() == ("60 requests/minute", "hers")
    assert "limits      60 requests/minute\n" in run("keys", "show", "ada")
    run("keys", "update", "ada", "--limits", "none")
    assert shown() == ("none", "hers")
    run("keys", "update", "ada", "--limits", "default", "--note", "his")
    assert shown() == ("7 at once (DEFAULT_LIMITS)", "his")
    run("keys", "update", "ada", "--limits", "5 at once")
    run("keys", "rotate", "ada")
    assert shown() == ("5 at once", "his")
    assert "Nothing to change" in run("keys", "update", "ada", fails=True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("set", "key:ada", "sixty a minute"), "'sixty a minute' is not a limit; write for example"),
        (("set", "key:ada", "60 requests"), "needs a time"),
        (("set", "key:ada", "$5/minute"), "dollars are counted by day, week, month"),
        (("set", "key:ada", "0 requests/minute"), "at least 1"),
        (("set", "key:ada", "5 at once, 6 at once"), "two limits of at once"),
        (("set", "key:ada", ""), "nothing was given"),
        (("try", "key:ada", "default"), "'default' is not a limit"),
        (("try", "key:ada", "5 at once", "--last", "lately"), "not a span of time"),
        (("set", "key:bob", "5 at once"), "There is no key 'bob'"),
        (("show", "key:ada", "--project", "other"), "There is no key 'ada'"),
        (("show", "gateway", "--project", "lab"), "--project is for the name of a key"),
        (("show", "project:lob"), "There is no project 'lob'; there are: environment, lab."),
        (("show", "upstream:kimi"), "There is no upstream 'kimi'; there are: kimi-web."),
        (("show", "key-0123456789ab"), f"'key-0123456789ab' in API_MASTER_KEY; its keys are {_ALICE}."),
        (("show", "ada"), "'ada' is nothing that can have limits; write key:NAME"),
        (("show", "key:"), "'key:' lacks a name"),
        (("show", "team:lab"), "'team:lab' is nothing that can have limits; write key:NAME"),
    ],
)
def test_wrong_words_get_a_clear_message(run: Run, words: tuple[str, ...], told: str) -> None:
    """And change nothing."""
    _make_key(run)
    assert told in run("limits", *words, fails=True)
    assert json.loads(run("limits", "list", "--json")) == []


def test_a_key_with_wrong_limits_is_not_made(run: Run) -> None:
    """The text is looked at first."""
    assert "is not a limit" in run("keys", "create", "ada", "--limits", "lots", fails=True)
    assert json.loads(run("keys", "list", "--json")) == []


def test_keys_of_the_environment_have_limits_by_their_ids(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With or without `key:`; also after they were taken out of API_MASTER_KEY. So has their project."""
    run("limits", "set", _ALICE, "5 at once")
    assert f"key:{_ALICE}\n" in run("limits", "show", f"key:{_ALICE}")
    run("limits", "set", "project:environment", "50 at once")
    monkeypatch.setenv("API_MASTER_KEY", "sk-other-b81d03e65fa9")
    assert run("limits", "unset", _ALICE) == f"key:{_ALICE}: none\n"
    assert "There is no key" in run("limits", "show", _ALICE, fails=True)


def test_dollars_without_any_price_are_warned_of(run: Run, tmp_path: Path) -> None:
    """They are set all the same; once there are prices, nothing is said."""
    assert "No prices are known" in run("limits", "set", "gateway", "$10/month")
    assert "No prices are known" in run("keys", "create", "ada", "--limits", "$0.50/day")
    prices = tmp_path / "prices.csv"
    prices.write_text("model,since,input,output\nkimi,2020-01-01,1,2\n")
    run("prices", "import", str(prices))
    assert run("limits", "set", "gateway", "$10/month") == "gateway: $10/month\n"


def test_show_says_how_much_is_used_and_which_worker_holds_how_much(run: Run, database: Database) -> None:
    """Of each kind of limit; what is used, free and held is all there is."""
    key_id = _make_key(run, "--limits", "60 requests/hour, 5 at once, 1000 tokens/day")
    day = period_at("day", now(), UTC)
    quota = Quota(Scope("key", key_id), "tokens", "", day.start, day.end)
    write(database, _rows(0, key=key_id, tokens_in=90, tokens_out=10))
    claims = [
        Claim(f"key:{key_id}|requests/hour", "bucket", 60, held=0, need=1, want=20, seconds=3600),
        Claim(f"key:{key_id}|at once", "permits", 5, held=0, need=2, want=2),
        Claim(f"key:{key_id}|tokens/day|{day.name}", "quota", 1000, held=0, need=50, want=50, quota=quota),
    ]
    worker = Worker("w_1", "vm-1", "1.0", now())
    with database.transaction() as connection:
        exchange(database, connection, worker, 1, claims)
        # It has used all of what it had but five.
        used = Claim(f"key:{key_id}|requests/hour", "bucket", 60, held=5, seconds=3600)
        exchange(database, connection, worker, 2, [used])
    shown = json.loads(run("limits", "show", "key:ada", "--json"))
    assert [(one["limit"], one["used"], one["free"]) for one in shown["limits"]] == [
        ("60 requests/hour", 15, 40),
        ("5 at once", 2, 3),
        ("1000 tokens/day", 100, 850),
    ]
    assert [one["workers"] for one in shown["limits"]] == [
        [{"worker": "w_1", "machine": "vm-1", "held": held}] for held in (5, 2, 50)
    ]
    bucket, permits, tokens = (one["resets_at"] for one in shown["limits"])
    assert (permits, tokens) == (None, day.end // 1000)
    assert abs(bucket - now() / 1000 - 15 * 60) < 60
    text = run("limits", "show", "key:ada")
    assert "HELD BY WORKERS" in text
    assert "5 w_1 on vm-1" in text
    assert "in 15 min" in text


def test_a_dry_run_says_what_would_have_been_refused(
    run: Run, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all models and keys of a scope, in its time only, more than one read's worth; nothing is changed by it."""
    monkeypatch.setenv("LIMIT_WAIT", "0")
    # Two bursts, ten minutes apart, and one long before.
    ages = [*(3600 + place / 1000 for place in range(1200)), *(3000.0,) * 30, 5 * 86_400.0]
    write(database, sorted(_rows(*ages, key=_make_key(run)), key=lambda row: row.at))
    write(database, _rows(2000.0, 2000.0, key="k_bob", project="other", provider="moonshot"))
    write(database, _rows(3600.0, outcome="refused", error="rate_limit_exceeded", status=429))
    tried = _tried(run, "project:lab", "40 requests/minute, 1000 at once", "--last", "2d")
    assert (tried["requests"], tried["refused"], tried["refused_then"]) == (1230, 1160, 1)
    assert tried["by_limit"] == {"40 requests/minute": 1160, "1000 at once": 0}
    assert sum(tried["by_time"].values()) == 1160
    assert _tried(run, "key:ada", "40 requests/minute", "--last", "2d")["refused"] == 1160
    assert _tried(run, "upstream:kimi-web", "40 requests/minute")["requests"] == 1231
    whole = _tried(run, "gateway", "10k requests/minute")
    assert (whole["requests"], whole["refused"], whole["deleted_until"]) == (1233, 0, None)
    text = run("limits", "try", "key:ada", "40 requests/minute", "--last", "2d")
    assert "would have refused 1,160 of 1,230 requests of the last 2d, most on " in text
    assert "would have refused none of 1,230" in run("limits", "try", "key:ada", "90k requests/minute", "--last", "2d")
    monkeypatch.setenv("LIMIT_WAIT", "1")  # what refills meanwhile lets one more in
    assert _tried(run, "key:ada", "40 requests/minute", "--last", "2d")["refused"] == 1159
    assert json.loads(run("limits", "list", "--json")) == []


def test_a_dry_run_of_a_quota_knows_what_was_used_before_its_time(run: Run, database: Database) -> None:
    """In the same period, by whole days from the ledger's sums, whether or not those rows are still there."""
    ages = (20 * 86_400.0, 3 * 3600.0, 60.0, 59.0)
    write(database, _rows(*ages))
    with database.transaction() as connection:
        delete_rows_before(database, connection, id_at(now() - 10 * _DAY), 100)
    tried = _tried(run, "gateway", "3 requests in total", "--last", "1h")
    assert (tried["requests"], tried["refused"]) == (2, 1)
    assert _tried(run, "gateway", "4 requests in total", "--last", "1h")["refused"] == 0


def test_a_dry_run_says_where_rows_have_been_deleted(run: Run, database: Database) -> None:
    """Not where there were none."""
    old = now() - 3 * _DAY
    write(database, [*_rows(0, at=old), *_rows(60.0)])
    assert _tried(run, "gateway", "5 at once")["deleted_until"] is None
    with database.transaction() as connection:
        delete_rows_before(database, connection, id_at(now() - _DAY), 100)
    assert "have been deleted (REQUESTS_KEPT_DAYS" in run("limits", "try", "gateway", "5 at once")
    assert "deleted" not in run("limits", "try", "gateway", "5 at once", "--last", "1d")
    with database.transaction() as connection:
        delete_rows_before(database, connection, id_at(now() + _DAY), 100)
    assert _tried(run, "gateway", "5 at once")["deleted_until"] is not None


def test_without_a_database_there_is_nothing_to_set(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting is named."""
    monkeypatch.setenv("DATABASE_URL", "none")
    assert "DATABASE_URL: it is none" in run("limits", "list", fails=True)
