"""The programs that a chat app needs: the simulated site, the gateway in front of it, and Open WebUI in front of that.

Runs in .venv-apps, which has Open WebUI and Playwright; the gateway runs in .venv, as in life.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.ports import free_ports

_ROOT = Path(__file__).parents[2]
_GATEWAY_PYTHON = _ROOT / ".venv" / "bin" / "python"
_OPEN_WEBUI = Path(sys.prefix) / "bin" / "open-webui"
_KEY = "sk-apps-5c1f0e7d92b4"
_SITE_LATENCY_SECONDS = 0.4
# Open WebUI takes half a minute to start, and longer where Python has to compile its packages first.
_START_SECONDS = 300.0
# What Open WebUI needs to start without a network. Everything about chats stays as installed.
_OFFLINE = {
    "OFFLINE_MODE": "true",
    "HF_HUB_OFFLINE": "1",
    "RAG_EMBEDDING_ENGINE": "openai",  # no model to download for the search in documents
    "ENABLE_OLLAMA_API": "false",
    "ANONYMIZED_TELEMETRY": "false",
    "DO_NOT_TRACK": "true",
    "SCARF_NO_ANALYTICS": "true",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything listens, and how long Open WebUI took until it did."""

    open_webui_url: str
    site_url: str
    open_webui_seconds: float

    def prompts(self) -> list[dict[str, Any]]:
        """Everything that the site was sent, oldest first."""
        with urllib.request.urlopen(f"{self.site_url}/_simulator/messages") as response:
            messages: list[dict[str, Any]] = json.load(response)["messages"]
        return messages


@contextmanager
def running(folder: Path) -> Iterator[Place]:
    """Start all three, and stop them at the end. Their logs and data go into `folder`.

    Raises RuntimeError if one of them does not start.
    """
    first = free_ports(3)
    site, gateway, app = (f"http://127.0.0.1:{first + number}" for number in range(3))
    with ExitStack() as stack:
        main = [_GATEWAY_PYTHON, _ROOT / "main.py"]
        stack.enter_context(_program("site", [*main, "simulator", "--port", str(first)], folder, {}, f"{site}/chat/"))
        _set(site, latency_s=_SITE_LATENCY_SECONDS)
        settings = {"API_MASTER_KEY": _KEY, "API_PORT": str(first + 1), "CHAT_PAGE_URL": f"{site}/chat/"}
        stack.enter_context(_program("gateway", [*main, "serve"], folder, settings, f"{gateway}/ready"))
        began = time.monotonic()
        stack.enter_context(
            _program(
                "open-webui",
                [_OPEN_WEBUI, "serve", "--host", "127.0.0.1", "--port", str(first + 2)],
                folder,
                {
                    **_OFFLINE,
                    "DATA_DIR": str(folder),
                    "WEBUI_SECRET_KEY": _KEY,
                    "OPENAI_API_BASE_URL": f"{gateway}/v1",
                    "OPENAI_API_KEY": _KEY,
                },
                f"{app}/health",
            )
        )
        yield Place(app, site, time.monotonic() - began)


def _set(site: str, **behaviour: object) -> None:
    request = urllib.request.Request(f"{site}/_simulator", json.dumps(behaviour).encode(), method="PATCH")
    request.add_header("Content-Type", "application/json")
    urllib.request.urlopen(request).close()


@contextmanager
def _program(
    name: str, command: Sequence[str | Path], folder: Path, settings: Mapping[str, str], address: str
) -> Iterator[None]:
    """Run a program that sees nothing of our environment but the PATH, from when it answers at an address."""
    log = folder / f"{name}.log"
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **settings}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        _wait(name, process, address, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(name: str, process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(f"{name} does not start; see {log}.")
