"""A whole cluster for tests: nginx and workers, started by the command that users start."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import httpx

from tests.live import ALICE_KEY
from tests.ports import free_ports

ROOT = Path(__file__).parent.parent.parent
WAIT_SECONDS = 60.0


class Cluster:
    """A running `main.py cluster`, and the log lines that it has written."""

    def __init__(self, process: subprocess.Popen[str], port: int, scheme: str) -> None:
        self.process = process
        self.base_url = f"{scheme}://127.0.0.1:{port}"
        self.port = port
        self.lines: list[Any] = []
        self._fresh: SimpleQueue[Any] = SimpleQueue()
        for stream in (process.stdout, process.stderr):
            threading.Thread(target=self._follow, args=(stream,), daemon=True).start()

    def wait_for(self, event: str | None, **facts: object) -> dict[str, Any]:
        """The next log line of an event with these facts; lines before it are skipped. Those of nginx have none."""
        while True:
            try:
                line = self._fresh.get(timeout=WAIT_SECONDS)
            except Empty:
                raise AssertionError(f"no {event} in the log: {self.lines[-20:]}") from None
            if line.get("event") == "ended" and event != "ended":
                raise AssertionError(f"the cluster ended before {event}: {self.lines[-20:]}")
            if line.get("event") == event and all(line.get(name) == value for name, value in facts.items()):
                return dict(line)

    def client(self, key: str = ALICE_KEY, **options: Any) -> httpx.Client:
        """An HTTP client that talks to nginx."""
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.base_url, headers=headers, timeout=30, trust_env=False, **options)

    def pid_of(self, name: str) -> int:
        """The process that is running under a name, such as `worker-1`."""
        started = [line for line in self.lines if line.get("event") == "process_started" and line["name"] == name]
        return int(started[-1]["pid"])

    def _follow(self, stream: Any) -> None:
        """Read lines to the stream's end, which is the process's."""
        with stream:
            for text in stream:
                try:
                    line = json.loads(text)
                except ValueError:
                    line = {"event": "text", "text": text}
                self.lines.append(line)
                self._fresh.put(line)
        self._fresh.put({"event": "ended"})


@contextmanager
def cluster(page_url: str, *, workers: int = 3, scheme: str = "http", **settings: str) -> Iterator[Cluster]:
    """Run a cluster until the context ends."""
    port = free_ports(workers + 2)
    environment = {
        name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "DATABASE_URL")
    } | {
        "API_MASTER_KEY": f"{ALICE_KEY},sk-bob-b81d03e65fa9",
        "CHAT_PAGE_URL": page_url,
        "NGINX_PORT": str(port),
        "CLUSTER_WORKERS": str(workers),
        "CLUSTER_FIRST_PORT": str(port + 1),
        "TYPING_DELAY_SECONDS": "0",
        "REQUEST_RATE": "10000r/s",
        "ADDRESS_RATE": "10000r/s",
        "DRAIN_SECONDS": "0.2",
        "SHUTDOWN_GRACE_SECONDS": "10",
        "MAX_LOOP_LAG_SECONDS": "30",  # tests may run on a busy machine
        **settings,
    }
    process = subprocess.Popen(
        [sys.executable, "main.py", "cluster"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    running = Cluster(process, port, scheme)
    try:
        running.wait_for("cluster_ready")
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(WAIT_SECONDS)
        finally:
            process.kill()
