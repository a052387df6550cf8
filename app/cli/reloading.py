"""SIGHUP: settings are read anew, by a new process. Wrong ones are found before the old process gives way."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_CHECK_SECONDS = 60.0
# Tells a process which takes the place of another one the numbers of the sockets that it is left.
_SOCKETS = "KIMI_LISTENING_SOCKETS"
ROOT = Path(__file__).parents[2]
# In a wheel, where there is no `main.py`, nginx's template is here.
PACKAGED_TEMPLATE = Path(__file__).with_name("nginx.conf")


def main_file() -> Path | None:
    """The checkout's `main.py`; None where the gateway is installed as a package."""
    return None if PACKAGED_TEMPLATE.is_file() else ROOT / "main.py"


def command_line(main: Path | None, *words: str) -> list[str]:
    """How a command of the gateway is started.

    Args:
        main: A checkout's `main.py`; None where the gateway is installed as a package.
    """
    # -P: what is in the current folder doesn't stand in for the package.
    return [sys.executable, *(("-P", "-m", "app.cli") if main is None else (str(main),)), *words]


async def settings_fault(main: Path | None, environment: Mapping[str, str]) -> str:
    """What a process would object to that started now, with `.env` and all files as they are; empty for nothing.

    Args:
        environment: Of that process.
    """
    try:
        checking = await asyncio.create_subprocess_exec(
            *command_line(main, "doctor", "--settings"),
            env=dict(environment),  # uvloop takes nothing else
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        return f"the check can't be started: {error.strerror}"
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            _, said = await checking.communicate()
    except TimeoutError:
        return f"the check has not ended after {_CHECK_SECONDS:g} seconds"
    finally:
        with contextlib.suppress(ProcessLookupError):
            checking.kill()
    if checking.returncode == 0:
        return ""
    lines = said.decode("utf-8", "replace").strip().splitlines()
    # What was only logged on the way comes first.
    begin = next((place + 1 for place, line in enumerate(lines) if line.startswith("The settings are wrong")), 0)
    return "\n".join(lines[begin:]) or f"the check ended with status {checking.returncode}"


def inherited_socket() -> socket.socket | None:
    """The listening socket that the process had whose place this one takes; None if there was none."""
    number = os.environ.pop(_SOCKETS, "")
    return socket.socket(fileno=int(number)) if number.isdecimal() else None


def start_anew(listener: socket.socket) -> None:
    """Put a new process in the place of this one, with its number, command line and listening socket."""
    # Until the new one has its handler, another SIGHUP would kill it: let it wait.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP,))
    os.set_inheritable(listener.fileno(), True)
    words: Sequence[str] = sys.orig_argv[1:]
    os.execve(sys.executable, [sys.executable, *words], {**os.environ, _SOCKETS: str(listener.fileno())})  # noqa: S606
