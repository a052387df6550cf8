"""Versions where two change the same at once: PostgreSQL lets both read before either writes, unless that is locked."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psycopg
import pytest

from app.domain.granting import Scope
from app.keys.administration import pause_key
from app.storage.audit import Actor
from app.storage.database import Connection, Database
from app.storage.keys import key_of
from app.storage.limits import set_limits
from app.storage.prices import Price, change_prices
from tests import databases
from tests.api.admin.conftest import create
from tests.live import until

_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
def database_url(shared_postgres: databases.PostgresServer) -> str:
    """SQLite has one writer at a time anyway."""
    return shared_postgres.new_ready_database()


def _pause(database: Database, connection: Connection, key_id: str) -> None:
    key = key_of(connection, key_id)
    assert key is not None
    pause_key(database, connection, key)


def _price(database: Database, connection: Connection, _: str) -> None:
    change_prices(database, connection, Actor("ada", "cli"), [Price("kimi", 1, 1, 1, 1)])


def _limit(database: Database, connection: Connection, _: str) -> None:
    set_limits(database, connection, Scope("gateway"), "7 at once")


@pytest.mark.parametrize(
    ("method", "path", "body", "others"),
    [
        ("PATCH", "/keys/{key}", {"note": "mine"}, _pause),
        ("PUT", "/limits/gateway", {"limits": "5 at once"}, _limit),
        ("PUT", "/prices", {"data": []}, _price),
    ],
)
def test_a_change_that_is_being_made_is_waited_for(
    admin: httpx.Client,
    database: Database,
    database_url: str,
    method: str,
    path: str,
    body: dict[str, Any],
    others: Callable[[Database, Connection, str], None],
) -> None:
    """Whoever knows the version from before it gets a 412 as soon as it is made, and has changed nothing."""
    key_id = create(database, "ada").key.id
    path = path.format(key=key_id)
    old = admin.get(path).headers["etag"]
    with ThreadPoolExecutor(1) as elsewhere, psycopg.connect(database_url, autocommit=True) as watching:
        with database.transaction() as connection:
            others(database, connection, key_id)
            change = elsewhere.submit(admin.request, method, path, json=body, headers={"if-match": old})
            until(lambda: watching.execute(_WAITING).fetchone() == (1,) or change.done())
        refused = change.result()
    assert (refused.status_code, refused.json()["error"]["code"]) == (412, "precondition_failed")
    assert "mine" not in admin.get(path).text
    assert "5 at once" not in admin.get(path).text


@pytest.mark.parametrize("change", [_pause, _price, _limit])
def test_changes_of_all_kinds_wait_for_each_other_in_one_order(
    database: Database, database_url: str, change: Callable[[Database, Connection, str], None]
) -> None:
    """One of the admin API's, which holds others back first, and one of the console's or the command line's."""
    key_id = create(database, "ada").key.id

    def elsewhere() -> None:
        with database.transaction() as connection:
            change(database, connection, key_id)

    with ThreadPoolExecutor(1) as threads, psycopg.connect(database_url, autocommit=True) as watching:
        with database.transaction() as connection:
            database.hold_back_writers(connection)
            other = threads.submit(elsewhere)
            until(lambda: watching.execute(_WAITING).fetchone() == (1,) or other.done())
            change(database, connection, key_id)
        other.result()
