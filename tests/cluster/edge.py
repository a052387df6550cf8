"""nginx alone, as the cluster configures it, in front of a worker that only says that it was asked."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import httpx

from app.cli.nginx import render
from tests.nginx import TEMPLATE, policy
from tests.ports import free_ports

# NGINX_BIN: another nginx than the installed one.
NGINX = os.environ.get("NGINX_BIN") or shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin")
SECONDS = 20
# Lets nginx believe who the client is, as REAL_IP does.
BEHIND_A_PROXY = {
    "keepalive_timeout 75s;": "set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For; keepalive_timeout 75s;"
}
# Nothing that nginx writes.
_END = b"end\n"


class Worker(ThreadingHTTPServer):
    """Answers every request with its own name, but hangs up on an address that says `hangup`."""

    daemon_threads = True

    def __init__(self, name: str = "worker", address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        super().__init__(address, _Answer)
        self.name = name
        self.asked: list[str] = []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self) -> str:
        return "{}:{}".format(*self.server_address[:2])

    @property
    def host(self) -> str:
        return str(self.server_address[0])

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Worker

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.rfile.read(int(self.headers.get("content-length", 0)))
        if "hangup" in self.path:
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("x-worker", self.server.name)
        self.send_header("content-length", "0")
        # As uvicorn does: some nginx would keep the connection else.
        self.send_header("connection", "close")
        self.end_headers()

    do_POST = do_PUT = do_GET  # noqa: N815 - names that http.server looks up

    def log_message(self, *_: object) -> None:
        """Nothing is written."""


class Edge:
    """A running nginx, and its two logs.

    Args:
        port: Where it listens.
        folder: Where its logs are.
    """

    def __init__(self, port: int, folder: Path) -> None:
        self.port = port
        self.folder = folder
        self._lines: SimpleQueue[bytes] = SimpleQueue()
        os.mkfifo(folder / "access.log")
        threading.Thread(target=self._follow, args=(os.open(folder / "access.log", os.O_RDWR),), daemon=True).start()

    def _follow(self, descriptor: int) -> None:
        with open(descriptor, "rb") as pipe:
            while (line := pipe.readline()) != _END:
                self._lines.put(line)

    def stop_following(self) -> None:
        """nginx has ended."""
        (self.folder / "access.log").write_bytes(_END)

    def send(self, raw: bytes) -> httpx.Response:
        """Send bytes as they are, and read the answer to its end."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS) as connection:
            connection.sendall(raw)
            return read_response(connection)

    def ask(self, path: str = "/v1/models", method: str = "GET", **headers: str) -> httpx.Response:
        """Send a request of these headers, whose names have `_` for `-`."""
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        head = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: gateway", *lines, "Connection: close", "", ""])
        return self.send(head.encode("latin-1"))

    def statuses(self, count: int, *variants: Mapping[str, str]) -> list[int]:
        """The statuses of so many requests, whose headers are the variants in turn."""
        return [self.ask(**variants[number % len(variants)]).status_code for number in range(count)]

    def drop_lines(self) -> None:
        """Forget what was logged before a request, which is what nginx writes for the next one."""
        self.ask(X_Request_ID=(marker := secrets.token_hex(8)))
        self.line(marker)

    def raw_line(self) -> bytes:
        """The access log's next line."""
        return self._lines.get(timeout=SECONDS)

    def line(self, request_id: str) -> dict[str, Any]:
        """The access log's line of a request; lines before it are skipped."""
        while (line := json.loads(self.raw_line()))["request_id"] != request_id:
            pass
        return dict(line)

    @property
    def error_log(self) -> str:
        return (self.folder / "error.log").read_text(encoding="utf-8")


def read_response(connection: socket.socket) -> httpx.Response:
    """The answer on a connection."""
    with connection.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        headers = []
        while (line := stream.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            headers.append((name, value.strip()))
        length = int({name.lower(): value for name, value in headers}.get("content-length", "-1"))
        return httpx.Response(status, headers=headers, content=stream.read(length))


def configured(
    folder: Path, *workers: str, sticky: str = "ip", replaced: Mapping[str, str] | None = None, **decided: Any
) -> tuple[Edge, list[str]]:
    """What nginx will be, and the command that runs it.

    Args:
        folder: Where it may write.
        workers: Their addresses.
        replaced: What stands in the configuration, by what shall stand there instead.
        decided: See `NginxPolicy`.
    """
    assert NGINX, "nginx is not installed (./dev test installs it)"
    port = free_ports(1)
    text = render(TEMPLATE, replace(policy(sticky), listen=f"127.0.0.1:{port}", **decided), workers, folder)
    changes = {
        # Lines come in the order of the requests.
        "worker_processes auto": "worker_processes 1",
        "access_log /dev/stdout": f"access_log {folder}/access.log",
        "error_log stderr": f"error_log {folder}/error.log",
        **(replaced or {}),
    }
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "nginx.conf").write_text(text, encoding="utf-8")
    command = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    return Edge(port, folder), command


@contextmanager
def edge(folder: Path, *workers: str, **decided: Any) -> Iterator[Edge]:
    """Run nginx in front of workers until the context ends. The arguments are those of `configured`."""
    running, command = configured(folder, *workers, **decided)
    # It returns when it listens, and leaves a daemon behind.
    subprocess.run(command, check=True, timeout=SECONDS)
    try:
        yield running
    finally:
        subprocess.run([*command, "-s", "stop"], check=True, timeout=SECONDS)
        running.stop_following()
