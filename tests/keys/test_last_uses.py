"""When secrets were last used is noted, beside the calls."""

import pytest

from app.domain.errors import InvalidApiKey
from app.keys import last_uses
from app.keys.administration import create_key, pause_key, rotate_key
from app.keys.keyring import Keyring
from app.keys.last_uses import LastUses
from app.keys.secret import make_secret
from app.storage.database import Database
from app.storage.feed import ChangeFeed
from app.storage.keys import StoredKey, key_of
from tests import databases

shared_postgres = databases.shared_postgres
own_postgres = databases.own_postgres
database_url = databases.database_url
empty_database = databases.empty_database
database = databases.database

_MINUTE = 60_000
_AT = 30_000_000 * _MINUTE


class _Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.time = _AT

    def __call__(self) -> int:
        return self.time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    """What the notes go by."""
    clock = _Clock()
    monkeypatch.setattr(last_uses, "now", clock)
    return clock


def _used(database: Database, key: StoredKey) -> list[int | None]:
    """When a key's secrets were last used, the newest first."""
    with database.transaction(reads=True) as connection:
        found = key_of(connection, key.id)
    assert found is not None
    return [secret.last_used_at for secret in found.secrets]


async def test_each_secret_of_a_key_has_its_own_last_use(database: Database, clock: _Clock) -> None:
    """To the minute, whether it was looked up or known, and of two workers the later one counts."""
    with database.transaction() as connection:
        old = create_key(connection, name="ada")
        new = rotate_key(database, connection, old.key, grace_seconds=3600)
    keyring = Keyring(database, ChangeFeed(database), known_for=60)
    uses = LastUses(database, keyring.used)
    await uses.note()
    assert _used(database, old.key) == [None, None]
    await keyring.look_up(old.secret.encode())
    clock.time = _AT + _MINUTE + 59_999
    await uses.note()
    assert _used(database, old.key) == [None, _AT + _MINUTE]
    assert keyring.used == set()
    assert keyring.caller(old.secret.encode()) is not None
    assert len(keyring.used) == 1
    await keyring.look_up(new.secret.encode())
    clock.time = _AT  # another worker, whose clock is behind
    await uses.note()
    assert _used(database, old.key) == [_AT, _AT + _MINUTE]


async def test_what_does_not_open_is_no_use(database: Database) -> None:
    """Neither a paused key, nor a secret whose time is over, nor one that was never given out."""
    with database.transaction() as connection:
        paused = create_key(connection, name="paused")
        pause_key(database, connection, paused.key)
        over = create_key(connection, name="over")
        rotate_key(database, connection, over.key, grace_seconds=0)
    keyring = Keyring(database, ChangeFeed(database), known_for=60)
    for secret in (paused.secret, over.secret):
        for _ in range(2):  # from the database, and from memory
            with pytest.raises(InvalidApiKey):
                await keyring.look_up(secret.encode())
            assert keyring.caller(secret.encode()) is None
    await keyring.look_up(make_secret().encode())
    assert keyring.used == set()


async def test_uses_wait_for_a_database_that_is_away(
    database: Database, clock: _Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are noted when it is back, however many batches they are; ending doesn't wait for long."""
    monkeypatch.setattr(last_uses, "_BATCH", 2)
    with database.transaction() as connection:
        made = [create_key(connection, name=f"key {number}") for number in range(5)]
    keyring = Keyring(database, ChangeFeed(database), known_for=60)
    for new in made:
        await keyring.look_up(new.secret.encode())
    uses = LastUses(database, keyring.used)
    uses.start()
    database.prepared = False  # whatever asks from now on fails
    await uses.note()
    assert len(keyring.used) == 5
    database.prepared = True
    await uses.aclose(10)
    assert [_used(database, new.key) for new in made] == [[_AT]] * 5
