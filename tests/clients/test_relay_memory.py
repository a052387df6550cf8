"""Large files through a worker of its own process, whose memory doesn't grow by them."""

import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from random import randbytes

import httpx
import pytest

from simulator.behaviour import Behaviour
from simulator.live import LiveSimulator, running
from simulator.openai_services import wav
from tests.live import ALICE_KEY, NO_TLS, WAIT_SECONDS
from tests.ports import free_port
from tests.processes import process, until_it_listens

MEGABYTE = 1024 * 1024
LARGE = randbytes(20 * MEGABYTE)
MOST_GROWTH = 2 * MEGABYTE


class Worker:
    """A gateway in a process of its own."""

    def __init__(self, pid: int, http: httpx.Client, upstream: LiveSimulator) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._pid = pid
        self.http = http
        self.upstream = upstream

    def forget_peak(self) -> int:
        """Bytes of memory that it uses now, which counts as the most from here on."""
        Path(f"/proc/{self._pid}/clear_refs").write_text("5", encoding="ascii")
        return self.peak

    @property
    def peak(self) -> int:
        """The most bytes of memory that it has used."""
        found = re.search(r"VmHWM:\s+(\d+) kB", self._status.read_text(encoding="ascii"))
        assert found
        return int(found[1]) * 1024


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """A worker in front of the simulated API."""
    port = free_port()
    with running(Behaviour()) as upstream:
        settings = {
            "API_MASTER_KEY": ALICE_KEY,
            "CHAT_PAGE_URL": upstream.page_url,
            "DATABASE_URL": "none",
            "MOONSHOT_API_KEY": "sk-simulated",
            "MOONSHOT_BASE_URL": upstream.api_url,
            "MOONSHOT_MODELS": "whisper-1,tts-1,gpt-image-1",
        }
        with process("main.py", "serve", "--port", str(port), **settings) as serving:
            until_it_listens(serving)
            headers = {"Authorization": f"Bearer {ALICE_KEY}"}
            address = f"http://127.0.0.1:{port}"
            with httpx.Client(base_url=address, headers=headers, timeout=WAIT_SECONDS, verify=NO_TLS) as http:
                yield Worker(serving.pid, http, upstream)


def upload(worker: Worker, path: str, file: str, model: str, *, model_first: bool) -> None:
    """Send a large file, and see that it arrives."""
    parts: list[tuple[str, tuple[str | None, str | bytes]]] = [("model", (None, model)), (file, ("large", LARGE))]
    worker.http.post(path, files=parts if model_first else parts[::-1]).raise_for_status()
    assert worker.upstream.site.api.requests[-1][file]["sha256"] == sha256(LARGE).hexdigest()


def download(worker: Worker, path: str, body: Mapping[str, object]) -> int:
    """Ask for something large; the bytes that come."""
    with worker.http.stream("POST", path, json=body) as answer:
        answer.raise_for_status()
        return sum(map(len, answer.iter_raw()))


def test_large_files_take_no_memory(worker: Worker) -> None:
    """Audio and an image of 20 MB both ways: uploads passed on as they come or kept in a file, answers streamed."""
    text = "x" * (20 * MEGABYTE // len(wav("x")) + 1)

    def everything() -> None:
        for model_first in (True, False):
            upload(worker, "/v1/audio/transcriptions", "file", "whisper-1", model_first=model_first)
            upload(worker, "/v1/images/edits", "image", "gpt-image-1", model_first=model_first)
        assert download(worker, "/v1/audio/speech", {"model": "tts-1", "input": text}) == len(wav(text))
        image = {"model": "gpt-image-1", "prompt": "stripes", "size": "2300x2300"}
        assert download(worker, "/v1/images/generations", image) > 20 * MEGABYTE

    # The first time also loads what no request has needed before.
    everything()
    before = worker.forget_peak()
    everything()
    assert worker.peak - before < MOST_GROWTH
