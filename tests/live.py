"""The gateway as its users meet it: a uvicorn server with a real socket, in a thread of the test process."""

import asyncio
import json
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TextIO, TypeVar
from urllib.parse import urlsplit

import httpx
import uvicorn
from starlette.types import ASGIApp

from app.assembly.app import create_app
from app.observe import logging as logs
from app.settings import load_settings
from simulator.live import LiveSimulator

T = TypeVar("T")

ALICE_KEY = "sk-alice-4f9a1c77d2e0"
BOB_KEY = "sk-bob-b81d03e65fa9"
UPSTREAM_KEY = "sk-moonshot-simulated-5e0d"
# For what comes at once on an idle machine: the tests may have to share theirs.
WAIT_SECONDS = 60.0
# For clients of plain HTTP: each would read all certificate authorities else, which takes longer than most tests.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def until(condition: Callable[[], T]) -> T:
    """Look again and again until something is so that no event tells of; what the condition said then."""
    end = time.monotonic() + WAIT_SECONDS
    while not (said := condition()):
        assert time.monotonic() < end, "it never came to be so"
        time.sleep(0.01)  # looking all the time would take the processor from what is waited for
    return said


class _Server(uvicorn.Server):
    """A uvicorn server that says when it listens, and lets tests look into its event loop."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self.loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        """Serve until `stop`. uvicorn's own loop would notice that a tenth of a second later, in every test."""
        await self.on_tick(0)
        await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End as uvicorn does. Its own way waits for a tenth of a second, and another, in every test."""
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in tuple(self.server_state.connections):
            connection.shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110 - uvicorn has no event
                    await asyncio.sleep(0.005)
        for task in self.server_state.tasks:
            task.cancel()
        await self.lifespan.shutdown()

    def stop(self) -> None:
        """Let it end in good order; from any thread."""
        if self.loop is not None and self.loop.is_running():
            self.loop.call_soon_threadsafe(self._stopping.set)


@dataclass(frozen=True, slots=True)
class LiveGateway:
    """A running gateway."""

    base_url: str
    loop: asyncio.AbstractEventLoop

    @property
    def openai_url(self) -> str:
        """What an SDK takes as its base URL."""
        return f"{self.base_url}/v1"

    def client(self, key: str = ALICE_KEY) -> httpx.Client:
        """An HTTP client that sends the key; close it."""
        return httpx.Client(
            base_url=self.base_url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=WAIT_SECONDS,
            limits=httpx.Limits(max_connections=None),
            trust_env=False,
            verify=NO_TLS,
        )

    def send(self, **fields: object) -> socket.socket:
        """A chat request with Alice's key on a socket of its own, sent but not read; close it."""
        body = json.dumps({"messages": [{"role": "user", "content": "Hello"}], **fields}).encode()
        return self.send_raw(body, len(body))

    def ask(self, **fields: object) -> bytes:
        """A whole answer, head and all, by a client that costs next to nothing and leaves no garbage."""
        with self.send(**fields) as connection:
            answer = bytearray()
            while not answer.endswith((b"\r\n0\r\n\r\n", b"}")) and (part := connection.recv(65536)):
                answer += part
        return bytes(answer)

    def send_raw(self, body: bytes, announced: int) -> socket.socket:
        """A chat request whose body is announced with a length of the test's choice."""
        address = urlsplit(self.base_url)
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {ALICE_KEY}\r\n"
            f"Content-Length: {announced}\r\n\r\n"
        )
        connection = socket.create_connection((address.hostname, address.port), timeout=WAIT_SECONDS)
        connection.sendall(head.encode() + body)
        return connection

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """The result of something that runs in the gateway's event loop."""

        async def call() -> T:
            return await work()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(WAIT_SECONDS)


@contextmanager
def serving(app: ASGIApp) -> Iterator[LiveGateway]:
    """Serve an app on a free port for as long as the context lasts."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        config = uvicorn.Config(app, ws="none", log_config=None, access_log=False, timeout_graceful_shutdown=1)
        server = _Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), name="gateway", daemon=True)
        thread.start()
        try:
            assert server.ready.wait(WAIT_SECONDS)
            assert server.loop is not None
            yield LiveGateway(f"http://127.0.0.1:{port}", server.loop)
        finally:
            server.stop()
            thread.join(WAIT_SECONDS)
            assert not thread.is_alive()


@contextmanager
def gateway_for(site: LiveSimulator, log: TextIO, **settings: object) -> Iterator[LiveGateway]:
    """A gateway in front of a simulated site; streams are written without pauses unless settings say otherwise.

    `faults` among the settings are those of the demo's playground.
    """
    faults: Any = settings.pop("faults", None)
    values: dict[str, object] = {
        "_env_file": None,
        "api_master_key": f"{ALICE_KEY},{BOB_KEY}",
        "chat_page_url": site.page_url,
        "typing_delay_seconds": 0,
        "max_body_bytes": 1_000_000,  # a body that is too large need not be very large
        "max_loop_lag_seconds": 30,  # tests may run on a busy machine
        **settings,
    }
    app = create_app(load_settings(**values), faults=faults)
    logs.configure("DEBUG", "json", log)
    with serving(app) as gateway:
        yield gateway
