"""Forms that change what somebody else is changing: PostgreSQL lets both read before either writes, if none waits."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec.structs import replace
from sqlalchemy import text

from app.keys.administration import revoke_key
from app.people.administration import person_to_change, update_person
from app.storage.clock import now
from app.storage.database import Connection
from app.storage.keys import key_of
from app.storage.people import find_person
from simulator.live import LiveSimulator
from tests import databases
from tests.conftest import RunLog
from tests.console.running import Console, Signed, console_of
from tests.live import until

shared_postgres = databases.shared_postgres
_WAITING = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")


@pytest.fixture
def console(
    site: LiveSimulator, run_log: RunLog, shared_postgres: databases.PostgresServer, tmp_path: Path
) -> Iterator[Console]:
    """One whose database lets two write at a time."""
    with console_of(site, run_log.stream, tmp_path, database_url=shared_postgres.new_ready_database()) as console:
        yield console


def _while(console: Console, others: Callable[[Connection], object], admin: Signed, path: str, **fields: str) -> int:
    """The status of a form that was sent while somebody else changes something, as the command line does."""

    def is_waiting() -> bool:
        return bool(console.done(lambda connection: connection.execute(_WAITING).scalar_one()))

    with ThreadPoolExecutor(1) as elsewhere:
        with console.database.transaction() as connection:
            others(connection)
            form = elsewhere.submit(admin.post, path, **fields)
            until(lambda: form.done() or is_waiting())
        return form.result().status_code


@pytest.mark.parametrize(("action", "status"), [("", 303), ("/pause", 409), ("/rotate", 409)])
def test_a_key_that_is_revoked_meanwhile_stays_revoked(console: Console, action: str, status: int) -> None:
    """Neither its form nor a button writes what was read before."""
    key = console.new_key().key
    with console.signed_in("admin") as admin:
        said = _while(
            console,
            lambda connection: revoke_key(console.database, connection, key),
            admin,
            f"/console/keys/{key.id}{action}",
            name=key.name,
            project=key.project,
        )
    assert said == status
    assert console.done(key_of, key.id).revoked_at is not None


def test_a_person_who_is_disabled_meanwhile_stays_disabled(console: Console) -> None:
    """Although a password of theirs is being set."""
    with console.signed_in("admin"), console.signed_in("admin") as leaver:
        assert leaver.person is not None
        person_id = leaver.person.id

        def disable(connection: Connection) -> None:
            person = person_to_change(console.database, connection, person_id)
            assert person is not None
            update_person(connection, replace(person, disabled_at=now()))

        _while(console, disable, leaver, "/console/account/password", password="correct horse battery")
    assert console.done(lambda connection: find_person(connection, person_id=person_id)).disabled_at is not None
