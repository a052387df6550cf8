"""No secret is ever logged, stored or answered.

Each test's part of the log is searched when the test ends, which is tried out here; and all that a worker of its own
writes and answers is searched once for everything that is secret.
"""

import json
import re
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from app.api.wire.addresses import GENERATE
from simulator.live import LiveSimulator
from tests import databases
from tests.addresses import address
from tests.conftest import RunLog
from tests.live import ALICE_KEY, BOB_KEY, NO_TLS, UPSTREAM_KEY
from tests.ports import free_port
from tests.processes import process
from tests.test_cli import run

shared_postgres = databases.shared_postgres
database_url = databases.database_url

_PATIENCE = 60.0


def test_what_is_searched_is_the_log(client: httpx.Client, run_log: RunLog) -> None:
    """The file that is searched after each test has the line of a request that was just answered."""
    begin = run_log.path.stat().st_size
    client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hello"}]})
    run_log.stream.flush()
    assert b'"path":"/v1/chat/completions"' in run_log.path.read_bytes()[begin:]


@pytest.mark.parametrize("kind", ["key", "nonce"])
def test_a_secret_in_the_log_is_found(site: LiveSimulator, client: httpx.Client, tmp_path: Path, kind: str) -> None:
    """A test whose gateway logs a key, or a nonce that the site handed out meanwhile, fails."""
    client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hello"}]})
    (nonce,) = site.site.issued_nonces
    log = RunLog(tmp_path / "gateway.log")
    guard = log.keeps_secrets_of(site)
    with log.stream, pytest.raises(AssertionError, match="secrets in the log"), guard:
        log.stream.write(f"innocent words, {ALICE_KEY if kind == 'key' else nonce}")


class _Worker:
    """A worker in a process of its own, and all that it has said and answered.

    Args:
        base_url: Where it listens.
        settings: Its settings, for commands beside it.
    """

    def __init__(self, base_url: str, settings: dict[str, str]) -> None:
        self.base_url = base_url
        self.settings = settings
        self.client = httpx.Client(base_url=base_url, timeout=_PATIENCE, trust_env=False, verify=NO_TLS)
        # Where each text is from, and the text.
        self.said: list[tuple[str, str]] = []

    def ask(self, method: str, path: str, key: str | None, body: object = None, **headers: str) -> httpx.Response:
        """One request, whose answer is kept, headers and all."""
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        response = self.client.request(method, path, content=content, headers=headers)
        self.said.append((f"{method} {path}", f"{response.headers.raw} {response.text}"))
        return response

    def command(self, *arguments: str) -> str:
        """What a command prints."""
        done = run("main.py", *arguments, **self.settings)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def shown(self, *arguments: str) -> None:
        """The same, kept."""
        self.said.append((" ".join(arguments), self.command(*arguments)))


@contextmanager
def _worker(settings: dict[str, str]) -> Iterator[_Worker]:
    """Run a worker, and keep what it writes to stdout and stderr."""
    port = free_port()
    settings = {**settings, "API_HOST": "127.0.0.1", "API_PORT": str(port)}
    worker = _Worker(f"http://127.0.0.1:{port}", settings)
    with process("main.py", "serve", **settings) as running:
        readers = [
            threading.Thread(target=lambda stream=stream: worker.said.append(("log", stream.read())), daemon=True)
            for stream in (running.stdout, running.stderr)
        ]
        for reader in readers:
            reader.start()
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                worker.client.get("/health")
                break
            except httpx.TransportError:
                assert running.poll() is None
                assert time.monotonic() < end
                time.sleep(0.05)
        with closing(worker.client):
            yield worker
        running.send_signal(signal.SIGTERM)
        running.wait(_PATIENCE)
        for reader in readers:
            reader.join(_PATIENCE)


def _with_password(url: str, password: str) -> str:
    """The address with a password, which the tests' PostgreSQL doesn't ask for."""
    return re.sub(r"//(\w+)@", rf"//\1:{quote(password)}@", url)


def _bodies(text: str, model: str) -> dict[str, dict[str, object]]:
    messages = [{"role": "user", "content": text}]
    return {
        "/v1/chat/completions": {"messages": messages, "model": model},
        "/v1/completions": {"prompt": text, "model": model},
        "/v1/responses": {"input": text, "model": model},
        "/v1/messages": {"messages": messages, "max_tokens": 100, "model": model},
        address(GENERATE, model): {"contents": [{"parts": [{"text": text}]}]},
        address(GENERATE, model, stream=True): {"contents": [{"parts": [{"text": text}]}]},
    }


def _call(worker: _Worker, keys: Sequence[str | None], text: str, session: str) -> None:
    """Calls with each key, to upstreams of either kind, whole and streamed, and what is no call."""
    for key in keys:
        for model in ("kimi", "moonshot/kimi-latest", "nonsense"):
            for path, body in _bodies(text, model).items():
                for streamed in (False, True):
                    worker.ask("POST", path, key, {**body, "stream": streamed}, **{"X-Session-Id": session})
                worker.ask("POST", path, key, json.dumps(body).encode()[:-1])


def _look(worker: _Worker, keys: Sequence[str | None], query: str) -> None:
    """All pages and lists, with each key, and with one where it doesn't belong."""
    for key in keys:
        for path in (
            *("/", "/docs", "/openapi.json", "/health", "/ready", "/metrics", "/nowhere"),
            *("/v1/models", "/v1/models/none", "/v1/key", "/v1/sessions/none", "/v1/chat/completions"),
        ):
            worker.ask("GET", path, key, Accept="text/html" if path == "/" else "*/*")
        worker.ask("GET", f"/v1/models?key={query}", key)


@pytest.mark.timeout(300)
def test_no_secret_is_in_anything_that_a_worker_writes_or_answers(
    site: LiveSimulator, database_url: str, tmp_path: Path
) -> None:
    """Its log at DEBUG, its pages and answers, commands, database, journal and backup, through good calls and bad."""
    password = f"p@ss/{secrets.token_hex(8)}"
    metrics_key, wrong_key = f"sk-metrics-{secrets.token_hex(8)}", f"sk-wrong-{secrets.token_hex(8)}"
    text, session, reply = (f"{what}-{secrets.token_hex(8)}" for what in ("question", "session", "reply"))
    site.site.update(api_key=UPSTREAM_KEY, reply=f"It is {reply}.")
    settings = {
        "API_MASTER_KEY": f"{ALICE_KEY},{BOB_KEY}",
        "METRICS_KEY": metrics_key,
        "MOONSHOT_API_KEY": UPSTREAM_KEY,
        "MOONSHOT_BASE_URL": site.api_url,
        "CHAT_PAGE_URL": site.page_url,
        "DATABASE_URL": _with_password(database_url, password),
        "JOURNAL_DIR": str(tmp_path / "journal"),
        "LOG_LEVEL": "DEBUG",
        "LOG_FORMAT": "json",
        "TYPING_DELAY_SECONDS": "0",
        "MAX_RETRIES": "0",
    }
    kept = tmp_path / "kept"
    kept.mkdir()
    with _worker(settings) as worker:
        old = worker.command("keys", "create", "ada").split()
        issued = [word for word in old if word.startswith("sk-kimi-")]
        new = worker.command("keys", "rotate", "ada", "--grace", "1h").split()
        issued += [word for word in new if word.startswith("sk-kimi-")]
        revoked = worker.command("keys", "create", "bob").split()
        issued += [word for word in revoked if word.startswith("sk-kimi-")]
        assert len(issued) == 3
        worker.command("keys", "revoke", "bob")
        typo = issued[0][:-1] + ("0" if issued[0][-1] != "0" else "1")
        _call(worker, (ALICE_KEY, *issued, typo, wrong_key, metrics_key, UPSTREAM_KEY, None), text, session)
        for failure in ("openai_key", "reset_mid_answer", "error_mid_answer", "html"):
            site.site.update(api_failure=failure)
            for path, body in _bodies(text, "moonshot/kimi-latest").items():
                worker.ask("POST", path, issued[1], {**body, "stream": True})
        _look(worker, (ALICE_KEY, *issued, metrics_key, wrong_key, None), query=issued[0])
        for file in (tmp_path / "journal").iterdir():  # they are deleted when the worker ends
            shutil.copy(file, kept)
        worker.shown("keys", "list", "--all", "--json")
        worker.shown("keys", "show", "ada")
        worker.shown("usage", "--json")
        worker.shown("requests", "--json", "--limit", "1000")
        worker.shown("database", "check")
        worker.shown("database", "backup", str(kept / "backup.db"))
        for file in tmp_path.glob("gateway.db*"):  # with what stands in the log of SQLite alone
            shutil.copy(file, kept)
        worker.said.append(("doctor", str(run("main.py", "doctor", **worker.settings))))
    keys = {ALICE_KEY, BOB_KEY, UPSTREAM_KEY, metrics_key, wrong_key, typo, password, quote(password), *issued}
    # All but the ends of a key, which its hint tells.
    keys |= {key[len("sk-kimi-") + 4 : -4] for key in issued}
    texts = {text, reply, session}
    files = [path for folder in (kept, tmp_path / "journal") for path in folder.iterdir()]
    files += list(tmp_path.glob("gateway.db*"))
    assert {"backup.db"} < {path.name for path in files}
    assert any(b"moonshot" in path.read_bytes() for path in kept.glob("*.journal"))
    assert any(reply in answer for _, answer in worker.said), "the calls were answered"
    assert any('"outcome":"completed"' in log for place, log in worker.said if place == "log")
    nonces = site.site.issued_nonces
    found = [(path.name, secret) for path in files for secret in keys | texts | nonces
             if secret.encode() in path.read_bytes()]  # fmt: skip
    for place, words in worker.said:
        # An answer has the texts of its own conversation.
        hidden = keys | nonces | (texts if place in ("log", "GET /metrics") or place.startswith("requests") else set())
        # A wrong address is told to whoever asked for it.
        found += [(place, secret) for secret in hidden if secret in words and secret not in place]
    assert found == []
