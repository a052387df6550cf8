"""SIGHUP: settings and files are read anew; wrong ones are refused, and the old ones hold on."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from simulator.live import LiveSimulator
from tests.cluster.running import ROOT, cluster
from tests.live import ALICE_KEY, NO_TLS, WAIT_SECONDS, until
from tests.ports import free_port

_RIGHT = '[[providers]]\nname = "gpu"\nbase_url = "{url}"\nmodels = ["{model}"]\n'
_WRONG = '[[providers]]\nname = "gpu"\nbase_url = "nowhere"\n'


def _ask(client: httpx.Client, model: str) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    return client.post("/v1/chat/completions", json=body).status_code


def test_a_cluster_reads_its_file_anew_unless_that_is_wrong(site: LiveSimulator, tmp_path: Path) -> None:
    """A wrong one is told by table and field and replaces no worker; a right one holds, and no request is lost."""
    file = tmp_path / "providers.toml"
    file.write_text(_RIGHT.format(url=site.api_url, model="old"), "utf-8")
    with cluster(site.page_url, workers=2, PROVIDERS_FILE=str(file)) as running, running.client() as client:
        workers = [running.pid_of(f"worker-{number}") for number in (1, 2)]
        file.write_text(_WRONG, "utf-8")
        running.process.send_signal(signal.SIGHUP)
        refused = running.wait_for("settings_refused")
        assert "providers[0] (gpu).base_url: must be an http:// or https:// address" in refused["reason"]
        assert [running.pid_of(f"worker-{number}") for number in (1, 2)] == workers
        assert _ask(client, "old") == 200
        file.write_text(_RIGHT.format(url=site.api_url, model="new"), "utf-8")
        running.process.send_signal(signal.SIGHUP)
        running.wait_for("workers_replaced")
        assert (_ask(client, "new"), _ask(client, "old")) == (200, 404)


class _Single:
    """A server by itself in a folder with its `.env`, under load."""

    def __init__(self, folder: Path, site: LiveSimulator) -> None:
        self._folder = folder
        self._log = folder / "log"
        self._lines = [
            f"API_MASTER_KEY={ALICE_KEY}",
            f"CHAT_PAGE_URL={site.page_url}",
            "DRAIN_SECONDS=0.1",
            "MAX_LOOP_LAG_SECONDS=30",  # tests may run on a busy machine
            f"API_PORT={(port := free_port())}",
            "DATABASE_URL=none",
            "LOG_FORMAT=json",
        ]
        self._address = f"http://127.0.0.1:{port}"

    def write(self, *more: str) -> None:
        """Write `.env` anew."""
        (self._folder / ".env").write_text("\n".join([*self._lines, *more, ""]), "utf-8")

    def hang_up(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def said(self, words: str, times: int = 1) -> bool:
        """Whether its log has these words so often, or nothing is left to wait for, as it has ended."""
        return self._log.read_text().count(words) >= times or self.process.poll() is not None

    def ask(self, model: str) -> int:
        """The status of a call. It has a connection of its own: those that are open end with the old process."""
        with httpx.Client(base_url=self._address, timeout=WAIT_SECONDS, verify=NO_TLS) as client:
            client.headers["authorization"] = f"Bearer {ALICE_KEY}"
            return _ask(client, model)

    @contextmanager
    def under_load(self) -> Iterator[None]:
        """Two clients ask again and again meanwhile, and each is answered."""
        stop = threading.Event()

        def load() -> set[int]:
            statuses = set()
            while not stop.is_set():
                statuses.add(self.ask("kimi"))
            return statuses

        with ThreadPoolExecutor(2) as pool:
            loads = [pool.submit(load) for _ in range(2)]
            try:
                yield
            finally:
                stop.set()
            assert set().union(*(one.result() for one in loads)) == {200}

    @contextmanager
    def running(self) -> Iterator[None]:
        command = [sys.executable, str(ROOT / "main.py"), "serve"]
        environment = {"PATH": os.environ["PATH"]}
        with self._log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=self._folder, env=environment, stdout=log, stderr=log)
        try:
            until(lambda: self.said("Uvicorn running"))
            yield
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(WAIT_SECONDS)
        finally:
            self.process.kill()
            self.process.wait()
            print(self._log.read_text()[-3000:])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")
def test_a_single_server_reads_env_anew_unless_that_is_wrong(site: LiveSimulator, tmp_path: Path) -> None:
    """The process goes on with the same number and socket; who connects meanwhile is answered. What is written when a
    signal comes holds, also where the signal comes while settings are checked or one process gives way to the next."""
    single = _Single(tmp_path, site)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    single.write()
    with single.running(), single.under_load():
        single.write("MAX_RETRIES=many")
        single.hang_up()
        until(lambda: single.said("settings_refused"))
        assert single.said("MAX_RETRIES")
        # A pipe in the place of a file holds the check until the test opens it, too.
        single.write(f"PROVIDERS_FILE={pipe}")
        single.hang_up()
        with pipe.open("w") as being_checked:
            single.write("MODEL_ROUTES=fresh=kimi-k2-instruct")
            single.hang_up()
            being_checked.write(_WRONG)
        until(lambda: single.said("settings_refused", times=2))
        until(lambda: single.said("Finished server process"))
        single.write("MODEL_ROUTES=fresher=kimi-k2-instruct")
        single.hang_up()
        until(lambda: single.ask("fresher") == 200)
