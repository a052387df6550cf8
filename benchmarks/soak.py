"""A worker under mixed load for a long time: do memory and open files stay flat?

    .venv/bin/python -m benchmarks.soak --minutes 10

Starts a simulated site and a gateway as processes of their own, on this machine. Clients chat, stream, keep sessions,
leave early and send nonsense; the site fails now and then. Twice a minute the gateway's memory and open files are read
from /proc. Prints a line for each reading, and what grew from the second quarter of the run to the last.
"""

import argparse
import asyncio
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx

from benchmarks.processes import ROOT, free_port

KEY = "sk-soak-4f9a1c77d2e0"
CLIENTS = 24
READ_EVERY = 30.0
FAILURES = ("server_error", "reset", "rate_limited", "html", "nonce_refused", "truncated_json")


@dataclass(frozen=True, slots=True)
class Reading:
    """The gateway at one moment."""

    seconds: float
    resident_kb: int
    open_files: int
    threads: int
    requests: int


def read(pid: int, started: float, requests: int) -> Reading:
    """Look at a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    files = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - counted, not opened
    resident, threads = int(status["VmRSS"].split()[0]), int(status["Threads"])
    return Reading(time.monotonic() - started, resident, files, threads, requests)


@contextmanager
def process(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """One of main.py's commands, whose output nobody reads."""
    with process_telling(subprocess.DEVNULL, *arguments, **environment) as running:
        yield running


@contextmanager
def process_telling(output: int, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """One of main.py's commands, whose output goes to a descriptor."""
    running = subprocess.Popen(
        [sys.executable, "main.py", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        stdout=output,
        stderr=output,
    )
    try:
        yield running
    finally:
        running.terminate()
        running.wait()


def workers_of(pid: int) -> list[int]:
    """The workers among a cluster's children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if b"main.py\0serve" in Path(f"/proc/{child}/cmdline").read_bytes()]


@asynccontextmanager
async def connected() -> AsyncGenerator[httpx.AsyncClient, None]:
    """A client without limits of its own."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(timeout=60, limits=limits, trust_env=False) as session:
        yield session


async def until_up(session: httpx.AsyncClient, url: str) -> None:
    """Wait until a server answers."""
    while True:
        try:
            await session.get(url)
        except httpx.TransportError:
            await asyncio.sleep(0.1)
        else:
            return


async def client(session: httpx.AsyncClient, url: str, counts: Counter[str], until: float) -> None:
    """Requests of all kinds, one after the other."""
    while time.monotonic() < until:
        kind = random.choices(("chat", "stream", "session", "leave", "nonsense"), (30, 30, 25, 10, 5))[0]
        body: dict[str, object] = {"messages": [{"role": "user", "content": "lorem 60"}]}
        if kind == "session":
            body["user"] = f"user-{random.randrange(100_000)}"
        if kind in ("stream", "leave"):
            body["stream"] = True
        if kind == "nonsense":
            body = {"messages": 5}
        try:
            headers = {"Authorization": f"Bearer {KEY}"}
            async with session.stream("POST", url, json=body, headers=headers) as response:
                if kind == "leave":
                    await anext(response.aiter_raw(), b"")
                else:
                    await response.aread()
                counts[f"{kind} {response.status_code}"] += 1
        except httpx.HTTPError as error:
            counts[f"{kind} {type(error).__name__}"] += 1


async def trouble(session: httpx.AsyncClient, site: str, until: float) -> None:
    """The site fails now and then."""
    while time.monotonic() < until:
        await asyncio.sleep(2)
        await session.patch(f"{site}/_simulator", json={"failure": random.choice(FAILURES), "failure_times": 5})


async def run(minutes: float) -> int:
    """The whole soak; returns the exit status."""
    site_port, port = free_port(), free_port()
    site = f"http://127.0.0.1:{site_port}"
    settings = {
        "API_MASTER_KEY": KEY,
        "API_PORT": str(port),
        "CHAT_PAGE_URL": f"{site}/chat/",
        "TYPING_DELAY_SECONDS": "0.005",
        "TYPING_MAX_SECONDS": "0.2",
    }
    counts: Counter[str] = Counter()
    readings: list[Reading] = []
    with process("simulator", "--port", str(site_port)), process("serve", **settings) as gateway:
        async with connected() as session:
            await until_up(session, f"{site}/_simulator")
            await until_up(session, f"http://127.0.0.1:{port}/health")
            started = time.monotonic()
            until = started + minutes * 60
            url = f"http://127.0.0.1:{port}/v1/chat/completions"
            load = [asyncio.create_task(client(session, url, counts, until)) for _ in range(CLIENTS)]
            load.append(asyncio.create_task(trouble(session, site, until)))
            while time.monotonic() < until:
                await asyncio.sleep(min(READ_EVERY, max(0.0, until - time.monotonic())))
                readings.append(read(gateway.pid, started, counts.total()))
                print(readings[-1], flush=True)
            await asyncio.gather(*load)
    print(dict(sorted(counts.items())))
    return verdict(readings)


def verdict(readings: list[Reading]) -> int:
    """What grew between the second quarter and the last."""
    quarter = max(1, len(readings) // 4)
    early, late = readings[quarter : 2 * quarter], readings[-quarter:]
    growth = median(r.resident_kb for r in late) - median(r.resident_kb for r in early)
    files = median(r.open_files for r in late) - median(r.open_files for r in early)
    print(f"{readings[-1].requests} requests; memory {growth / 1024:+.1f} MB, open files {files:+.0f}")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    sys.exit(asyncio.run(run(parser.parse_args().minutes)))
