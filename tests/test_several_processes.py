"""Several processes on one port, as `uvicorn --workers` makes them: whichever is asked adds up all of them."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from prometheus_client.mmap_dict import MmapedDict

from app.simulator.live import LiveSimulator
from tests.live import ALICE_KEY, WAIT_SECONDS
from tests.test_cli import free_port, process

ANSWERED = 'kimi_http_requests_total{method="POST",route="/v1/chat/completions",status="200"}'
CROWD = 8


def test_the_metrics_of_all_processes_are_added_up(site: LiveSimulator, tmp_path: Path) -> None:
    """Both processes have answered some of the requests, and the sums of counters and histograms are those of all."""
    port = free_port()
    settings = {
        "API_MASTER_KEY": ALICE_KEY,
        "CHAT_PAGE_URL": site.page_url,
        "TYPING_DELAY_SECONDS": "0",
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
    }
    site.site.update(latency_s=0.05)
    command = ("-m", "uvicorn", "main:app", "--workers", "2", "--port", str(port), "--log-level", "critical")
    with process(*command, **settings), ThreadPoolExecutor(CROWD) as pool:
        base_url = f"http://127.0.0.1:{port}"
        _until(lambda: _is_up(base_url) and len(list(tmp_path.glob("counter_*.db"))) == 2)
        sent = 0
        while len(served := [count for count in map(_calls_in, tmp_path.glob("counter_*.db")) if count]) < 2:
            assert sent < 50 * CROWD, "one process has answered all"
            assert set(pool.map(_ask, [base_url] * CROWD)) == {200}
            sent += CROWD
        # A request is counted right after its answer has gone out.
        _until(lambda: _metrics(base_url)[ANSWERED] == sent)
        # Asked often enough to be answered by either.
        for samples in pool.map(_metrics, [base_url] * CROWD):
            calls = {name: value for name, value in samples.items() if name.startswith("kimi_calls_total")}
            assert sum(calls.values()) == sent == sum(map(_calls_in, tmp_path.glob("counter_*.db"))) > max(served)
            assert samples['kimi_step_seconds_count{step="upstream"}'] == sent
            assert samples[ANSWERED] == sent


def _ask(base_url: str) -> int:
    body = {"messages": [{"role": "user", "content": "Hello"}]}
    return httpx.post(f"{base_url}/v1/chat/completions", json=body, **_OPTIONS).status_code  # type: ignore[arg-type]


def _metrics(base_url: str) -> dict[str, float]:
    text = httpx.get(f"{base_url}/metrics", **_OPTIONS).text  # type: ignore[arg-type]
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def _calls_in(file: Path) -> float:
    """How many calls one process has counted."""
    samples = MmapedDict.read_all_values_from_file(str(file))  # type: ignore[no-untyped-call]
    return float(sum(value for key, value, *_ in samples if '"kimi_calls_total"' in key))


def _is_up(base_url: str) -> bool:
    try:
        return httpx.get(f"{base_url}/ready", **_OPTIONS).status_code == 200  # type: ignore[arg-type]
    except httpx.TransportError:
        return False


def _until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < give_up


_OPTIONS = {"headers": {"Authorization": f"Bearer {ALICE_KEY}"}, "timeout": WAIT_SECONDS, "trust_env": False}
