"""Limits in SQLite and PostgreSQL: what workers hold, whoever else writes at the same time."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace
from sqlalchemy import delete, insert, select, update

from app.domain.granting import Claim, Exchanged, Quota, Scope
from app.domain.limits import Measure, Window, period_at
from app.storage import limits as storage
from app.storage import tables
from app.storage.database import Database, DatabaseAway
from app.storage.limits import StaleMessage, Worker, exchange, forget_idle, set_limits, stored_limits
from app.storage.rows import RequestRow
from app.storage.schema import migrate
from app.storage.spent import add_spent, spent_of
from tests import databases

shared_postgres = databases.shared_postgres
database_url = databases.database_url
empty_database = databases.empty_database
database = databases.database

_PERMITS = Claim("p", "permits", 5, held=0)
_BUCKET = Claim("b", "bucket", 60, held=0, seconds=60)
_ROW = RequestRow(
    0, 0, "", "k", "lab", "m", "m", True, "up", "", "completed", None, 200, False, 10, 5, 0, False, 1, None, None,
    None, 0, None,
)  # fmt: skip


_EACH: dict[Measure, int] = {"requests": 1, "tokens": 15, "input tokens": 10, "output tokens": 5, "dollars": 7}


class Clock:
    """The store's clock."""

    def __init__(self) -> None:
        self.now = 1_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that the test moves, in milliseconds."""
    clock = Clock()
    monkeypatch.setattr(storage, "_clock", lambda *_: clock.now)
    return clock


class Teller:
    """A worker that talks to the store."""

    def __init__(self, database: Database, name: str) -> None:
        self.database = database
        self.worker = Worker(name, "here", "1", 0)
        self.number = 0

    def say(self, *claims: Claim, number: int | None = None) -> Exchanged:
        """Send a message."""
        if number is None:
            self.number += 1
        with self.database.transaction() as connection:
            return exchange(self.database, connection, self.worker, number or self.number, claims)


def test_what_one_worker_holds_no_other_gets(database: Database, clock: Clock) -> None:
    """Until it gives it back."""
    one, two = Teller(database, "one"), Teller(database, "two")
    assert one.say(replace(_PERMITS, need=4, want=4)).grants["p"].granted == 4
    assert two.say(replace(_PERMITS, need=4, want=4)).grants["p"].granted == 1
    one.say(replace(_PERMITS, held=1))
    assert two.say(replace(_PERMITS, held=1, need=9, want=9)).grants["p"].granted == 3


def test_who_is_silent_for_too_long_has_lost_it(database: Database, clock: Clock) -> None:
    """Permits and tokens after 8 s, and is told; quotas only after 30 s, for what was used may still be on its way."""
    quota = Quota(Scope("key", "k"), "requests", "", 0, 2**40)
    of_quota = Claim("q", "quota", 10, held=0, want=10, quota=quota)
    one, two = Teller(database, "one"), Teller(database, "two")
    one.say(replace(_PERMITS, want=5), replace(_BUCKET, want=60), of_quota)
    clock.now += 8_000
    answer = two.say(replace(_PERMITS, want=5), replace(_BUCKET, want=60), of_quota)
    assert [answer.grants[limit].granted for limit in "pbq"] == [0, 0, 0]
    clock.now += 1
    answer = two.say(replace(_PERMITS, want=5), replace(_BUCKET, want=60), of_quota)
    # What was lent refills from now on: nobody knows what was used of it.
    assert [answer.grants[limit].granted for limit in "pbq"] == [5, 0, 0]
    clock.now += 21_999
    assert two.say(replace(_PERMITS, held=5), of_quota).grants["q"].granted == 0
    clock.now += 1
    assert two.say(of_quota).grants["q"].granted == 10
    assert one.say(replace(_PERMITS, held=2)).is_new
    assert one.say(replace(_PERMITS, held=2, want=1)).grants["p"].left == -2
    assert not one.say().is_new


def test_a_message_counts_once_and_none_counts_late(database: Database, clock: Clock) -> None:
    """What was sent before a message that was answered is refused."""
    one = Teller(database, "one")
    one.say(replace(_PERMITS, want=2))
    one.say(replace(_PERMITS, held=2, want=2))
    for number in (1, 2):
        with pytest.raises(StaleMessage):
            one.say(replace(_PERMITS), number=number)
    assert Teller(database, "two").say(replace(_PERMITS, want=5)).grants["p"].granted == 1


def test_all_hear_of_somebody_who_goes_without(database: Database, clock: Clock) -> None:
    """For three seconds, whatever they have to say themselves."""
    one, two = Teller(database, "one"), Teller(database, "two")
    one.say(replace(_PERMITS, want=5))
    assert one.say().wanted == frozenset()
    two.say(replace(_PERMITS, need=1, want=1))
    assert one.say().wanted == {"p"}
    clock.now += 3_001
    assert one.say().wanted == frozenset()


def test_a_clock_that_was_set_back_makes_nobody_immortal(database: Database, clock: Clock) -> None:
    """PostgreSQL's may be: who lives goes on living, who is dead stays dead, and buckets go on refilling."""
    one, two, gone = (Teller(database, name) for name in ("one", "two", "gone"))
    for teller in (one, two, gone):
        teller.say(replace(_PERMITS, want=1))
    one.say(replace(_BUCKET, want=60))
    clock.now -= 3_600_000
    assert two.say(replace(_PERMITS, held=1, want=5)).workers == 3
    clock.now += 5_000
    one.say(replace(_PERMITS, held=1))
    clock.now += 3_001
    assert two.say(replace(_PERMITS, held=1, want=5)).workers == 2
    one.say(_BUCKET)
    clock.now += 2_000
    assert one.say(replace(_BUCKET, want=60)).grants["b"].granted >= 2


def test_messages_that_cross_do_not_make_each_other_dead(database: Database, clock: Clock) -> None:
    """A message that began earlier and comes later sees what the faster one has got."""
    one, two = Teller(database, "one"), Teller(database, "two")
    clock.now += 1_500
    one.say(replace(_PERMITS, want=5))
    clock.now -= 1_500
    answer = two.say(replace(_PERMITS, want=5))
    assert (answer.grants["p"].granted, answer.workers) == (0, 2)


def test_the_clock_never_goes_back_when_the_machine_is_started_anew(tmp_path_factory: pytest.TempPathFactory) -> None:
    """SQLite has no clock of its own: after another start it goes on where the last one ended."""
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('boot')}/gateway.db", timeout=5)
    migrate(database)
    late = time.time_ns() // 1_000_000 + 86_400_000
    with database.transaction() as connection:
        connection.execute(
            insert(tables.workers).values(id="w", machine="", version="", started_at=0, seen_at=0, beat=late, message=1)
        )
        connection.execute(delete(tables.boots))
    Teller(database, "one").say(replace(_PERMITS, want=1))
    with database.transaction() as connection:
        beat = connection.execute(select(tables.workers.c.beat).where(tables.workers.c.id == "one")).scalar_one()
    assert beat >= late
    database.close()


def test_workers_that_claim_the_same_limits_in_any_order_never_lock_each_other(database: Database) -> None:
    """Eight at a time, each with some of the same limits, new ones among them: all get answers, and no more than is."""
    held: dict[str, dict[str, int]] = {}
    faults: list[Exception] = []
    lock = threading.Lock()
    connections = [Database(database.url.render_as_string(hide_password=False), timeout=10) for _ in range(8)]

    def work(place: int) -> None:
        chance = random.Random(place)  # the same each time
        teller = Teller(connections[place], f"w{place}")
        mine: dict[str, int] = {}
        for turn in range(25):
            names = chance.sample([f"p{number}" for number in range(6)] + [f"new{turn}"], 5)
            claims = [replace(_PERMITS, limit_id=name, held=mine.get(name, 0), want=1) for name in names]
            try:
                answer = teller.say(*claims)
            except (DatabaseAway, StaleMessage) as error:
                faults.append(error)
                return
            for name in names:
                mine[name] = mine.get(name, 0) + answer.grants[name].granted
            if turn % 7 == place % 7:
                with connections[place].transaction() as connection:
                    set_limits(connections[place], connection, Scope("key", f"k{place}"), "5 at once")
        with lock:
            held[f"w{place}"] = mine

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    for one in connections:
        one.close()
    assert faults == []
    for name in {name for mine in held.values() for name in mine}:
        assert sum(mine.get(name, 0) for mine in held.values()) <= 5


def test_limits_are_set_and_forgotten(database: Database, clock: Clock) -> None:
    """Their texts, by scope; what belongs to workers and limits of long ago goes."""
    with database.transaction() as connection:
        set_limits(database, connection, Scope("key", "k:1"), "5 at once")
        set_limits(database, connection, Scope("gateway"), "none")
        set_limits(database, connection, Scope("key", "k:1"), "6 at once")
        assert stored_limits(connection) == {Scope("gateway"): "none", Scope("key", "k:1"): "6 at once"}
        set_limits(database, connection, Scope("gateway"), None)
        assert list(stored_limits(connection)) == [Scope("key", "k:1")]
    Teller(database, "one").say(replace(_PERMITS, want=1), replace(_BUCKET, want=1))
    clock.now += 41 * 86_400_000
    with database.transaction() as connection:
        forget_idle(database, connection)
        for table in (tables.workers, tables.leases, tables.buckets):
            assert connection.execute(select(table)).all() == []


@pytest.mark.parametrize("zone_name", ["UTC", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe"])
def test_quotas_count_the_days_of_their_zone(database: Database, zone_name: str) -> None:
    """A journal of two days around the change of clocks: each call is in one day, week and month, those of its zone."""
    zone = ZoneInfo(zone_name)
    begin = 1_774_569_600_000  # three days before clocks change in Europe
    chance = random.Random(1)  # the same each time
    rows = [replace(_ROW, at=begin + chance.randrange(9 * 86_400_000), count=number) for number in range(400)]
    with database.transaction() as connection:
        add_spent(database, connection, rows[:200], [7] * 200, zone)
        add_spent(database, connection, rows[200:], [7] * 200, zone)
        windows: tuple[Window, ...] = ("day", "week", "month", "total")
        for window in windows:
            for scope in (Scope("key", "k"), Scope("project", "lab"), Scope("upstream", "up"), Scope("gateway")):
                seen = 0
                for period in {period_at(window, row.at, zone) for row in rows}:
                    among = [row for row in rows if period.start <= row.at < period.end]
                    for measure, each in _EACH.items():
                        quota = Quota(scope, measure, "", period.start, period.end)
                        assert spent_of(connection, quota) == each * len(among)
                    seen += len(among)
                assert seen == 400
        of_others = Quota(Scope("key", "k"), "requests", "gpt*", 0, 2**50)
        assert spent_of(connection, of_others) == 0


def test_an_answer_without_tokens_is_a_request_all_the_same(database: Database) -> None:
    """An image, say; a call that no answer came to is none."""
    silent = replace(_ROW, tokens_in=0, tokens_out=0, first_milliseconds=None)
    rows = [silent, replace(silent, count=1, first_milliseconds=700)]
    with database.transaction() as connection:
        add_spent(database, connection, rows, [0, 0], ZoneInfo("UTC"))
        quota = Quota(Scope("key", "k"), "requests", "", 0, 86_400_000)
        assert spent_of(connection, quota) == 1


def test_a_quota_for_some_models_counts_models_that_nobody_lists(database: Database) -> None:
    """An upstream may serve whatever it is asked for: its models have names to go by, too."""
    rows = [replace(_ROW, count=count, served=served, listed=False) for count, served in enumerate(("up/kimi-x", "x"))]
    with database.transaction() as connection:
        add_spent(database, connection, rows, [0, 0], ZoneInfo("UTC"))
        quota = Quota(Scope("key", "k"), "requests", "up/kimi*", 0, 86_400_000)
        assert spent_of(connection, quota) == 1


def test_a_dead_workers_lease_does_not_fill_a_bucket_that_was_full(database: Database, clock: Clock) -> None:
    """What it may have used just before it lapsed is refilled only from then on."""
    one, two = Teller(database, "one"), Teller(database, "two")
    two.say(_BUCKET)
    one.say(replace(_BUCKET, want=20))
    clock.now += 60_000
    with database.transaction() as connection:  # it lived until now, and said nothing of this limit
        connection.execute(update(tables.workers).where(tables.workers.c.id == "one").values(beat=clock.now - 8_001))
    assert two.say(replace(_BUCKET, want=60)).grants["b"].granted == 40
