"""Clients of a cluster of workers: raw connections that note of every call what they were told, and when."""

import asyncio
import json
import os
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks.processes import free_port
from benchmarks.soak import KEY, connected, process, process_telling, until_up, workers_of
from tests.ports import free_ports

_LONGEST_BODY = 1 << 20
# By dialect: where, with which field for the text, and how a stream ends.
_DIALECTS = {
    "chat": ("chat/completions", "messages", b"[DONE]"),
    "completions": ("completions", "prompt", b"[DONE]"),
    "responses": ("responses", "input", b"response.completed"),
    "anthropic": ("messages", "messages", b"message_stop"),
}
_EVENT = re.compile(r'"event":"(\w+)"')


@dataclass(frozen=True, slots=True)
class Call:
    """One call, as its client saw it.

    Args:
        request_id: Of the request.
        sent: When, by `time.monotonic`.
        seconds: Until all of the answer was there.
        status: 0 if the connection broke off before.
        body: The answer.
    """

    request_id: str
    sent: float
    seconds: float
    status: int
    body: bytes


@dataclass(slots=True)
class Cluster:
    """A cluster as `main.py cluster` runs it, in front of a simulated site.

    Args:
        pid: Of the supervisor.
        port: Of nginx.
        worker_ports: Of the workers.
        site: Where the simulated site tells of itself.
        logged: How often each event stands in the log of the supervisor and the workers.
    """

    pid: int
    port: int
    worker_ports: range
    logged: Counter[str]
    session: httpx.AsyncClient
    site: str

    @property
    def workers(self) -> list[int]:
        """The ids of the workers' processes."""
        return workers_of(self.pid)

    async def metric(self, name: str) -> float:
        """A metric's sum over all workers and labels."""
        total = 0.0
        for port in self.worker_ports:
            url = f"http://127.0.0.1:{port}/metrics"
            text = (await self.session.get(url, headers={"Authorization": f"Bearer {KEY}"})).text
            total += sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + "{"))
        return total


@asynccontextmanager
async def cluster(folder: Path, database: str, *, workers: int = 3, **settings: str) -> AsyncGenerator[Cluster, None]:
    """Run a site and a cluster, with journals and log in a folder."""
    site_port, port, first = free_port(), free_port(), free_ports(workers)
    environment = {
        "API_MASTER_KEY": KEY,
        "CHAT_PAGE_URL": f"http://127.0.0.1:{site_port}/chat/",
        "DATABASE_URL": database,
        "JOURNAL_DIR": str(folder / "journal"),
        "NGINX_PORT": str(port),
        "CLUSTER_WORKERS": str(workers),
        "CLUSTER_FIRST_PORT": str(first),
        "TYPING_DELAY_SECONDS": "0",
        "MAX_LOOP_LAG_SECONDS": "30",
        "UPSTREAM_CONCURRENCY": "500",
        "REQUEST_RATE": "100000r/s",
        "ADDRESS_RATE": "100000r/s",
        "CONNECTIONS_PER_KEY": "1000",
        "CONNECTIONS_PER_ADDRESS": "1000",
        "SESSION_FROM_USER": "false",
        "LOG_LEVEL": "WARNING",
        **settings,
    }
    site = f"http://127.0.0.1:{site_port}/_simulator"
    with (
        process("simulator", "--port", str(site_port)),
        _logged() as (output, logged),
        process_telling(output, "cluster", **environment) as supervisor,
    ):
        async with connected() as session:
            await until_up(session, site)
            await session.patch(site, json={"char_limit": 0, "latency_s": 0.02})
            for each in (port, *range(first, first + workers)):
                await until_up(session, f"http://127.0.0.1:{each}/health")
            yield Cluster(supervisor.pid, port, range(first, first + workers), logged, session, site)


@contextmanager
def _logged() -> Iterator[tuple[int, Counter[str]]]:
    """A descriptor to log to, and how often it was told of each event. No file: disks are full in these scenarios."""
    read, write = os.pipe()
    logged: Counter[str] = Counter()

    def count() -> None:
        with os.fdopen(read, errors="replace") as lines:
            logged.update(match[1] for line in lines if (match := _EVENT.search(line)))

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield write, logged
    finally:
        os.close(write)
        thread.join()


@dataclass(slots=True)
class Crowd:
    """Clients on connections of their own, each with one call after the other.

    Args:
        port: Where they call.
        keys: What they call with, turn and turn about.
        user: The `user` of their calls.
        pause: Seconds between an answer and the next call.

    Attributes:
        calls: What they were told.
        over: Set it to end them.
    """

    port: int
    keys: list[str]
    user: str = ""
    pause: float = 0.0
    calls: list[Call] = field(default_factory=list)
    over: bool = False

    @asynccontextmanager
    async def of(self, count: int) -> AsyncGenerator[None, None]:
        """So many of them call while the context lasts; all are answered at its end."""
        tasks = [asyncio.create_task(self._client(number)) for number in range(count)]
        try:
            yield
        finally:
            self.over = True
            await asyncio.gather(*tasks)

    @property
    def answered(self) -> list[str]:
        """The request ids of the calls that were answered well."""
        return [call.request_id for call in self.calls if call.status == 200]

    @property
    def outcomes(self) -> Counter[int]:
        """How many calls ended with which status."""
        return Counter(call.status for call in self.calls)

    async def _client(self, number: int) -> None:
        connection: Connection | None = None
        while not self.over:
            key = self.keys[number % len(self.keys)]
            number += 1
            try:
                if connection is None:
                    # From addresses of many networks: nginx sends all clients of one to the same worker.
                    connection = await Connection.to(self.port, f"127.0.{number % 250}.1")
                call = await connection.call(key, stream=number % 4 == 0, user=self.user)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            self.calls.append(call)
            if connection.is_over:
                connection.close()
                connection = None
            # nginx refuses at once where no worker is left: asking on would take the processor from their start.
            if pause := self.pause if call.status == 200 else max(self.pause, 0.05):
                await asyncio.sleep(pause)
        if connection is not None:
            connection.close()


class Connection:
    """A connection with one call at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.is_over = False

    @classmethod
    async def to(cls, port: int, address: str = "127.0.0.1") -> "Connection":
        """Connect to a port of this machine, from one of its addresses."""
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=_LONGEST_BODY, local_addr=(address, 0)))

    def close(self) -> None:
        """Hang up."""
        self._writer.close()

    async def call(
        self, key: str, *, stream: bool = False, user: str = "", model: str = "kimi", dialect: str = "chat"
    ) -> Call:
        """Ask, and wait for the whole answer."""
        request_id, sent = f"caller-{uuid.uuid4().hex}", time.monotonic()
        path, field_of_text, end = _DIALECTS[dialect]
        fields: dict[str, object] = {"model": model, "stream": stream}
        fields[field_of_text] = [{"role": "user", "content": "Hello"}] if field_of_text == "messages" else "Hello"
        if dialect == "anthropic":
            fields["max_tokens"] = 100
        body = json.dumps(fields | ({"user": user} if user else {}), ensure_ascii=False).encode()
        head = (
            f"POST /v1/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            f"X-Request-ID: {request_id}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        status, answer = 0, b""
        try:
            self._writer.write(head.encode() + body)
            told, answer = await self._answer()
            status = told if not stream or told != 200 or end in answer else 0
        except (OSError, asyncio.IncompleteReadError):
            self.is_over = True
        return Call(request_id, sent, time.monotonic() - sent, status, answer)

    async def _answer(self) -> tuple[int, bytes]:
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head[9:12])
        self.is_over = b"connection: close" in head
        if b"transfer-encoding: chunked" in head:
            return status, await self._reader.readuntil(b"\r\n0\r\n\r\n")
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        return status, await self._reader.readexactly(int(length))


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until something is so, and say whether it came to be in time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - what is waited for happens in other processes
                await asyncio.sleep(0.1)
            return True
    return False
