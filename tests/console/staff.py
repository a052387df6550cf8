"""A gateway with a database, and people who are signed in to its console, in browsers without scripts.

A test module gets the fixtures by giving them names of its own: `keeper = staff.keeper`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.keys.administration import NewSecret, create_key
from app.people.administration import new_person
from app.people.sign_in import make_link_ticket
from app.storage.database import Database
from app.storage.people import find_person
from app.storage.schema import migrate
from tests.conftest import StartGateway
from tests.databases import ready_file
from tests.live import NO_TLS, WAIT_SECONDS, LiveGateway

_TOKEN = re.compile(r'name="csrf" value="([^"]+)"')


class Visit:
    """A browser of somebody who is signed in.

    Args:
        http: Its client.
    """

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    def page(self, path: str, status: int = 200, **query: str) -> str:
        """A page of the console."""
        answer = self.http.get(f"/console{path}", params=query)
        assert answer.status_code == status, answer.text
        return answer.text

    def send(self, path: str, status: int = 200, **fields: str) -> str:
        """The page that a form leads to, after redirects."""
        answer = self.http.post(f"/console{path}", data={"csrf": self.token, **fields})
        assert answer.status_code == status, answer.text
        return answer.text

    @property
    def token(self) -> str:
        """What forms have to send."""
        found = _TOKEN.search(self.page("/account"))
        assert found is not None
        return found[1]


@contextmanager
def browser(gateway: LiveGateway, agent: str = "tests") -> Iterator[Visit]:
    """A browser without cookies."""
    with httpx.Client(
        base_url=gateway.base_url,
        headers={"user-agent": agent, "accept-language": "en"},
        follow_redirects=True,
        timeout=WAIT_SECONDS,
        trust_env=False,
        verify=NO_TLS,
    ) as http:
        yield Visit(http)


@contextmanager
def signed_in(
    gateway: LiveGateway, database: Database, name: str = "ada", role: str = "admin", agent: str = "tests"
) -> Iterator[Visit]:
    """A browser of a person, who is added if need be."""
    with database.transaction() as connection:
        person = find_person(connection, name=name) or new_person(connection, name, role)
        ticket = make_link_ticket(connection, person)
    with browser(gateway, agent) as visit:
        assert visit.http.post("/console/sign-in", data={"ticket": ticket}).status_code == 200
        yield visit


@contextmanager
def holding(gateway: LiveGateway, secret: str) -> Iterator[Visit]:
    """A browser of a key's holder."""
    with browser(gateway) as visit:
        assert visit.http.post("/console/sign-in", data={"key": secret}).status_code == 200
        yield visit


def make_key(database: Database, name: str = "laptop", **fields: Any) -> NewSecret:
    """A key."""
    with database.transaction() as connection:
        return create_key(connection, name=name, **fields)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An empty database."""
    database = Database(ready_file(tmp_path / "gateway.db"), timeout=10)
    migrate(database)
    yield database
    database.close()


@pytest.fixture
def keeper(start_gateway: StartGateway, database: Database, tmp_path: Path) -> Iterator[LiveGateway]:
    """A gateway that keeps keys and ledger in it."""
    url = f"sqlite:///{tmp_path}/gateway.db"
    with start_gateway(database_url=url, journal_dir=tmp_path / "journal") as gateway:
        yield gateway


@pytest.fixture
def admin(keeper: LiveGateway, database: Database) -> Iterator[Visit]:
    """An administrator who is signed in."""
    with signed_in(keeper, database) as visit:
        yield visit
