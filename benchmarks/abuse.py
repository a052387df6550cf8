"""Clients that behave badly, and servers that are killed: what it costs, and what is lost.

    .venv/bin/python -m benchmarks.abuse [SCENARIO …]

Everything runs on this machine, in processes of its own. Prints a row for each scenario, with its figure and its bound,
and exits with 1 if a bound is broken.
"""

import asyncio
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks.bounds import Row, Scenario, chosen, run
from benchmarks.processes import ROOT, free_port
from benchmarks.soak import KEY, connected, process, until_up, workers_of
from tests.ports import free_ports

_LONGEST = 180.0
_HEADERS = {"Authorization": f"Bearer {KEY}"}
_HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n".encode()


@dataclass(slots=True)
class Gateway:
    """A worker as `serve` runs it, in front of a simulated site."""

    port: int
    pid: int
    session: httpx.AsyncClient
    site: str
    delays: list[float] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def megabytes(self) -> float:
        return resident_megabytes(self.pid)

    @property
    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))  # noqa: PTH208 - counted, not opened

    async def ask(self) -> float:
        """The seconds that a good client waits for its answer."""
        started = time.monotonic()
        body = {"messages": [{"role": "user", "content": "Hello"}]}
        response = await self.session.post(f"{self.url}/v1/chat/completions", json=body, headers=_HEADERS)
        response.raise_for_status()
        return time.monotonic() - started

    async def slowest_answer_until(self, done: Callable[[], bool]) -> float:
        """The longest that a good client waits while others misbehave."""
        slowest = 0.0
        while not done():
            slowest = max(slowest, await self.ask())
            await asyncio.sleep(0.05)
        return slowest


@asynccontextmanager
async def gateway(**settings: str) -> AsyncGenerator[Gateway, None]:
    """Run a site and a worker."""
    site_port, port = free_port(), free_port()
    site = f"http://127.0.0.1:{site_port}"
    environment = {
        "API_MASTER_KEY": KEY,
        "API_PORT": str(port),
        "CHAT_PAGE_URL": f"{site}/chat/",
        "TYPING_DELAY_SECONDS": "0",
        **settings,
    }
    async with connected() as session:
        with process("simulator", "--port", str(site_port)):
            await until_up(session, f"{site}/_simulator")
            with process("serve", **environment) as running:
                await until_up(session, f"http://127.0.0.1:{port}/health")
                worker = Gateway(port, running.pid, session, site)
                for _ in range(20):
                    await worker.ask()
                yield worker


def resident_megabytes(pid: int) -> float:
    """The memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


async def endless_head() -> list[Row]:
    """One header that never ends, as fast as it is read."""
    async with gateway() as worker:
        before = worker.megabytes
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
        writer.write(b"GET / HTTP/1.1\r\nX-Endless: ")
        sent = 0
        with suppress(OSError):
            while sent < 512 * 1024 * 1024 and not reader.at_eof():
                writer.write(b"a" * 65536)
                await writer.drain()
                sent += 65536
        writer.close()
        slowest = await worker.ask()
        return [
            Row("endless header: memory", worker.megabytes - before, "MB", 5),
            Row("endless header: bytes taken before the end", sent / 1024, "KiB", 8192),
            Row("endless header: an answer to somebody else", slowest * 1000, "ms", 250),
        ]


async def idle_connections() -> list[Row]:
    """10,000 connections that say nothing."""
    async with gateway(CLIENT_TIMEOUT_SECONDS="20") as worker:
        before, files = worker.megabytes, worker.open_files
        connections: list[socket.socket] = []
        for _ in range(10_000):
            connection = socket.socket()
            connection.setblocking(False)
            with suppress(BlockingIOError):
                connection.connect(("127.0.0.1", worker.port))
            connections.append(connection)
            if len(connections) % 500 == 0:
                await asyncio.sleep(0.05)
        slowest = max([await worker.ask() for _ in range(20)])
        await asyncio.sleep(3)  # the kernel asks again for those that found its queue full
        during, open_files = worker.megabytes, worker.open_files - files
        started = time.monotonic()
        await worker.slowest_answer_until(lambda: worker.open_files <= files + 50 or time.monotonic() - started > 60)
        ended = time.monotonic() - started
        for connection in connections:
            connection.close()
        return [
            Row("10,000 idle connections: missing", 10_000 - open_files, "connections", 50),
            Row("10,000 idle connections: memory of each", (during - before) * 1024 / 10_000, "KiB", 8),
            Row("10,000 idle connections: an answer to somebody else", slowest * 1000, "ms", 250),
            Row("10,000 idle connections: seconds until they are gone", ended, "s", 40),
        ]


async def slow_heads() -> list[Row]:
    """500 clients that send a byte of their head each second."""
    async with gateway(CLIENT_TIMEOUT_SECONDS="5") as worker:
        files = worker.open_files
        writers = [(await asyncio.open_connection("127.0.0.1", worker.port))[1] for _ in range(500)]

        async def trickle(writer: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                for byte in _HEAD * 5:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(1)

        tasks = [asyncio.create_task(trickle(writer)) for writer in writers]
        started = time.monotonic()
        slowest = await worker.slowest_answer_until(
            lambda: worker.open_files <= files + 5 or time.monotonic() - started > 30
        )
        ended = time.monotonic() - started
        for task in tasks:
            task.cancel()
        return [
            Row("500 slow heads: an answer to somebody else", slowest * 1000, "ms", 250),
            Row("500 slow heads: seconds until they are gone (CLIENT_TIMEOUT_SECONDS=5)", ended, "s", 10),
        ]


async def slow_readers() -> list[Row]:
    """200 clients that ask for 1 MiB each and never read it, half of them streamed."""
    async with gateway(STREAM_WRITE_TIMEOUT="5", UPSTREAM_CONCURRENCY="250") as worker:
        await worker.session.patch(f"{worker.site}/_simulator", json={"reply": "x" * 1024 * 1024})
        before, files = worker.megabytes, worker.open_files
        connections = []
        for number in range(200):
            body = json.dumps({"messages": [{"role": "user", "content": "Hi"}], "stream": number % 2 == 0}).encode()
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", worker.port))
            connection.sendall(_HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            connections.append(connection)
            await asyncio.sleep(0.005)
        await asyncio.sleep(3)
        during = worker.megabytes
        await worker.session.patch(f"{worker.site}/_simulator", json={"reply": "Hello."})
        started = time.monotonic()
        slowest = await worker.slowest_answer_until(
            lambda: worker.open_files <= files + 5 or time.monotonic() - started > 30
        )
        ended = time.monotonic() - started
        for connection in connections:
            connection.close()
        return [
            Row("200 clients that never read 1 MiB: memory of each", (during - before) / 200, "MiB", 2.5),
            Row("200 clients that never read 1 MiB: an answer to somebody else", slowest * 1000, "ms", 500),
            Row("200 clients that never read 1 MiB: seconds until they are gone (timeout 5 s)", ended, "s", 20),
        ]


# ── Kills and restarts ───────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Talk:
    """What the clients of one run have been told."""

    answered: dict[str, list[str]] = field(default_factory=dict)
    failures: int = 0
    slowest: float = 0.0


async def _talk(session: httpx.AsyncClient, url: str, name: str, talk: Talk, until: Callable[[], bool]) -> None:
    """A session, turn by turn. A request that fails is sent again, as SDKs do."""
    told = talk.answered.setdefault(name, [])
    while not until():
        text = f"{name} turn {len(told)}"
        body = {"messages": [{"role": "user", "content": text}]}
        started, attempt = time.monotonic(), 0
        while True:
            headers = {**_HEADERS, "X-Session-Id": name, "x-stainless-retry-count": str(attempt)}
            status = 0
            with suppress(httpx.TransportError):
                status = (await session.post(f"{url}/v1/chat/completions", json=body, headers=headers)).status_code
            if status == 200:
                break
            talk.failures += 1
            attempt += 1
            await asyncio.sleep(0.1)
        told.append(text)
        talk.slowest = max(talk.slowest, time.monotonic() - started)
        await asyncio.sleep(0.05)


async def _under_load(trouble: Callable[[dict[str, int], "Redis"], Awaitable[None]], name: str) -> list[Row]:
    """24 sessions through a cluster of three workers with a Redis, while there is trouble."""
    with tempfile.TemporaryDirectory() as folder:
        redis = Redis(Path(folder))
        redis.start()
        site_port, port = free_port(), free_port()
        first = free_ports(3)
        settings = {
            "API_MASTER_KEY": KEY,
            "CHAT_PAGE_URL": f"http://127.0.0.1:{site_port}/chat/",
            "SESSION_STORE_URL": f"redis://127.0.0.1:{redis.port}/0",
            "NGINX_PORT": str(port),
            "CLUSTER_FIRST_PORT": str(first),
            "TYPING_DELAY_SECONDS": "0",
            "CONTEXT_MAX_LENGTH": "1000000",
            "SESSION_LOCK_TTL": "2",
            "REQUEST_RATE": "10000r/s",
            "ADDRESS_RATE": "10000r/s",
        }
        site = f"http://127.0.0.1:{site_port}/_simulator"
        talk, ended = Talk(), False
        with process("simulator", "--port", str(site_port)), process("cluster", **settings) as cluster:
            async with connected() as session:
                await until_up(session, site)
                await session.patch(site, json={"char_limit": 0, "latency_s": 0.02})
                await until_up(session, f"http://127.0.0.1:{port}/health")
                url = f"http://127.0.0.1:{port}"
                tasks = [
                    asyncio.create_task(_talk(session, url, f"s{number}", talk, lambda: ended)) for number in range(24)
                ]
                await trouble({"cluster": cluster.pid}, redis)
                ended = True
                await asyncio.gather(*tasks)
                lost, doubled = await _compared(session, url, talk)
        redis.stop()
        turns = sum(map(len, talk.answered.values()))
        print(f"{name}: {turns} turns answered, {talk.failures} attempts failed and were sent again", flush=True)
        return [
            Row(f"{name}: turns lost", lost, "turns", 0),
            Row(f"{name}: turns doubled", doubled, "turns", 0),
            Row(f"{name}: longest wait for a turn", talk.slowest, "s", 20),
        ]


async def _compared(session: httpx.AsyncClient, url: str, talk: Talk) -> tuple[int, int]:
    """How many turns that were answered aren't remembered, and how many are remembered twice."""
    lost = doubled = 0
    for name, told in talk.answered.items():
        answer = await session.get(f"{url}/v1/sessions/{name}", headers=_HEADERS)
        messages = [message["content"] for message in answer.json()["messages"][::2]]
        lost += len(set(told) - set(messages))
        doubled += len(messages) - len(set(messages))
    return lost, doubled


async def kills() -> list[Row]:
    """13 kills of workers in 40 s, under load."""

    async def trouble(pids: dict[str, int], _: "Redis") -> None:
        for _number in range(13):
            await asyncio.sleep(3)
            workers = workers_of(pids["cluster"])
            if workers:
                os.kill(random.choice(workers), signal.SIGKILL)
        await asyncio.sleep(3)

    return await _under_load(trouble, "13 kills in 40 s")


async def redis_restarts() -> list[Row]:
    """Redis killed and started again 5 times, under load."""

    async def trouble(_: dict[str, int], redis: "Redis") -> None:
        for _number in range(5):
            await asyncio.sleep(4)
            redis.kill()
            await asyncio.sleep(1)
            redis.start()
        await asyncio.sleep(4)

    return await _under_load(trouble, "5 restarts of Redis")


class Redis:
    """A redis-server of the benchmark's own, which keeps what it was told."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--dir", str(self._folder), "--save", ""]
        self._running = subprocess.Popen(
            [*command, "--appendonly", "yes", "--appendfsync", "always", "--bind", "127.0.0.1"],
            stdout=subprocess.DEVNULL,
        )

    def kill(self) -> None:
        if self._running is not None:
            self._running.kill()
            self._running.wait()

    def stop(self) -> None:
        self.kill()


SCENARIOS: dict[str, Scenario] = {
    "endless-head": endless_head,
    "idle-connections": idle_connections,
    "slow-heads": slow_heads,
    "slow-readers": slow_readers,
    "kills": kills,
    "redis-restarts": redis_restarts,
}


def main() -> int:
    """The command line."""
    names = chosen(__doc__, SCENARIOS)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.chdir(ROOT)
    return asyncio.run(run(SCENARIOS, names, longest=_LONGEST))


if __name__ == "__main__":
    sys.exit(main())
