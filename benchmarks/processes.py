"""Processes on cores of their own, and what they cost: CPU seconds and memory of a whole tree, from the kernel."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
# The kernel's number for a process's CPU clock is made of its id (see clock_getcpuclockid(3)); 2 means scheduled time.
_CPU_CLOCK = 2
_TICKS = os.sysconf("SC_CLK_TCK")
_REFERENCE_ROUNDS = 60_000


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core does what: the subject has one for itself, the upstream and the load share the other one."""

    subject: int
    load: int


def cores() -> Cores:
    """The first core for the load, the last one for the subject."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(subject=usable[-1], load=usable[0])


@contextmanager
def on_core(core: int) -> Generator[None, None, None]:
    """Run the block, and everything that is started in it, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def reference_seconds(core: int) -> float:
    """CPU seconds that a fixed piece of Python work takes on a core at this moment: how fast the machine is now."""
    with on_core(core):
        started = time.thread_time()
        seen: dict[str, int] = {}
        for number in range(_REFERENCE_ROUNDS):
            key = f"key-{number % 997}"
            seen[key] = seen.get(key, 0) + len(key)
        return time.thread_time() - started


class Process:
    """A started program. Its CPU time and memory are those of its whole tree."""

    def __init__(self, running: subprocess.Popen[bytes]) -> None:
        self._running = running
        self.pid = running.pid

    @property
    def alive(self) -> bool:
        """Has it not ended yet?"""
        return self._running.poll() is None

    def cpu_seconds(self) -> float:
        """CPU seconds so far, of children that have ended, too."""
        return sum(_cpu_seconds(pid) for pid in _tree(self.pid))

    def resident_kb(self) -> int:
        """Resident memory in KB."""
        return sum(_status(pid, "VmRSS") for pid in _tree(self.pid))

    def threads(self) -> int:
        """How many threads there are."""
        return sum(_status(pid, "Threads") for pid in _tree(self.pid))

    def stop(self) -> None:
        """End it, by force if it takes long."""
        self._running.terminate()
        try:
            self._running.wait(5)
        except subprocess.TimeoutExpired:
            self._running.kill()
            self._running.wait()


def start(
    command: Sequence[str], *, core: int, environment: Mapping[str, str], log: Path | None = None, cwd: Path = ROOT
) -> Process:
    """Start a program on a core.

    Args:
        command: Program and arguments; "python" is this interpreter.
        environment: All that it gets besides PATH and HOME.
        log: Where its output goes; nowhere if None.
    """
    words = [sys.executable if command[0] == "python" else command[0], *command[1:]]
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    with on_core(core), (log or Path(os.devnull)).open("ab") as output:
        running = subprocess.Popen(
            words, cwd=cwd, env={**inherited, **environment}, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    return Process(running)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for task in _tasks(pid):
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _tree(int(child))


def _tasks(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []


def _cpu_seconds(pid: int) -> float:
    try:
        own = time.clock_gettime((~pid << 3) | _CPU_CLOCK)
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return own + (int(fields[13]) + int(fields[14])) / _TICKS


def _status(pid: int, field: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(field + ":")), 0)
