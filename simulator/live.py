"""Runs the simulator: in a thread for tests and benchmarks, or in the caller's event loop."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from simulator.behaviour import Behaviour
from simulator.openai_api import API_PATH
from simulator.site import Site
from simulator.web import AJAX_PATH, PAGE_PATH, build_simulator

# How long a stopping server waits for answers under way before it cancels them. aiohttp takes 0 for "forever".
_GRACE_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class LiveSimulator:
    """A simulator that listens."""

    base_url: str
    """Without a slash at the end."""
    site: Site

    @property
    def page_url(self) -> str:
        return self.base_url + PAGE_PATH

    @property
    def ajax_url(self) -> str:
        return self.base_url + AJAX_PATH

    @property
    def api_url(self) -> str:
        """The base URL of its OpenAI API."""
        return f"{self.base_url}{API_PATH}"


@contextmanager
def running(behaviour: Behaviour | None = None, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[LiveSimulator]:
    """Serve a simulator from a thread of its own for as long as the context lasts. Port 0 = any free port.

    Raises OSError if it can't listen there.
    """
    site = Site(behaviour)
    with _loop_in_thread() as loop:
        runner = asyncio.run_coroutine_threadsafe(_listen(site, host, port), loop).result()
        try:
            bound_port = runner.addresses[0][1]
            yield LiveSimulator(f"http://{host}:{bound_port}", site)
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()


async def serve(site: Site, host: str, port: int) -> None:
    """Serve `site` until cancelled. Raises OSError if it can't listen there."""
    runner = await _listen(site, host, port)
    try:
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


async def _listen(site: Site, host: str, port: int) -> web.AppRunner:
    """A server that listens, to be cleaned up by the caller."""
    runner = web.AppRunner(build_simulator(site), access_log=None, handler_cancellation=True, shutdown_timeout=_GRACE_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except BaseException:
        await runner.cleanup()
        raise
    return runner


@contextmanager
def _loop_in_thread() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs in a thread of its own, until the context ends."""
    made: Future[asyncio.AbstractEventLoop] = Future()
    thread = threading.Thread(target=_run_loop, args=(made,), name="kimi-simulator", daemon=True)
    thread.start()
    loop = made.result()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def _run_loop(made: "Future[asyncio.AbstractEventLoop]") -> None:
    # The runner's end cancels what is left in the loop, and closes it.
    with asyncio.Runner() as runner:
        made.set_result(runner.get_loop())
        runner.get_loop().run_forever()
