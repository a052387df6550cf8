"""Keys open as long as they should, on every worker."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace
from sqlalchemy import Connection, text

from app.domain.errors import InvalidApiKey, KeyStoreUnavailable
from app.keys.administration import (
    KeyFault,
    NewSecret,
    create_key,
    only_key,
    pause_key,
    resume_key,
    revoke_key,
    rotate_key,
    update_key,
)
from app.keys.keyring import Keyring
from app.keys.secret import make_secret
from app.storage.clock import now
from app.storage.database import Database, DatabaseAway
from app.storage.feed import ChangeFeed
from app.storage.keys import StoredKey, list_keys
from app.storage.schema import migrate
from tests import databases
from tests.databases import PostgresServer

shared_postgres = databases.shared_postgres
own_postgres = databases.own_postgres
database_url = databases.database_url
empty_database = databases.empty_database
database = databases.database


@asynccontextmanager
async def _keyring(database: Database, *, known_for: float = 3600.0) -> AsyncGenerator[Keyring, None]:
    feed = ChangeFeed(database)
    keyring = Keyring(database, feed, known_for=known_for)
    feed.start(keyring)
    try:
        yield keyring
    finally:
        await feed.aclose()


def _create(database: Database, name: str = "ada", **fields: object) -> NewSecret:
    with database.transaction() as connection:
        return create_key(connection, name=name, **fields)  # type: ignore[arg-type]  # a test's own


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in a database
            await asyncio.sleep(0.01)


async def test_a_key_is_found_once_and_known_from_then_on(database: Database) -> None:
    """The first look-up asks the database; after it the caller is known at once."""
    new = _create(database, models=["Kimi*"], project="lab", scopes=["chat", "metrics"])
    key = new.secret.encode()
    counted: list[str] = []
    keyring = Keyring(database, ChangeFeed(database), known_for=60, count=counted.append)
    assert keyring.caller(key) is None
    caller = await keyring.look_up(key)
    assert caller is not None
    assert (caller.id, caller.name, caller.project, set(caller.scopes)) == (
        new.key.id,
        "ada",
        "lab",
        {"chat", "metrics"},
    )
    assert caller.may_use("kimi-k2")
    assert not caller.may_use("gpt-4o")
    assert keyring.caller(key) == caller
    assert counted == ["miss", "hit"]


async def test_an_unknown_key_is_asked_for_once(database: Database) -> None:
    """Neither a typo nor a key of somebody else's reaches the database twice."""
    keyring = Keyring(database, ChangeFeed(database), known_for=60)
    assert await keyring.look_up(b"sk-kimi-typo") is None
    stranger = make_secret().encode()
    assert await keyring.look_up(stranger) is None
    database.prepared = False  # whatever asks from now on fails
    assert await keyring.look_up(stranger) is None


@pytest.mark.parametrize(
    ("change", "code"), [(pause_key, "key_paused"), (revoke_key, "key_revoked")], ids=["pause", "revoke"]
)
async def test_a_key_that_is_taken_back_stops_opening_everywhere(
    database: Database, change: Callable[[Database, Connection, StoredKey], StoredKey], code: str
) -> None:
    """Two workers know a key; after the change neither lets it in, and both say why."""
    new = _create(database)
    key = new.secret.encode()
    async with _keyring(database) as first, _keyring(database) as second:
        assert await first.look_up(key)
        assert await second.look_up(key)
        with database.transaction() as connection:
            change(database, connection, new.key)
        await _until(lambda: not first.caller(key) and not second.caller(key))
        for keyring in (first, second):
            with pytest.raises(InvalidApiKey) as caught:
                await keyring.look_up(key)
            assert caught.value.code == code


async def test_a_resumed_key_opens_again(database: Database) -> None:
    """A pause ends."""
    new = _create(database)
    key = new.secret.encode()
    with database.transaction() as connection:
        paused = pause_key(database, connection, new.key)
    async with _keyring(database) as keyring:
        with pytest.raises(InvalidApiKey):
            await keyring.look_up(key)
        with database.transaction() as connection:
            resume_key(database, connection, paused)

        async def opens() -> bool:
            try:
                return await keyring.look_up(key) is not None
            except InvalidApiKey:
                return False

        async with asyncio.timeout(10):
            while not await opens():  # noqa: ASYNC110 - likewise
                await asyncio.sleep(0.01)


async def test_changed_models_count(database: Database) -> None:
    """What a key may use is what the database says, not what was read first."""
    new = _create(database)
    key = new.secret.encode()
    async with _keyring(database) as keyring:
        assert (await keyring.look_up(key)).may_use("gpt-4o")  # type: ignore[union-attr]  # it was just made
        with database.transaction() as connection:
            update_key(database, connection, replace(new.key, models=("kimi*",)))
        await _until(lambda: keyring.caller(key) is None)
        assert not (await keyring.look_up(key)).may_use("gpt-4o")  # type: ignore[union-attr]  # likewise


async def test_a_rotated_key_keeps_its_id_and_its_old_secret_for_the_grace(database: Database) -> None:
    """Both secrets open for the same caller; without grace the old one doesn't."""
    new = _create(database)
    with database.transaction() as connection:
        second = rotate_key(database, connection, new.key, grace_seconds=3600)
    keyring = Keyring(database, ChangeFeed(database), known_for=60)
    for secret in (new.secret, second.secret):
        caller = await keyring.look_up(secret.encode())
        assert caller is not None
        assert caller.id == new.key.id
    with database.transaction() as connection:
        third = rotate_key(database, connection, new.key, grace_seconds=0)
    keyring = Keyring(database, ChangeFeed(database), known_for=60)
    assert await keyring.look_up(third.secret.encode())
    for secret in (new.secret, second.secret):
        with pytest.raises(InvalidApiKey, match="has expired"):
            await keyring.look_up(secret.encode())


async def test_an_expired_key_says_so(database: Database) -> None:
    """Also one that is in memory already."""
    new = _create(database)
    with database.transaction() as connection:
        update_key(database, connection, replace(new.key, expires_at=now() - 1))
    key = new.secret.encode()
    keyring = Keyring(database, ChangeFeed(database), known_for=60)
    for _ in range(2):
        with pytest.raises(InvalidApiKey) as caught:
            await keyring.look_up(key)
        assert caught.value.code == "key_expired"
        assert keyring.caller(key) is None


@pytest.mark.parametrize(
    ("go", "come_back"),
    [(PostgresServer.stop, PostgresServer.start), (PostgresServer.freeze, PostgresServer.thaw)],
    ids=["stopped", "frozen"],
)
async def test_without_the_database_known_keys_open_and_others_are_503(
    own_postgres: PostgresServer, go: Callable[[PostgresServer], None], come_back: Callable[[PostgresServer], None]
) -> None:
    """A database that is away is never a reason to call a key wrong, and afterwards all is as before."""
    database = Database(own_postgres.new_database(), timeout=2)
    migrate(database)
    known, unknown = _create(database).secret.encode(), _create(database, "bob").secret.encode()
    async with _keyring(database) as keyring:
        assert await keyring.look_up(known)
        go(own_postgres)
        await _until(lambda: database.fault)
        assert keyring.caller(known)
        with pytest.raises(KeyStoreUnavailable) as caught:
            await keyring.look_up(unknown)
        assert caught.value.retry_after
        come_back(own_postgres)
        await _until(lambda: not database.fault)
        assert await keyring.look_up(unknown)
    database.close()


async def test_a_crowd_of_unknown_keys_doesn_t_queue_for_a_database_that_hangs(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who finds no turn soon gets a 503, while those before are still waiting for its answer."""
    monkeypatch.setattr("app.keys.keyring._LONGEST_WAIT_SECONDS", 0.01)
    held = asyncio.Event()

    async def hangs(*_: object, **__: object) -> None:
        await held.wait()
        raise DatabaseAway("too late")

    monkeypatch.setattr(database, "run", hangs)
    keyring = Keyring(database, ChangeFeed(database), known_for=60)
    crowd = [asyncio.create_task(keyring.look_up(make_secret().encode())) for _ in range(50)]
    async with asyncio.timeout(10):
        while sum(task.done() for task in crowd) < 50 - 16:  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0.01)
    held.set()
    refused = await asyncio.gather(*crowd, return_exceptions=True)
    assert {type(error) for error in refused} == {KeyStoreUnavailable}


async def test_known_keys_don_t_open_for_ever_without_the_database(own_postgres: PostgresServer) -> None:
    """After KEYS_WITHOUT_DATABASE_SECONDS nobody gets in on old knowledge."""
    database = Database(own_postgres.new_database(), timeout=2)
    migrate(database)
    known = _create(database).secret.encode()
    async with _keyring(database, known_for=0.0) as keyring:
        assert await keyring.look_up(known)
        own_postgres.stop()
        await _until(lambda: keyring.caller(known) is None)
        own_postgres.start()
    database.close()


async def test_changes_that_nobody_remembers_empty_the_memory(database: Database) -> None:
    """A worker that was cut off for longer than changes are kept forgets everything, rather than too little."""
    new = _create(database)
    key = new.secret.encode()
    async with _keyring(database) as keyring:
        assert await keyring.look_up(key)
        with database.transaction() as connection:
            for _ in range(3):
                pause_key(database, connection, new.key)
            connection.execute(text("DELETE FROM change WHERE number < (SELECT max(number) FROM change)"))
            connection.execute(text("UPDATE change SET subject = 'somebody else'"))
        await _until(lambda: keyring.caller(key) is None)


async def test_an_older_copy_of_the_database_is_taken_for_what_it_is(database: Database) -> None:
    """After a restore its changes count from lower numbers: what was known is forgotten, and keys are found again."""
    new = _create(database)
    key = new.secret.encode()
    async with _keyring(database) as keyring:
        with database.transaction() as connection:
            pause_key(database, connection, new.key)
            resume_key(database, connection, new.key)
        await _until(lambda: keyring._feed.seen == 2)
        assert await keyring.look_up(key)
        with database.transaction() as connection:
            connection.execute(text("DELETE FROM change"))
        await _until(lambda: keyring.caller(key) is None)
        async with asyncio.timeout(10):
            assert await keyring.look_up(key)


def test_a_new_key_expires_in_the_future(database: Database) -> None:
    """One that has expired before it was given out is a mistyped year."""
    with pytest.raises(KeyFault, match="has to expire in the future"):
        _create(database, expires_at=now() - 1)
    assert _create(database, expires_at=now() + 60_000).key.state(now()) == "active"


def test_a_name_is_free_again_after_the_key_is_revoked(database: Database) -> None:
    """Two living keys of one project never have the same name."""
    first = _create(database).key
    with pytest.raises(KeyFault, match="has a key 'ada' already"):
        _create(database)
    assert _create(database, project="another").key.project == "another"
    with database.transaction() as connection:
        revoke_key(database, connection, first)
    second = _create(database).key
    with database.transaction(reads=True) as connection:
        assert only_key(connection, "ada", "default").id == second.id
        assert only_key(connection, first.id).revoked_at is not None
        assert len(list_keys(connection)) == 2
        assert len(list_keys(connection, revoked=True)) == 3
        with pytest.raises(KeyFault, match=r"Several keys have the name 'ada': .* Name the project"):
            only_key(connection, "ada")
        with pytest.raises(KeyFault, match="There is no key 'bob';"):
            only_key(connection, "bob")
        with pytest.raises(KeyFault, match="There is no key 'ada' in the project 'lab'"):
            only_key(connection, "ada", "lab")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": ""}, "must have 1 to 100 characters"),
        ({"name": "a\nb"}, "without line breaks"),
        ({"name": " a"}, "without line breaks or spaces around it"),
        ({"project": "environment"}, "stands for the keys of API_MASTER_KEY"),
        ({"scopes": ("root",)}, "The scopes are chat, metrics, admin:read, admin; root was given"),
        ({"scopes": ()}, "none was given"),
        ({"models": ("a b",)}, "is not the name of a model"),
        ({"models": ()}, "pause it instead"),
        ({"note": "x" * 1001}, "must not exceed 1000"),
    ],
)
def test_wrong_fields_are_refused_in_words(database: Database, fields: dict[str, object], words: str) -> None:
    """Nothing is written then."""
    with pytest.raises(KeyFault, match=words):
        _create(database, **{"name": "ada", **fields})  # type: ignore[arg-type]  # a test's own
    with database.transaction(reads=True) as connection:
        assert list_keys(connection) == []


def test_no_secret_is_kept_anywhere(database: Database) -> None:
    """All tables, read as a whole, hold neither the secret nor its middle."""
    new = _create(database)
    with database.transaction(reads=True) as connection:
        rows = [
            str(connection.execute(text(f"SELECT * FROM {table}")).all())
            for table in ("project", "api_key", "key_secret", "change")
        ]
    assert new.secret[12:-4] not in "".join(rows)
