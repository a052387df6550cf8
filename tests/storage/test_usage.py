"""Sums say the same as the rows, by anything, and are kept as long as is said."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from app.ledger.journal import Journal
from app.ledger.writer import LedgerWriter
from app.storage.clock import now
from app.storage.database import Database
from app.storage.keys import StoredKey, StoredSecret, add_key
from app.storage.rows import RequestRow
from app.storage.tables import DURATIONS
from app.storage.usage import DAY, HOUR, KEY_HOURS_KEPT, NoSuchSums, UsageFilter, percentile, usage_by, usage_of
from tests import databases
from tests.storage.calls import call, some_calls, write

shared_postgres = databases.shared_postgres
database_url = databases.database_url
empty_database = databases.empty_database
database = databases.database

_OF: dict[str, Callable[[RequestRow], Any]] = {
    "key": lambda row: row.key_id,
    "project": lambda row: "environment" if row.key_id == "k_eve" else "lab",
    "model": lambda row: row.served if row.listed else "unlisted",
    "provider": lambda row: row.provider,
    "outcome": lambda row: row.outcome,
    "hour": lambda row: row.at - row.at % HOUR,
    "day": lambda row: row.at - row.at % DAY,
}


@pytest.fixture
def calls(database: Database) -> list[RequestRow]:
    """The calls of five days; the keys of two of three callers are in the database."""
    begin = now() - now() % DAY - 5 * DAY
    calls = some_calls(300, begin=begin, milliseconds=5 * DAY)
    write(database, calls)
    with database.transaction() as connection:
        for key_id in ("k_ada", "k_bob"):
            key = StoredKey(key_id, key_id, "lab", ("chat",), None, "", 0, secrets=(StoredSecret("…", 0),))
            add_key(connection, key, project_id="p_lab", digest=key_id)
    return calls


@pytest.mark.parametrize(
    "by",
    [
        (),
        ("key",),
        ("project",),
        ("hour",),
        ("day", "key"),
        ("hour", "outcome"),
        ("hour", "key", "model"),
        tuple(_OF)[:5],
    ],
)
@pytest.mark.parametrize(
    "wanted",
    [
        UsageFilter(),
        UsageFilter(key_id="k_bob"),
        UsageFilter(project="lab", model="kimi"),
        UsageFilter(project="environment"),
        UsageFilter(provider="moonshot", outcome="failed"),
        UsageFilter(model="unlisted"),
    ],
    ids=repr,
)
def test_sums_are_those_of_the_calls(
    database: Database, calls: list[RequestRow], by: tuple[str, ...], wanted: UsageFilter
) -> None:
    """By any of it at once, of any of it, in any hours."""
    for since, until in ((0, now() + HOUR), (calls[0].at + 30 * HOUR, calls[0].at + 60 * HOUR)):
        if since == 0 and "hour" in by:
            continue
        expected: Counter[tuple[Any, ...]] = Counter()
        for row in calls:
            fits = all(
                value in (None, _OF[name.removesuffix("_id")](row))
                for name, value in ((name, getattr(wanted, name)) for name in wanted.__struct_fields__)
            )
            if fits and since <= row.at < until:
                expected[*(_OF[name](row) for name in by)] += 1
        with database.transaction(reads=True) as connection:
            sums = usage_by(connection, *by, since=since, until=until, wanted=wanted, durations=True)
        found = {tuple(row[name] for name in by): row["requests"] for row in sums}
        assert {key: count for key, count in found.items() if count} == dict(expected)
        for line in sums:
            assert line["tokens_in"] == 3 * line["requests"]
            assert sum(line[f"m{place}"] for place in range(len(DURATIONS) + 1)) == line["requests"]


def test_a_key_s_sums_from_several_days_on(database: Database, calls: list[RequestRow]) -> None:
    """Each begin has its own."""
    day = calls[-1].at - calls[-1].at % DAY
    with database.transaction(reads=True) as connection:
        sums = usage_of(connection, "k_ada", {"today": day, "total": 0})
        nobody = usage_of(connection, "k_nobody", {"today": day})
    of_ada = [row for row in calls if row.key_id == "k_ada"]
    assert sums["total"]["requests"] == len(of_ada)
    assert sums["today"]["requests"] == sum(row.at >= day for row in of_ada)
    assert sums["total"]["milliseconds"] == sum(row.milliseconds for row in of_ada)
    assert nobody["today"]["requests"] == 0


def test_hours_of_single_keys_go_and_everything_else_stays(database: Database, tmp_path: Any) -> None:
    """After eight days a key's use is known by day, and that of all keys together still by hour."""
    old, new = now() - KEY_HOURS_KEPT - 2 * DAY, now() - DAY
    write(database, [call(at=at, key_id=key) for at in (old, new) for key in ("k_1", "k_2")])
    LedgerWriter(database, Journal(tmp_path, most=1), kept_days=30, max_megabytes=100).clean()
    with database.transaction(reads=True) as connection:
        by_key = usage_by(connection, "key", since=old - 1, until=now())
        by_key_and_day = usage_by(connection, "key", "day", since=old, until=now())
        by_hour = usage_by(connection, "hour", since=old - HOUR, until=now())
        key_hours = usage_by(connection, "hour", "key", since=new - HOUR, until=now())
        with pytest.raises(NoSuchSums, match="8 days"):
            usage_by(connection, "hour", since=old, until=now(), wanted=UsageFilter(key_id="k_1"))
        rows = connection.exec_driver_sql("SELECT count(*) FROM usage WHERE grain = 'hour' AND key_id <> ''").scalar()
    assert [(row["key"], row["requests"]) for row in by_key] == [("k_1", 2), ("k_2", 2)]
    assert len(by_key_and_day) == 4
    assert [row["requests"] for row in by_hour] == [2, 2]
    assert len(key_hours) == 2
    assert rows == 2


def test_percentiles_lie_in_the_class_of_the_true_ones() -> None:
    """For any durations, the estimate and the true value are between the same bounds."""
    rng = random.Random(3)
    for count in (1, 2, 10, 1000):
        times = sorted(int(rng.lognormvariate(7, 2)) for _ in range(count))
        sums: Counter[str] = Counter({f"m{place}": 0 for place in range(len(DURATIONS) + 1)})
        for time in times:
            sums[f"m{sum(bound < time for bound in DURATIONS)}"] += 1
        for share in (0.01, 0.5, 0.95, 1.0):
            true = times[max(-(-count * round(share * 100) // 100) - 1, 0)]
            estimate = percentile(sums, share)
            assert estimate is not None
            place = sum(bound < true for bound in DURATIONS)
            low, high = (0, *DURATIONS)[place], (*DURATIONS, DURATIONS[-1])[place]
            assert low <= estimate <= high
    assert percentile({f"m{place}": 0 for place in range(len(DURATIONS) + 1)}, 0.5) is None
