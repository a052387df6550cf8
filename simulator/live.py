"""Runs the simulator: in a thread for tests and benchmarks, or in the caller's event loop."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass

from simulator.behaviour import Behaviour
from simulator.openai_api import API_PATH
from simulator.server import Listener, listen
from simulator.site import Site
from simulator.web import AJAX_PATH, PAGE_PATH, build_simulator


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
        listener = asyncio.run_coroutine_threadsafe(listen(build_simulator(site), host, port), loop).result()
        try:
            yield LiveSimulator(f"http://{host}:{listener.port}", site)
        finally:
            asyncio.run_coroutine_threadsafe(_stop(listener, site), loop).result()


async def serve(site: Site, host: str, port: int) -> None:
    """Serve `site` until cancelled. Raises OSError if it can't listen there."""
    listener = await listen(build_simulator(site), host, port)
    try:
        await asyncio.Event().wait()
    finally:
        await _stop(listener, site)


async def _stop(listener: Listener, site: Site) -> None:
    site.forget_in_flight()  # whoever is cut off now hasn't left
    await listener.close()


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
