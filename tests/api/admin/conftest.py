"""A gateway with a database, and keys that may look after it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.admin import feed
from app.keys import last_uses
from app.keys.administration import NewSecret, create_key
from app.limits import allowance, leases
from app.people.administration import new_person
from app.people.sign_in import NewLogin, Origin, make_link_ticket, sign_in_with_key, sign_in_with_ticket
from app.storage.database import Database
from tests import databases
from tests.conftest import StartGateway
from tests.live import WAIT_SECONDS, LiveGateway

shared_postgres = databases.shared_postgres
own_postgres = databases.own_postgres
database_url = databases.database_url
empty_database = databases.empty_database
database = databases.database

# Opens a client with a key that was made for it.
Opened = Callable[..., AbstractContextManager[httpx.Client]]


def create(database: Database, name: str, **fields: Any) -> NewSecret:
    """Make a key, as the command line does."""
    with database.transaction() as connection:
        return create_key(connection, name=name, **fields)


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes every second, every few or every minute does so sooner: tests wait for what is seen then."""
    monkeypatch.setattr(feed, "_PAUSE_SECONDS", 0.2)
    monkeypatch.setattr(last_uses, "_EVERY_SECONDS", 0.2)
    monkeypatch.setattr(leases, "_IDLE_HEARTBEAT_SECONDS", 0.5)
    monkeypatch.setattr(allowance, "_IDLE_SECONDS", 0.5)


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> dict[str, Any]:
    """A gateway that keeps keys and ledger in the test's database."""
    return {"database_url": database_url, "journal_dir": tmp_path / "journal"}


@pytest.fixture
def keeper(start_gateway: StartGateway, database: Database, settings: dict[str, Any]) -> Iterator[LiveGateway]:
    """Such a gateway, running."""
    with start_gateway(**settings) as gateway:
        yield gateway


@pytest.fixture
def opened(keeper: LiveGateway, database: Database) -> Opened:
    """Opens clients of that gateway."""

    @contextmanager
    def client(*scopes: str, name: str = "") -> Iterator[httpx.Client]:
        new = create(database, name or "-".join(scopes), scopes=scopes, project="operators")
        with keeper.client(new.secret) as http:
            http.base_url = f"{keeper.base_url}/admin/v1"
            yield http

    return client


def sign_in(database: Database, role: str, name: str = "") -> NewLogin:
    """A new person who is signed in to the console; `holder` for a key's holder."""
    with database.transaction() as connection:
        if role == "holder":
            return sign_in_with_key(connection, create_key(connection, name=name or role).key.id, Origin("tests"))
        person = new_person(connection, name or f"{role} of the console", role)
        return sign_in_with_ticket(connection, make_link_ticket(connection, person), Origin("tests"))


@pytest.fixture
def signed_in(keeper: LiveGateway, database: Database) -> Opened:
    """Opens clients of that gateway that have the console's cookie, and its login's token, instead of a key."""

    @contextmanager
    def client(role: str) -> Iterator[httpx.Client]:
        new = sign_in(database, role)
        with httpx.Client(
            base_url=f"{keeper.base_url}/admin/v1",
            cookies={"kimi_console": new.cookie},
            headers={"x-csrf-token": new.login.csrf, "sec-fetch-site": "same-origin"},
            timeout=WAIT_SECONDS,
            trust_env=False,
        ) as http:
            yield http

    return client


@pytest.fixture
def admin(opened: Opened) -> Iterator[httpx.Client]:
    """A client that may change everything."""
    with opened("admin") as client:
        yield client


@pytest.fixture
def reader(opened: Opened) -> Iterator[httpx.Client]:
    """A client that may look only."""
    with opened("admin:read") as client:
        yield client
