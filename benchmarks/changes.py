"""Hammers three workers while upstreams are added, changed and removed, and counts the requests that fail.

    python -m benchmarks.changes            100 times
    python -m benchmarks.changes --times 10

The workers share a database. Each change is made at another worker than the one before; every request, whole or
streamed, is for a route that leads through upstreams that come and go.
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx

from benchmarks.processes import ROOT, free_port
from simulator.behaviour import Behaviour
from simulator.live import running
from tests.live import until

_KEY, _UPSTREAM_KEY = "sk-changes-5d7e02aa91", "sk-of-an-upstream-0cc41f"
_WORKERS, _CALLERS_OF_EACH = 3, 2
_LATENCY_SECONDS = 0.02


def main() -> int:
    """Run it; the exit status is 1 if a request failed, or a change took longer than two seconds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.changes", description=__doc__)
    parser.add_argument("--times", type=int, default=100, help="how often (100)")
    times = parser.parse_args().times
    with running(Behaviour(api_latency_s=_LATENCY_SECONDS)) as site, tempfile.TemporaryDirectory() as folder:
        settings = _settings(Path(folder), site.page_url)
        admin_key = _made_key(settings)
        with ExitStack() as stack:
            addresses = [stack.enter_context(_worker(settings, number)) for number in range(_WORKERS)]
            counts, slowest = _hammered(addresses, admin_key, site.api_url, times)
    failed = {what: count for what, count in counts.items() if what != "ok"}
    print(f"{times} rounds of changes, {counts.total()} requests at {_WORKERS} workers, {sum(failed.values())} failed")
    print(f"all workers had followed a change after {slowest:.2f} s at most")
    for what, count in failed.items():
        print(f"{count} × {what}")
    return int(bool(failed) or slowest > 2)


def _settings(folder: Path, page_url: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "API_MASTER_KEY": _KEY,
        "SECRET_KEY": "s" * 44,
        "CHAT_PAGE_URL": page_url,
        "DATABASE_URL": f"sqlite:///{folder}/gateway.db",
        "JOURNAL_DIR": str(folder / "journal"),
        "LOG_LEVEL": "ERROR",
        "TYPING_DELAY_SECONDS": "0",
    }


def _made_key(settings: dict[str, str]) -> str:
    command = [sys.executable, "main.py", "keys", "create", "operator", "--scopes", "admin", "--json"]
    made = subprocess.run(command, cwd=ROOT, env=settings, check=True, capture_output=True, text=True)
    return str(httpx.Response(200, content=made.stdout).json()["secret"])


@contextmanager
def _worker(settings: dict[str, str], number: int) -> Iterator[str]:
    """A worker that runs, and its address."""
    port = free_port()
    environment = {**settings, "API_PORT": str(port), "WORKER_ID": str(number)}
    with subprocess.Popen([sys.executable, "main.py", "serve"], cwd=ROOT, env=environment) as process:
        try:
            until(lambda: _answers(port))
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).is_success
    return False


def _hammered(addresses: Sequence[str], admin_key: str, api_url: str, times: int) -> tuple[Counter[str], float]:
    """What became of all requests, and the longest time until all workers had followed a change."""
    ended = threading.Event()
    admins = [_client(f"{address}/admin/v1", admin_key) for address in addresses]
    turns = itertools.cycle(admins)
    entry = {"base_url": api_url, "any_model": True, "key": _UPSTREAM_KEY}
    for name in ("a", "b"):
        next(turns).post("/upstreams", json={**entry, "name": name}).raise_for_status()
    next(turns).put("/routes/live", json={"targets": ["a/m", "b/m"]}).raise_for_status()
    for admin in admins:
        until(lambda admin=admin: admin.get("/routes/answer", params={"model": "live"}).json()["targets"])  # type: ignore[misc]  # mypy can't infer a lambda with defaults
    slowest = 0.0
    with ThreadPoolExecutor(len(addresses) * _CALLERS_OF_EACH) as pool:
        calls = [pool.submit(_call, address, ended) for address in addresses for _ in range(_CALLERS_OF_EACH)]
        try:
            for number in range(times):
                name, other = f"c{number}", ("a", "b")[number % 2]
                next(turns).post("/upstreams", json={**entry, "name": name}).raise_for_status()
                slowest = max(slowest, _followed(admins, name, there=True))
                targets = [f"{name}/m", "a/m", "b/m"]
                next(turns).put("/routes/live", json={"targets": targets}).raise_for_status()
                next(turns).patch(f"/upstreams/{other}", json={"timeout": 60 + number % 7}).raise_for_status()
                next(turns).patch(f"/upstreams/{other}", json={"position": 1}).raise_for_status()
                next(turns).put("/routes/live", json={"targets": {"a/m": 1, "b/m": 2}}).raise_for_status()
                next(turns).delete(f"/upstreams/{name}").raise_for_status()
                slowest = max(slowest, _followed(admins, name, there=False))
        finally:
            ended.set()
        counts: Counter[str] = Counter()
        for call in calls:
            counts += call.result()
    return counts, slowest


def _followed(admins: Sequence[httpx.Client], name: str, *, there: bool) -> float:
    """Seconds until all workers had an upstream, or had it no more."""
    begin = time.monotonic()
    for admin in admins:
        until(lambda admin=admin: _has(admin, name) is there)  # type: ignore[misc]
    return time.monotonic() - begin


def _has(admin: httpx.Client, name: str) -> bool:
    return any(one["name"] == name and one["ready"] for one in admin.get("/upstreams").json()["data"])


def _call(address: str, ended: threading.Event) -> Counter[str]:
    """Requests until the end, and what became of them."""
    counts: Counter[str] = Counter()
    with _client(address, _KEY) as client:
        for number in itertools.count():
            if ended.is_set():
                return counts
            stream = number % 2 == 0
            body = {"model": "live", "messages": [{"role": "user", "content": "Hello"}], "stream": stream}
            response = client.post("/v1/chat/completions", json=body)
            whole = not stream or response.text.rstrip().endswith("data: [DONE]")
            good = response.status_code == 200 and whole
            counts["ok" if good else f"{response.status_code} {response.text[-200:]}"] += 1
    raise AssertionError("a loop without an end has ended")


def _client(address: str, key: str) -> httpx.Client:
    return httpx.Client(base_url=address, headers={"authorization": f"Bearer {key}"}, timeout=60, trust_env=False)


if __name__ == "__main__":
    sys.exit(main())
