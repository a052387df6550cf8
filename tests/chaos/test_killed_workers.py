"""Workers that are killed, as processes of their own, and what the ledger says afterwards."""

import signal
from pathlib import Path

import httpx

from app.storage.database import Database
from app.storage.schema import migrate
from simulator.live import LiveSimulator
from tests import databases
from tests.databases import PostgresServer, wrong_sums
from tests.live import ALICE_KEY, WAIT_SECONDS
from tests.ports import free_port
from tests.processes import process, until_it_listens
from tests.storage.calls import rows_of

own_postgres = databases.own_postgres


def test_calls_that_a_killed_worker_has_answered_are_counted_once(
    own_postgres: PostgresServer, site: LiveSimulator, tmp_path: Path
) -> None:
    """kill -9 while the database is away: whoever is started next carries over what was in the journal."""
    url = own_postgres.new_database()
    database = Database(url, timeout=5)
    migrate(database)
    settings = {
        "API_MASTER_KEY": ALICE_KEY,
        "CHAT_PAGE_URL": site.page_url,
        "DATABASE_URL": url,
        "JOURNAL_DIR": str(tmp_path),
        "TYPING_DELAY_SECONDS": "0",
    }
    own_postgres.stop()
    answered = []
    for _ in range(2):
        port = free_port()
        with process("main.py", "serve", "--port", str(port), **settings) as worker:
            until_it_listens(worker)
            answered += [_ask(port, stream=stream) for stream in (False, True, False, True)]
            worker.send_signal(signal.SIGKILL)
            worker.wait()
    own_postgres.start()
    with process("main.py", "serve", "--port", str(free_port()), **settings) as worker:
        until_it_listens(worker)
        assert sorted(_rows(database, len(answered))) == sorted(answered)
    assert not wrong_sums(database)
    database.close()


def _ask(port: int, *, stream: bool) -> str:
    """The request id of a call that was answered."""
    body = {"messages": [{"role": "user", "content": "Hello"}], "stream": stream}
    headers = {"Authorization": f"Bearer {ALICE_KEY}"}
    response = httpx.post(
        f"http://127.0.0.1:{port}/v1/chat/completions", json=body, headers=headers, timeout=WAIT_SECONDS
    )
    assert response.status_code == 200
    return response.headers["x-request-id"]


def _rows(database: Database, number: int) -> list[str]:
    """The request ids of the rows, as soon as there are so many."""
    return [row["request_id"] for row in rows_of(database, number)]
