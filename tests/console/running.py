"""The console of a real gateway, and people who use it over HTTP."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import httpx

from app.keys.administration import NewSecret, create_key
from app.people.administration import new_person
from app.people.sign_in import NewLogin, Origin, make_link_ticket, sign_in_with_key, sign_in_with_ticket
from app.recording.administration import start_recording
from app.storage.audit import Actor
from app.storage.database import Connection, Database
from app.storage.people import Person
from app.storage.request_pages import page_of_rows
from app.storage.schema import migrate
from simulator.live import LiveSimulator
from tests.live import ALICE_KEY, NO_TLS, WAIT_SECONDS, LiveGateway, gateway_for, until

COOKIE = "kimi_console"
_BROWSER = Origin("a browser of the tests")
# All that an administrator sees without saying of what.
PAGES = (
    *("", "welcome", "requests", "keys", "keys/new", "projects", "limits/gateway", "sessions", "playground"),
    *("recordings", "upstreams", "prices", "workers", "settings", "people", "audit", "account"),
)


@dataclass(frozen=True, slots=True)
class Signed:
    """Somebody who is signed in."""

    role: str
    login: NewLogin
    client: httpx.Client
    key: NewSecret | None = None
    person: Person | None = None

    @property
    def csrf(self) -> str:
        """What forms have to send."""
        return self.login.login.csrf

    def post(self, path: str, **fields: str) -> httpx.Response:
        """Send a form, as a page of the console does."""
        return self.client.post(path, data={"csrf": self.csrf, **fields}, headers={"sec-fetch-site": "same-origin"})


class Console:
    """A running console. What it is about is changed in its database, beside it.

    Args:
        gateway: Has it.
        database: What the gateway works with.
    """

    def __init__(self, gateway: LiveGateway, database: Database) -> None:
        self.gateway = gateway
        self.database = database
        self._count = 0

    @property
    def address(self) -> str:
        """Where its pages are."""
        return f"{self.gateway.base_url}/console"

    def done(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """What a function of the storage returns, in a transaction of its own."""
        with self.database.transaction() as connection:
            return work(connection, *arguments, **named)

    def ticket(self, person: Person | None = None) -> str:
        """Of a link; for the first administrator, unless for somebody else."""
        ticket: str = self.done(make_link_ticket, person)
        return ticket

    def new_key(self, name: str | None = None, **fields: Any) -> NewSecret:
        """Give a key out."""
        self._count += 1
        new: NewSecret = self.done(create_key, name=name or f"key {self._count}", **fields)
        return new

    def record(self, *keys: NewSecret) -> None:
        """Record keys for a day, and wait until the gateway does."""
        for new in keys:
            with self.database.transaction() as connection:
                start_recording(self.database, connection, Actor("somebody", "cli"), new.key.id, 86_400)
        for new in keys:
            with self.gateway.client(new.secret) as client:
                until(lambda client=client: client.get("/v1/key").json()["recorded_until"])  # type: ignore[misc]

    def stranger(self) -> httpx.Client:
        """An HTTP client that has no cookie and follows nothing; close it."""
        return httpx.Client(base_url=self.gateway.base_url, timeout=WAIT_SECONDS, trust_env=False, verify=NO_TLS)

    @contextmanager
    def signed_in(self, role: str, name: str | None = None) -> Iterator[Signed]:
        """An administrator, a viewer or the holder of a key."""
        self._count += 1
        key = self.new_key() if role == "holder" else None
        person = None if key else self.done(new_person, name or f"{role} {self._count}", role)

        def sign_in(connection: Connection) -> NewLogin:
            if key is not None:
                return sign_in_with_key(connection, key.key.id, _BROWSER)
            return sign_in_with_ticket(connection, make_link_ticket(connection, person), _BROWSER)

        login: NewLogin = self.done(sign_in)
        with self.stranger() as client:
            client.cookies.set(COOKIE, login.cookie)
            yield Signed(role, login, client, key, person)

    def chat(self, key: str = ALICE_KEY, **fields: Any) -> httpx.Response:
        """Send a request to the gateway."""
        with self.gateway.client(key) as client:
            body = {"model": "kimi", "messages": [{"role": "user", "content": "Hello"}], **fields}
            return client.post("/v1/chat/completions", json=body)

    def rows(self, wanted: Callable[[dict[str, Any]], bool] = lambda _: True) -> list[dict[str, Any]]:
        """The log's rows that fit, as soon as there is one; the newest first."""

        def read() -> list[dict[str, Any]]:
            with self.database.transaction(reads=True) as connection:
                return [row for row in page_of_rows(connection, limit=200).rows if wanted(row)]

        return until(read)


@contextmanager
def console_of(site: LiveSimulator, log: TextIO, folder: Path, **settings: object) -> Iterator[Console]:
    """A gateway with a console, in front of a site."""
    url = settings.pop("database_url", f"sqlite:///{folder}/gateway.db")
    database = Database(str(url), timeout=10)
    migrate(database)
    try:
        with gateway_for(site, log, database_url=url, journal_dir=folder / "journal", **settings) as gateway:
            yield Console(gateway, database)
    finally:
        database.close()
