"""A gateway under watch: what it shows while it is troubled, and that nothing of the trouble is left behind."""

import asyncio
import gc
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import httpx

from app.chat.service import ChatService
from app.providers.http.pool import Pool
from app.providers.kimi.provider import KimiProvider
from app.sessions.memory import MemorySessionStore
from simulator.behaviour import Behaviour
from simulator.live import LiveSimulator
from tests.chaos.client import Call, Heard, hear_all
from tests.clock import Clock
from tests.conftest import RunLog, StartGateway
from tests.live import WAIT_SECONDS, LiveGateway, until

Outcomes = dict[tuple[str, str], int]

# What a case may leave open beyond idle connections: the page's connection, kept alive, and what the run itself opens.
_FD_MARGIN = 8
# Seconds.
_PATIENCE = 10.0
_CALL = re.compile(r'kimi_calls_total\{error="(\w*)",model="[^"]*",outcome="(\w+)",provider="kimi-web",session="\w*"\}')
_LOG_OF_LEAKS = re.compile(r'never retrieved|was destroyed but it is pending|"level": ?"(?:error|critical)"')


class Watched:
    """A gateway in trouble, seen from outside; only what no client can see is read off the objects inside.

    How long it leaves a failing or busy site alone is a matter of `leap`: that time doesn't pass by itself. So a case
    sees the same on a busy machine, and waits for nothing.
    """

    def __init__(self, gateway: LiveGateway, http: httpx.Client, inside: "_Inside", finally_: ExitStack) -> None:
        self.gateway = gateway
        self.http = http
        self._inside = inside
        self._finally = finally_
        self._slots = int(self.gauge("slots_free"))
        self._tasks_at_rest = gateway.run(_tasks)
        self._descriptors = self._open_descriptors()

    def call(self, **fields: object) -> Call:
        """Send a request; the answer is not waited for."""
        call = Call(self.gateway.send(**fields))
        self._finally.callback(call.leave)
        return call

    def storm(self, count: int, **fields: object) -> list[Heard]:
        """The answers to so many requests, all sent before the first answer is read."""
        return hear_all([self.call(**fields) for _ in range(count)])

    def metrics(self) -> dict[str, float]:
        """All samples, by name and labels as they are written."""
        lines = (line.rpartition(" ") for line in self.http.get("/metrics").text.splitlines() if line[:1] != "#")
        return {name: float(value) for name, _, value in lines}

    def gauge(self, name: str) -> float:
        """A number of the provider's moment."""
        return self.metrics()[f'kimi_provider_{name}{{of="kimi-web"}}']

    def outcomes(self) -> Outcomes:
        """How many calls have ended how: (outcome, error) -> number, over all models and sessions."""
        found: Counter[tuple[str, str]] = Counter()
        for name, value in self.metrics().items():
            if match := _CALL.fullmatch(name):
                found[match[2], match[1]] += int(value)
        return dict(found)

    def readiness(self) -> tuple[int, dict[str, str]]:
        """What `/ready` says: the status, and the Kimi provider's details."""
        response = self.http.get("/ready")
        details: dict[str, str] = response.json()["providers"]["kimi-web"]
        return response.status_code, details

    def until(self, condition: Callable[[], bool]) -> None:
        """Ask over HTTP again and again until something that the gateway shows has become true."""
        until(condition)

    def leap(self, seconds: float) -> None:
        """Let time pass for the gateway's breaker, for the pause that the site has asked for, and for the nonce."""
        self.gateway.run(partial(self._inside.leap, seconds))

    def until_ready(self) -> None:
        """Let time pass until the gateway says that it is ready and that no pause is left."""
        self.until(self._is_ready_later)

    def outcomes_of(self, calls: int) -> Outcomes:
        """The outcomes once so many calls have ended; for clients that have left, and hear of no end."""
        self.until(lambda: sum(self.outcomes().values()) >= calls)
        return self.outcomes()

    def waiting_for_session(self) -> int:
        """How many requests hold a session or wait for one."""
        return self.gateway.run(self._inside.session_users)

    def serves(self) -> None:
        """The trouble is over: as soon as the gateway shows it, requests are answered in both modes."""
        self.until_ready()
        for stream in (False, True):
            heard = self.call(stream=stream).hear()
            assert (heard.status, heard.code, heard.complete) == (200, None, True)
            assert heard.text
        status, details = self.readiness()
        assert (status, details["nonce"], details["breaker"]) == (200, "fresh", "closed")

    def rests(self) -> None:
        """Nothing is left of any request: no task, slot, place in the queue, session lock, connection or descriptor."""
        assert self.gateway.run(partial(_until_idle, self._tasks_at_rest)) == set()
        assert (self.gauge("slots_free"), self.gauge("queue_depth")) == (self._slots, 0)
        assert self.metrics()["kimi_streams_active"] == 0
        assert self.metrics()["kimi_http_requests_in_flight"] == 1  # the one that asks
        assert self.gateway.run(self._inside.leftovers) == {}
        gc.collect()  # what only the garbage collector would close is not leaked, but late
        self.until(lambda: self._open_descriptors() <= self._descriptors + _FD_MARGIN)

    def _is_ready_later(self) -> bool:
        ready = self.readiness()[0] == 200 and self.gauge("pause_seconds") == 0
        if not ready:
            self.leap(_PATIENCE)
        return ready

    def _open_descriptors(self) -> int:
        """Of the whole process, less the connections to the site that are kept alive: both ends of each are ours."""
        idle = self.gateway.run(self._inside.idle_connections)
        return len(os.listdir("/proc/self/fd")) - 2 * idle  # noqa: PTH208 - thousands of Paths for one number


@contextmanager
def watched(
    start_gateway: StartGateway, run_log: RunLog, mend: Callable[[], object] | None, **settings: object
) -> Iterator[Watched]:
    """A gateway for one case of trouble.

    When the case is over the trouble is mended; the gateway must then serve as ever, and be at rest afterwards.

    Args:
        mend: Ends the trouble; None if nothing can, so that the gateway must come to rest only.
    """
    log_begins = run_log.path.stat().st_size
    # The site and all clients live in this process, too: a late event loop is the test's own doing.
    lively = {"max_loop_lag_seconds": 60, **settings}
    with start_gateway(**lively) as gateway, gateway.client() as http, ExitStack() as finally_:
        patient = Watched(gateway, http, _Inside(gateway), finally_)
        yield patient
        if mend is not None:
            mend()
            patient.serves()
        patient.rests()
    with run_log.path.open(encoding="utf-8") as log:
        log.seek(log_begins)
        assert [line for line in log if _LOG_OF_LEAKS.search(line)] == []


class _Inside:
    """What of a gateway could be kept for nothing, read off its objects: no client can see it."""

    def __init__(self, gateway: LiveGateway) -> None:
        (service,) = (thing for thing in gc.get_objects() if type(thing) is ChatService and _runs_in(gateway, thing))
        store = service._sessions
        assert isinstance(store, MemorySessionStore)
        self._store = store
        self._provider = _kimi(service)
        self._clock = Clock(time.monotonic())
        for timed in (self._provider._guard.breaker, self._provider._guard.pause, self._provider._nonces):
            timed._clock = self._clock

    async def leap(self, seconds: float) -> None:
        self._clock.now += seconds
        # Whoever waits to fetch the page looks at the clock again.
        self._provider._nonces._failed.set()

    async def session_users(self) -> int:
        lines = self._store._lines.values()
        return len(lines) + sum(not turn.done() for line in lines for turn in line)

    async def idle_connections(self) -> int:
        return self._pool.idle

    async def leftovers(self) -> dict[str, object]:
        """What should have been given back, by name."""
        held: dict[str, object] = {
            "lines for sessions": self._store._lines,
            "places in the queue": self._provider._guard.bulkhead._waiting,
            "connections in use": self._pool.in_use,
        }
        return {name: thing for name, thing in held.items() if thing}

    @property
    def _pool(self) -> Pool:
        return self._provider._client._opened


def _kimi(service: ChatService) -> KimiProvider:
    (provider,) = service._registry.providers
    assert isinstance(provider, KimiProvider)
    return provider


def _runs_in(gateway: LiveGateway, service: ChatService) -> bool:
    pool = _kimi(service)._client._pool
    return pool is not None and pool.loop is gateway.loop


async def _tasks() -> "set[asyncio.Task[object]]":
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


async def _until_idle(at_rest: "set[asyncio.Task[object]]") -> set[str]:
    """Let the loop turn until no task runs but those at rest; the names of those that don't end."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + WAIT_SECONDS / 2
    # No event says that the last of all kinds of tasks has ended.
    while (left := await _tasks() - at_rest) and loop.time() < give_up:  # noqa: ASYNC110
        await asyncio.sleep(0)
    return {getattr(task.get_coro(), "__qualname__", "?") for task in left}


def calm(site: LiveSimulator) -> None:
    """End all trouble of a simulated site."""
    site.site.behaviour = Behaviour()
