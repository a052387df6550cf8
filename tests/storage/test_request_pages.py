"""Pages of rows have all rows that are looked for, each once, whatever is written meanwhile."""

from typing import Any

import pytest

from app.domain.request_ids import RequestIds, number_of, time_in
from app.storage import request_pages
from app.storage.clock import now
from app.storage.database import Database
from app.storage.request_pages import RowFilter, newest_of_keys, page_of_rows, row_of, rows_of_request, scan_of_rows
from app.storage.rows import RequestRow, time_of
from app.storage.usage import DAY, HOUR
from tests import databases
from tests.storage.calls import call, some_calls, write

shared_postgres = databases.shared_postgres
database_url = databases.database_url
empty_database = databases.empty_database
database = databases.database

_BEGIN = 1_764_000_000_000
_WANTED = [
    RowFilter(),
    RowFilter(key_id="k_ada"),
    RowFilter(project="lab"),
    RowFilter(project="shop", model="qwen"),
    RowFilter(model="kimi"),
    RowFilter(model="made-up"),
    RowFilter(model="unlisted"),
    RowFilter(model="gpt-4o"),
    RowFilter(provider="moonshot", outcome="completed"),
    RowFilter(outcome="abandoned"),
    RowFilter(trouble=True),
    RowFilter(key_id="k_eve", trouble=True),
    RowFilter(error="upstream_timeout"),
    RowFilter(error="upstream_timeout", key_id="k_bob", model="kimi"),
    RowFilter(key_id="k_nobody"),
    RowFilter(session="session-2"),
    RowFilter(session="session-3", key_id="k_bob"),
    RowFilter(model="none"),
    RowFilter(since=_BEGIN + DAY, until=_BEGIN + 2 * DAY, model="qwen"),
    RowFilter(until=_BEGIN),
]


@pytest.fixture
def short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page looks at 30 rows at most."""
    monkeypatch.setattr(request_pages, "_FIRST_LOOK", 3)
    monkeypatch.setattr(request_pages, "_MOST_LOOKED_AT", 30)


def _is_wanted(row: RequestRow, wanted: RowFilter) -> bool:
    model = {"unlisted": not row.listed, None: True}.get(wanted.model, row.served == wanted.model)
    return (
        model
        and wanted.key_id in (None, row.key_id)
        and wanted.project in (None, row.project)
        and wanted.provider in (None, row.provider)
        and wanted.outcome in (None, row.outcome)
        and wanted.error in (None, row.error)
        and wanted.session in (None, row.session)
        and (not wanted.trouble or row.outcome != "completed")
        and (wanted.since or 0) <= row.at < (wanted.until or 1 << 41)
    )


def _ids_of(rows: list[dict[str, Any]]) -> list[str]:
    return [row["request_id"] for row in rows]


@pytest.mark.usefixtures("short_looks")
@pytest.mark.parametrize("wanted", _WANTED, ids=repr)
def test_pages_have_what_is_looked_for_and_nothing_else(database: Database, wanted: RowFilter) -> None:
    """All of it, the newest first, over as many pages as it takes."""
    calls = some_calls(200, begin=_BEGIN, milliseconds=4 * DAY)
    write(database, calls)
    found: list[str] = []
    before = None
    with database.transaction(reads=True) as connection:
        while True:
            page = page_of_rows(connection, wanted, before=before, limit=7)
            assert len(page.rows) <= 7
            found += _ids_of(page.rows)
            before = page.before
            if before is None:
                break
        oldest_first = _ids_of(scan_of_rows(connection, wanted)[0])
    expected = [row.request_id for row in calls if _is_wanted(row, wanted)]
    assert found == expected[::-1]
    assert oldest_first == expected


@pytest.mark.usefixtures("short_looks")
@pytest.mark.parametrize("wanted", [RowFilter(), RowFilter(model="qwen"), RowFilter(project="lab", trouble=True)])
def test_rows_that_come_in_neither_repeat_nor_hide_others(database: Database, wanted: RowFilter) -> None:
    """Between two pages calls are written that began before, within and after what has been read."""
    calls = some_calls(150, begin=_BEGIN, milliseconds=DAY)
    write(database, calls)
    found: list[str] = []
    before, place = None, 0
    while True:
        with database.transaction(reads=True) as connection:
            page = page_of_rows(connection, wanted, before=before, limit=5)
        found += _ids_of(page.rows)
        before = page.before
        if before is None:
            break
        place += 1
        late = [
            call(at=at, request_id=f"late-{place}-{at}", model="qwen", served="qwen", outcome="failed")
            for at in (_BEGIN - HOUR, time_of(before), _BEGIN + DAY // 2, _BEGIN + 2 * DAY)
        ]
        write(database, late, journal=2 + place)
    assert len(set(found)) == len(found)
    expected = [row.request_id for row in calls if _is_wanted(row, wanted)]
    assert [request_id for request_id in found if not request_id.startswith("late")] == expected[::-1]


def test_a_page_ends_without_another_when_there_are_no_more_rows(database: Database) -> None:
    """Its last row isn't followed by an empty page."""
    write(database, some_calls(10, begin=_BEGIN, milliseconds=HOUR))
    with database.transaction(reads=True) as connection:
        assert page_of_rows(connection, limit=10).before is None
        assert page_of_rows(connection, limit=9).before is not None
        assert page_of_rows(connection, limit=0) == request_pages.Page([], None)


@pytest.mark.usefixtures("short_looks")
def test_where_the_sums_know_of_no_such_call_nothing_is_looked_at(database: Database) -> None:
    """One page leads across any number of rows to the only one of a rare kind."""
    rare = call(at=_BEGIN - 3 * DAY, request_id="rare", provider="rare")
    write(database, [rare, *some_calls(500, begin=_BEGIN, milliseconds=4 * DAY)])
    with database.transaction(reads=True) as connection:
        page = page_of_rows(connection, RowFilter(provider="rare", key_id="k_ada"))
        assert _ids_of(page.rows) == ["rare"]
        assert _ids_of(page_of_rows(connection, RowFilter(provider="rare")).rows) == ["rare"]
        assert page_of_rows(connection, RowFilter(provider="rare", key_id="k_bob")) == request_pages.Page([], None)


def test_a_row_is_told_in_the_words_of_its_call(database: Database) -> None:
    """Aliases, unlisted models and both at once."""
    names = [("kimi", "kimi", True), ("gpt-4o", "kimi", True), ("made-up", "made-up", False), ("x", "made-up", False)]
    write(
        database,
        [
            call(count=place, model=model, served=served, listed=listed)
            for place, (model, served, listed) in enumerate(names)
        ],
    )
    with database.transaction(reads=True) as connection:
        rows, _ = scan_of_rows(connection, RowFilter())
        assert [(row["model"], row["served"]) for row in rows] == [
            ("kimi", None),
            ("gpt-4o", "kimi"),
            ("made-up", None),
            ("x", "made-up"),
        ]
        assert row_of(connection, rows[1]["id"]) == rows[1]
        assert row_of(connection, 1) is None


def test_a_request_is_found_by_its_id(database: Database) -> None:
    """By the gateway's own, by one that a client gave, and by one of the gateway's that a client gave again later."""
    ids = RequestIds()
    own, repeated = ids.new(), ids.new()
    came = time_in(number_of(own) or 0)
    write(
        database,
        [
            call(at=came + 14_000, count=1, request_id=own, tokens_in=1),
            call(at=came, count=2, request_id=repeated, tokens_in=2),
            call(at=came + HOUR, count=3, request_id=repeated, tokens_in=3),
            call(at=came + 2 * HOUR, count=4, request_id="of-a-client", tokens_in=4),
            call(at=came + 3 * HOUR, count=5, request_id="of-a-client", tokens_in=5),
            *some_calls(50, begin=came, milliseconds=5000),
        ],
    )
    with database.transaction(reads=True) as connection:
        for request_id, found in ((own, [1]), (repeated, [3, 2]), ("of-a-client", [5, 4]), (ids.new(), []), ("", [])):
            rows = rows_of_request(connection, request_id)
            assert [row["tokens_in"] for row in rows] == found
            assert {row["request_id"] for row in rows} <= {request_id}


def test_a_column_that_a_newer_gateway_has_added_is_left_alone(database: Database) -> None:
    """While one worker after the other is brought up to date, the older ones still write."""
    with database.transaction() as connection:
        connection.exec_driver_sql("ALTER TABLE request ADD COLUMN further BIGINT" if not database.is_sqlite else _ADD)
    write(database, [call(at=now())])
    with database.transaction(reads=True) as connection:
        (row,) = scan_of_rows(connection, RowFilter())[0]
    assert row["key_id"] == "k_ada"


_ADD = "ALTER TABLE request ADD COLUMN further INTEGER"


def test_the_newest_call_of_each_key_is_found(database: Database) -> None:
    """Whatever other keys have done since; keys without calls have none."""
    write(database, [call(at=_BEGIN + number, count=number, key_id=f"k_{number % 3}") for number in range(10)])
    with database.transaction(reads=True) as connection:
        newest = newest_of_keys(connection, ["k_0", "k_2", "k_nobody"])
    assert newest == {"k_0": _BEGIN + 9, "k_2": _BEGIN + 8}
