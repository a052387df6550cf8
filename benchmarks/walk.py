"""Counts the walk of one request through the code: own calls, modules, and moves from one module to another.

    python -m benchmarks.walk            a whole answer, a session's turn, a streamed answer
    python -m benchmarks.walk --verbose  and the calls one by one

A call is one of a function in app/, a resumed generator included. A move is a call in another module than the one
before. The counts are the same on each run; where the event loop orders events differently the least one is shown.
"""

import argparse
import asyncio
import json
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from app.assembly.app import create_app
from app.settings import load_settings
from simulator.behaviour import Behaviour
from simulator.live import running

_KEY = "sk-walk-4f9a1c77d2e0"
_APP = str(Path(__file__).parents[1] / "app") + "/"
_KINDS: dict[str, dict[str, object]] = {
    "whole answer": {},
    "session's turn": {"user": "ada"},
    "streamed answer": {"stream": True},
}
_REPEATS = 5


class Walk:
    """The own calls of one request, in order, each with its module."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def note(self, frame: FrameType, event: str, _: object) -> None:
        """A hook for `sys.setprofile`."""
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(_APP):
            self.calls.append((code.co_filename[len(_APP) : -3], code.co_qualname))

    @property
    def counts(self) -> tuple[int, int, int]:
        """Calls, modules, moves."""
        modules = [module for module, _ in self.calls]
        moves = sum(module != after for module, after in pairwise(modules))
        return len(modules), len(set(modules)), moves


class _Server(uvicorn.Server):
    """A server that tells when it listens, and in which loop."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self.loop: asyncio.AbstractEventLoop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self.ready.set()

    def run_inside(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run something in the server's loop, and wait for it."""
        asyncio.run_coroutine_threadsafe(work(), self.loop).result()


@contextmanager
def _serving(app: FastAPI) -> Iterator[tuple[_Server, socket.socket]]:
    """A server, and a connection to it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = _Server(uvicorn.Config(app, ws="none", log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        server.ready.wait()
        with socket.create_connection(listener.getsockname()) as connection:
            yield server, connection
        server.should_exit = True
        thread.join()


def _ask(connection: socket.socket, fields: dict[str, object]) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "Hello"}], **fields}).encode()
    request = f"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {_KEY}\r\n"
    connection.sendall(f"{request}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = connection.recv(65536)
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while not (len(body) >= int(lengths[0].split(b":")[1]) if lengths else body.endswith(b"0\r\n\r\n")):
        body += connection.recv(65536)
    if b" 200 " not in head[:20]:
        raise SystemExit(answer.decode())


def _walk(server: _Server, connection: socket.socket, fields: dict[str, object]) -> Walk:
    walk = Walk()

    async def begin() -> None:
        sys.setprofile(walk.note)

    async def end() -> None:
        sys.setprofile(None)

    server.run_inside(begin)
    _ask(connection, fields)
    server.run_inside(end)
    return walk


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--verbose", action="store_true", help="show the calls one by one")
    verbose = parser.parse_args().verbose
    with running(Behaviour()) as site:
        settings = load_settings(
            _env_file=None,
            api_master_key=_KEY,
            chat_page_url=site.page_url,
            typing_delay_seconds=0,
            log_level="CRITICAL",
        )
        print(f"{'':16} {'own calls':>9} {'modules':>8} {'moves':>6}")
        with _serving(create_app(settings)) as (server, connection):
            for kind, fields in _KINDS.items():
                for _ in range(_REPEATS):  # what only happens the first time
                    _ask(connection, fields)
                walk = min((_walk(server, connection, fields) for _ in range(_REPEATS)), key=lambda walk: walk.counts)
                calls, modules, moves = walk.counts
                print(f"{kind:16} {calls:>9} {modules:>8} {moves:>6}")
                for module, name in walk.calls if verbose else ():
                    print(f"    {module:36} {name}")


if __name__ == "__main__":
    main()
