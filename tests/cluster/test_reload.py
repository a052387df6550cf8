"""SIGHUP: settings and files are read anew; wrong ones are refused, and the old ones hold on."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
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


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")
def test_a_single_server_reads_env_anew_unless_that_is_wrong(site: LiveSimulator, tmp_path: Path) -> None:
    """The process goes on with the same number and socket; who connects meanwhile is answered. A signal that comes
    before the new one is ready waits for it."""
    port = free_port()
    lines = [f"API_MASTER_KEY={ALICE_KEY}", f"CHAT_PAGE_URL={site.page_url}", "DRAIN_SECONDS=0.1", f"API_PORT={port}"]
    settings = tmp_path / ".env"

    def write(*more: str) -> None:
        settings.write_text("\n".join([*lines, *more, "DATABASE_URL=none", "LOG_FORMAT=json", ""]), "utf-8")

    write()
    log = tmp_path / "log"
    with log.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "main.py"), "serve"],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"]},
            stdout=said,
            stderr=said,
        )
    stop = threading.Event()

    def load() -> set[int]:
        statuses = set()
        # A connection each: those that are open end with the old process.
        while not stop.is_set():
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_SECONDS, verify=NO_TLS) as client:
                client.headers["authorization"] = f"Bearer {ALICE_KEY}"
                statuses.add(_ask(client, "kimi"))
        return statuses

    try:
        until(lambda: "Uvicorn running" in log.read_text() or process.poll() is not None)
        with (
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_SECONDS, verify=NO_TLS) as client,
            ThreadPoolExecutor(2) as pool,
        ):
            client.headers["authorization"] = f"Bearer {ALICE_KEY}"
            loads = [pool.submit(load) for _ in range(2)]
            try:
                write("MAX_RETRIES=many")
                process.send_signal(signal.SIGHUP)
                until(lambda: "settings_refused" in log.read_text())
                assert "MAX_RETRIES" in log.read_text()
                assert "reloading" not in log.read_text()
                write("MODEL_ROUTES=fresh=kimi-k2-instruct")
                process.send_signal(signal.SIGHUP)
                until(lambda: "Finished server process" in log.read_text())
                process.send_signal(signal.SIGHUP)
                until(lambda: log.read_text().count("Application startup complete") == 3 or process.poll() is not None)
                assert _ask(client, "fresh") == 200
            finally:
                stop.set()
            assert set().union(*(one.result() for one in loads)) == {200}
        process.send_signal(signal.SIGTERM)
        process.wait(WAIT_SECONDS)
    finally:
        process.kill()
        process.wait()
        print(log.read_text()[-3000:])
