"""Keeps workers and nginx running, replaces workers one by one, and ends everything in the right order."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import structlog

from app.cli.nginx import NginxPolicy, render
from app.cli.reloading import command_line, settings_fault
from app.settings import SettingsError

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 15.0
# A process that ran for so long before it died is restarted without a pause.
_STABLE_SECONDS = 60.0
_START_SECONDS = 30.0
_POLL_SECONDS = 0.05
# What `serve` ends with if its settings are wrong.
_SETTINGS_STATUS = 2


@dataclass(frozen=True, slots=True)
class ClusterPolicy:
    """What the supervisor runs.

    Args:
        workers: How many.
        first_port: Of the first worker, on 127.0.0.1; the others follow.
        grace: Seconds that a process gets to end its running requests.
        nginx: nginx's part.
        template: The nginx template's text.
    """

    workers: int
    first_port: int
    grace: float
    nginx: NginxPolicy
    template: str


class ClusterError(Exception):
    """The cluster can't run; says why."""


class Supervisor:
    """One nginx and N workers. SIGHUP replaces the workers one by one, if the settings are right that they would read;
    SIGTERM ends everything.

    Args:
        policy: What is run.
        main: A checkout's `main.py`; None where the gateway is installed as a package.
        environment: Of all processes.
        policy_now: Reads the settings anew, and says what would be run with them.
    """

    def __init__(
        self,
        policy: ClusterPolicy,
        *,
        main: Path | None,
        environment: Mapping[str, str],
        policy_now: Callable[[], ClusterPolicy],
    ) -> None:
        self._policy = policy
        self._main = main
        self._policy_now = policy_now
        worker_command = command_line(main, "serve")
        self._log = structlog.get_logger("kimi.cluster")
        self._run_dir = Path(tempfile.mkdtemp(prefix="kimi-cluster-"))
        self._workers = [
            _Process(
                f"worker-{number}",
                worker_command,
                {**environment, "WORKER_ID": str(number), "API_HOST": "127.0.0.1", "API_PORT": str(port)},
            )
            for number, port in enumerate(range(policy.first_port, policy.first_port + policy.workers), start=1)
        ]
        self._nginx = _Process("nginx", self._nginx_command(), environment)

    async def run(self) -> int:
        """Run until a signal ends it; returns the exit status."""
        stop, roll = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        for number, event in ((signal.SIGTERM, stop), (signal.SIGINT, stop), (signal.SIGHUP, roll)):
            loop.add_signal_handler(number, event.set)
        try:
            return await self._run(stop, roll)
        finally:
            shutil.rmtree(self._run_dir, ignore_errors=True)

    async def _run(self, stop: asyncio.Event, roll: asyncio.Event) -> int:
        self._write_config()
        self._check_ports()
        keepers = [asyncio.create_task(worker.keep_running(self._others_run(worker))) for worker in self._workers]
        status = 0
        try:
            if await self._all_listen(stop):
                keepers.append(asyncio.create_task(self._nginx.keep_running(lambda: False)))
                await _port_open(self._policy.nginx.listen)
                self._log.info("cluster_ready", listen=self._policy.nginx.listen, workers=len(self._workers))
                await self._serve(stop, roll)
        except ClusterError as error:
            self._log.error("cluster_failed", reason=str(error))
            status = 1
        finally:
            # nginx first: it takes no new requests and waits for the running ones, which need their workers.
            await self._nginx.end(signal.SIGQUIT, self._policy.grace)
            await asyncio.gather(*(worker.end(signal.SIGTERM, self._policy.grace) for worker in self._workers))
            await asyncio.gather(*keepers, return_exceptions=True)
        return status

    async def _serve(self, stop: asyncio.Event, roll: asyncio.Event) -> None:
        stopped = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                rolled = asyncio.create_task(roll.wait())
                await asyncio.wait({stopped, rolled}, return_when=asyncio.FIRST_COMPLETED)
                rolled.cancel()
                if roll.is_set() and not stop.is_set():
                    roll.clear()
                    await self._reload_unless(stopped)
        finally:
            stopped.cancel()

    async def _reload_unless(self, stopped: asyncio.Task[bool]) -> None:
        """Reload, but no longer than until the cluster is told to stop: it ends what the reload has begun."""
        reloading = asyncio.create_task(self._reload())
        try:
            await asyncio.wait({stopped, reloading}, return_when=asyncio.FIRST_COMPLETED)
            if reloading.done():
                reloading.result()
        finally:
            reloading.cancel()
            await asyncio.wait({reloading})

    async def _reload(self) -> None:
        """Have the workers read the settings anew, unless something is wrong with these."""
        fault = await settings_fault(self._main, self._workers[0].environment)
        if fault:
            self._log.error("settings_refused", reason=fault, meaning="the workers go on with the old ones")
            return
        try:
            now = self._policy_now()
        except SettingsError as error:  # they have become wrong since they were checked
            self._log.error("settings_refused", reason=str(error), meaning="the workers go on with the old ones")
            return
        changed = [field.name for field in fields(now) if getattr(now, field.name) != getattr(self._policy, field.name)]
        if changed:
            self._log.warning(
                "restart_needed", of=changed, meaning="these settings hold when the cluster is started anew"
            )
        await self._replace_workers()

    async def _replace_workers(self) -> None:
        """One after the other. nginx keeps its configuration: who is refused by a worker that ends goes to the next."""
        for number, worker in enumerate(self._workers):
            await worker.restart(self._policy.grace)
            try:
                await _port_open(self._address(number))
            except ClusterError as error:
                reason, meaning = str(error), "it is started again and again; the others stay as they are"
                self._log.error("worker_not_back", name=worker.name, reason=reason, meaning=meaning)
                return
            self._log.info("worker_replaced", name=worker.name)
        self._log.info("workers_replaced")

    async def _all_listen(self, stop: asyncio.Event) -> bool:
        """True when all workers listen, False if the cluster is told to stop before that."""

        async def listening() -> None:
            await asyncio.gather(*(_port_open(self._address(number)) for number in range(len(self._workers))))

        waiting, stopped = asyncio.create_task(listening()), asyncio.create_task(stop.wait())
        refused = [asyncio.create_task(worker.refused.wait()) for worker in self._workers]
        try:
            await asyncio.wait([waiting, stopped, *refused], return_when=asyncio.FIRST_COMPLETED)
            if any(task.done() for task in refused):
                raise ClusterError("A worker refuses its settings; the lines above say which.")
            if waiting.done():
                waiting.result()
            return waiting.done()
        finally:
            for task in (waiting, stopped, *refused):
                task.cancel()

    def _others_run(self, worker: "_Process") -> Callable[[], bool]:
        """Tells whether requests can be answered without this worker."""
        return lambda: any(other.is_running for other in self._workers if other is not worker)

    def _check_ports(self) -> None:
        addresses = [self._address(number) for number in range(len(self._workers))]
        listen = self._policy.nginx.listen
        if listen.rpartition(":")[2] in {address.rpartition(":")[2] for address in addresses}:
            raise ClusterError("NGINX_PORT is the port of a worker, too (see CLUSTER_FIRST_PORT and CLUSTER_WORKERS).")
        for address in (listen, *addresses):
            if not is_free(address):
                hint = "see BIND_ADDRESS, NGINX_PORT and CLUSTER_FIRST_PORT"
                raise ClusterError(f"{address} is taken, or no address of this machine ({hint}).")

    def _address(self, number: int) -> str:
        return f"127.0.0.1:{self._policy.first_port + number}"

    def _write_config(self) -> None:
        addresses = [self._address(number) for number in range(len(self._workers))]
        text = render(self._policy.template, self._policy.nginx, addresses, self._run_dir)
        (self._run_dir / "nginx.conf").write_text(text, encoding="utf-8")

    def _nginx_command(self) -> list[str]:
        binary = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
        if binary is None:
            raise ClusterError("nginx is not installed (apt-get install nginx).")
        return [
            binary,
            "-p",
            str(self._run_dir),
            "-c",
            str(self._run_dir / "nginx.conf"),
            "-e",
            "stderr",
            "-g",
            "daemon off;",
        ]


class _Process:
    """A child process that is started again whenever it ends by itself."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self.environment = dict(environment)
        self._command = list(command)
        self._process: asyncio.subprocess.Process | None = None
        self._ending = False
        self._restarting = False
        self._log = structlog.get_logger("kimi.cluster")
        # Set when it has ended because of its settings.
        self.refused = asyncio.Event()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def keep_running(self, may_pause: Callable[[], bool]) -> None:
        """Start it, and start it again whenever it ends, after growing pauses.

        Args:
            may_pause: Whether it can be done without. If not, it is started again after the first pause.
        """
        pause = 0.0
        loop = asyncio.get_running_loop()
        while not self._ending:
            started = loop.time()
            self._process = await asyncio.create_subprocess_exec(
                *self._command, env=self.environment, start_new_session=True
            )
            # If that was asked for while none ran, this is the one.
            self._restarting = False
            self._log.info(
                "process_started", name=self.name, pid=self._process.pid, port=self.environment.get("API_PORT")
            )
            if self._ending:
                self.send(signal.SIGTERM)  # `end` came while it was being started, and found nobody to tell
            status = await self._process.wait()
            if self._restarting:
                pause = 0.0
                continue
            if not self._ending:
                stable = loop.time() - started > _STABLE_SECONDS
                pause = 0.0 if stable else min(_LONGEST_PAUSE, pause * 2 or _FIRST_PAUSE)
                self._log.error("process_died", name=self.name, status=status, restart_in=pause)
                if status == _SETTINGS_STATUS:
                    self.refused.set()
                await self._pause(pause, may_pause)

    async def _pause(self, seconds: float, may_pause: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        while not (self._ending or self._restarting):
            passed = loop.time() - begin
            if passed >= seconds or (passed >= _FIRST_PAUSE and not may_pause()):
                return
            await asyncio.sleep(_POLL_SECONDS)

    async def restart(self, grace: float) -> None:
        """Have another process take its place. One that has died is started again at once."""
        self._restarting = True
        await self._stop(signal.SIGTERM, grace)

    async def end(self, number: signal.Signals, grace: float) -> None:
        self._ending = True
        await self._stop(number, grace)

    def send(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _stop(self, number: signal.Signals, grace: float) -> None:
        process = self._process
        if process is None:
            return
        self.send(number)
        try:
            async with asyncio.timeout(grace):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def is_free(address: str) -> bool:
    """Can somebody listen at `host:port`?"""
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            return False
        return True


async def _port_open(address: str) -> None:
    """Wait until somebody listens at `host:port`.

    Raises:
        ClusterError: Nobody does in time.
    """
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(_START_SECONDS):
            while True:
                try:
                    _, writer = await asyncio.open_connection(host.replace("0.0.0.0", "127.0.0.1"), int(port))  # noqa: S104
                except OSError:
                    await asyncio.sleep(_POLL_SECONDS)
                    continue
                writer.close()
                return
    except TimeoutError as error:
        raise ClusterError(f"Nobody listens on {address} after {_START_SECONDS:g} seconds.") from error
