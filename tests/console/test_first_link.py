"""How somebody gets in for the first time: by a link that a start prints, and never by a default password."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.people.sign_in import Origin, make_link_ticket, sign_in_with_ticket
from app.storage.database import Database
from app.storage.schema import migrate
from simulator.live import LiveSimulator
from tests.live import ALICE_KEY, NO_TLS
from tests.ports import free_port, free_ports
from tests.processes import ROOT, environment, process, until_it_listens
from tests.test_cli import demo, run

LINK = re.compile(r"(https?://localhost:\d+)/console/#([A-Za-z0-9_-]{43})\b")


@pytest.fixture
def settings(site: LiveSimulator, tmp_path: Path) -> dict[str, str]:
    """A gateway with a database, as an operator sets one up."""
    return {
        "API_MASTER_KEY": ALICE_KEY,
        "CHAT_PAGE_URL": site.page_url,
        "API_PORT": str(free_port()),
        "DATABASE_URL": f"sqlite:///{tmp_path}/gateway.db",
        "JOURNAL_DIR": str(tmp_path / "journal"),
    }


@contextmanager
def _at_a_terminal(*command: str, **settings: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A command whose output is a terminal; the process, and what reads from it."""
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=environment(**settings), stdout=theirs, stderr=theirs
        ) as running:
            os.close(theirs)
            try:
                yield running, ours
            finally:
                running.terminate()
                try:
                    running.wait(30)
                finally:
                    running.kill()
    finally:
        os.close(ours)


def _read_until(terminal: int, words: bytes) -> str:
    text = b""
    while words not in text:
        text += os.read(terminal, 65536)
    return text.decode()


def _enter(address: str, ticket: str) -> int:
    with httpx.Client(trust_env=False, verify=NO_TLS) as client:
        return client.post(f"{address}/console/sign-in", data={"ticket": ticket}).status_code


def _somebody_signs_in(url: str) -> None:
    database = Database(url)
    migrate(database)
    with database.transaction() as connection:
        sign_in_with_ticket(connection, make_link_ticket(connection), Origin("a test"))
    database.close()


def test_the_demo_prints_a_link_that_signs_in(tmp_path: Path) -> None:
    """Once, however often somebody has signed in before."""
    settings = {"DATABASE_URL": f"sqlite:///{tmp_path}/gateway.db", "JOURNAL_DIR": str(tmp_path / "journal")}
    _somebody_signs_in(settings["DATABASE_URL"])
    with demo("--port", "0", **settings) as text:
        ((address, ticket),) = LINK.findall(text)
        assert [_enter(address, ticket), _enter(address, ticket)] == [303, 401]


def test_a_demo_without_a_database_has_no_console() -> None:
    """It says so where the link would stand."""
    with demo("--port", "0", DATABASE_URL="none") as text:
        assert LINK.findall(text) == []
        assert re.search(r"Console +off", text)


def test_a_server_at_a_terminal_prints_a_link_until_somebody_has_signed_in(settings: dict[str, str]) -> None:
    """Though a link was made before, which nobody has used; from the first sign-in on no more."""
    run("main.py", "console-link", **settings)
    with _at_a_terminal("main.py", "serve", **settings) as (_, terminal):
        ((address, ticket),) = LINK.findall(_read_until(terminal, b"Uvicorn running"))
        assert address.endswith(settings["API_PORT"])
        assert _enter(address, ticket) == 303
    with _at_a_terminal("main.py", "serve", **settings) as (_, terminal):
        assert "console" not in _read_until(terminal, b"Uvicorn running").lower()


def test_a_log_is_told_how_to_get_a_link_and_never_the_link(settings: dict[str, str]) -> None:
    """Where the output is no terminal, or JSON, it is kept somewhere; a secret would be, too."""
    for may_print, more in ((False, {}), (True, {"LOG_FORMAT": "json"})):
        if may_print:
            with _at_a_terminal("main.py", "serve", **settings, **more) as (_, terminal):
                text = _read_until(terminal, b"Uvicorn running")
        else:
            with process("main.py", "serve", **settings) as server:
                text = ""
                assert server.stderr is not None
                while "Uvicorn running" not in text:
                    line = server.stderr.readline()
                    assert line
                    text += line
        assert LINK.findall(text) == []
        assert "/console/#" not in text
        (told,) = [json.loads(line) for line in text.splitlines() if "console_unused" in line]
        assert "console-link" in told["hint"]


def test_a_server_without_a_database_says_nothing_of_a_console(settings: dict[str, str]) -> None:
    """Neither a link nor a hint, because there is none."""
    with _at_a_terminal("main.py", "serve", **{**settings, "DATABASE_URL": "none"}) as (_, terminal):
        assert "console" not in _read_until(terminal, b"Uvicorn running").lower()


def test_a_cluster_at_a_terminal_prints_one_link(settings: dict[str, str]) -> None:
    """With nginx's address, and once for all its workers."""
    first = free_ports(3)
    ports = {"NGINX_PORT": str(first + 2), "CLUSTER_FIRST_PORT": str(first), "CLUSTER_WORKERS": "2"}
    with _at_a_terminal("main.py", "cluster", **settings, **ports) as (_, terminal):
        text = _read_until(terminal, b"cluster_ready")
        ((address, ticket),) = LINK.findall(text)
        assert address == f"http://localhost:{first + 2}"
        assert _enter(address, ticket) == 303


def test_the_command_prints_a_link(settings: dict[str, str]) -> None:
    """For the address that is told, whenever somebody asks. Where none is told, it says that there may be another."""
    assert "--base-url" in run("main.py", "console-link", **settings).stdout
    _somebody_signs_in(settings["DATABASE_URL"])
    printed = run("main.py", "console-link", "--base-url", "https://gateway.example/kimi/", **settings).stdout
    assert re.match(r"https://gateway\.example/kimi/console/#[A-Za-z0-9_-]{43}\n", printed)
    assert "--base-url" not in printed
    with process("main.py", "serve", **settings) as server:
        until_it_listens(server)
        address = f"http://127.0.0.1:{settings['API_PORT']}"
        assert _enter(address, printed.split()[0].rpartition("#")[2]) == 303
    ended = run("main.py", "console-link", **{**settings, "DATABASE_URL": "none"})
    assert ended.returncode == 2
    assert "DATABASE_URL" in ended.stderr
