"""A real redis-server of the tests' own: started, stopped, killed, paused and started again as a test wants it.

A test module gets a fixture by giving it a name of its own: `own_redis = redis_server.own_redis`.
"""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from tests.ports import free_port

PASSWORD = "correct-horse-battery-staple"
_START_TRIES = 5
_STOP_SECONDS = 10


class RedisServer:
    """A redis-server on a port of its own.

    Args:
        folder: Where it keeps what it keeps.
        password: What clients have to know; None for nothing.
        persistent: Does it survive a restart, to the last command?
    """

    def __init__(self, folder: Path, *, password: str | None = None, persistent: bool = False) -> None:
        self._folder = folder
        self._password = password
        self._persistent = persistent
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        """What a client connects to."""
        credentials = f":{self._password}@" if self._password else ""
        return f"redis://{credentials}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, at first on whatever port is free, later on the same one, and wait until it answers."""
        for _ in range(_START_TRIES):
            self._process = subprocess.Popen(self._command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                self._wait_until_it_answers()
            except redis.ConnectionError:
                # Somebody else was faster at the port.
                self.kill()
                self.port = free_port()
            else:
                return
        raise RuntimeError("redis-server doesn't start")

    def client(self) -> redis.Redis:
        """A plain client, to look at what is stored; close it."""
        return redis.Redis.from_url(self.url, decode_responses=True)

    def stop(self) -> None:
        """Let it end in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """End it at once, and start it on the same port."""
        self.kill()
        self.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """It accepts connections, because the kernel does, but answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def _command(self) -> list[str]:
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self._folder),
            "save": "",
            "appendonly": "yes" if self._persistent else "no",
            "appendfsync": "always",
        }
        if self._password:
            options["requirepass"] = self._password
        return ["redis-server", *(word for name, value in options.items() for word in (f"--{name}", value))]

    def _wait_until_it_answers(self) -> None:
        patience = Retry(ConstantBackoff(0.02), retries=250)
        with redis.Redis.from_url(self.url, retry=patience, socket_timeout=5) as client:
            client.ping()

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        # One that is paused would never notice.
        self._process.send_signal(signal.SIGCONT)
        self._process.send_signal(how)
        self._process.wait(_STOP_SECONDS)
        self._process = None


@contextmanager
def running(folder: Path, *, password: str | None = None, persistent: bool = False) -> Iterator[RedisServer]:
    """A server for as long as the context lasts. Skips the test where there is none to start."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    server = RedisServer(folder, password=password, persistent=persistent)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for all tests that leave it alone; it wants a password."""
    with running(tmp_path_factory.mktemp("redis"), password=PASSWORD) as server:
        yield server


@pytest.fixture
def redis_server(shared_redis: RedisServer) -> RedisServer:
    """The shared server, empty and set up as at its start."""
    with shared_redis.client() as client:
        client.flushall()
        client.script_flush()
        client.config_resetstat()
    return shared_redis


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of this test's own, to be stopped and paused."""
    with running(tmp_path, password=PASSWORD) as server:
        yield server


@pytest.fixture
def persistent_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of this test's own that keeps everything over a restart."""
    with running(tmp_path, password=PASSWORD, persistent=True) as server:
        yield server
