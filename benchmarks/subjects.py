"""What is measured: the gateway, and what it is compared with. Each is a process that answers on a port of its own."""

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from textwrap import dedent

from benchmarks.mock import reply_text
from benchmarks.processes import ROOT, Cores, Process, free_port, start

KEY = "sk-bench-4f9a1c77d2e0"
MODEL = "kimi-k2-instruct-0905"
PATH = "/v1/chat/completions"
# Sessions are taken in turn, so many times each; then come others. There are more of them than connections, so that no
# two requests of one meet, and fewer than the gateway remembers.
TURNS = 10
_SESSIONS = 500
_SYSTEM = "You are a helpful assistant. Answer briefly and in plain words, as a friend would."
_QUESTION = (
    "Please tell me in two or three sentences why the sky is blue at noon and red in the evening, "
    "and what the dust in the air has to do with it."
)
_START_SECONDS = 120.0
# So large that none of them ever refuses a call.
FOUR_LIMITS = "10M requests/minute, 1000M tokens/minute, 5000 at once, 100000M tokens/day"
# What 2,000 calls at once need; the defaults are a polite guest's.
MANY_CALLS = {"UPSTREAM_CONCURRENCY": "4000", "UPSTREAM_QUEUE_SIZE": "4000"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a subject runs: its port, the mock's, a directory for its files, and the environments' directory."""

    port: int
    upstream: int
    files: Path
    environments: Path

    def python(self, name: str) -> str:
        """The interpreter of an environment, which is made if it isn't there."""
        return str(environment(self.environments, name) / "bin" / "python")


@dataclass(frozen=True, slots=True)
class Subject:
    """Something to measure.

    Args:
        command: The words that start it; none for the mock itself.
        variables: Its environment variables.
        answers: Does it answer whole?
        streams: Does it stream?
        passes_on: Does it ask the upstream?
        sessions: Does it know sessions?
        slow: Takes milliseconds for a request: fewer of them must do.
    """

    name: str
    title: str
    command: Callable[[Place], Sequence[str]] = lambda _: ()
    variables: Callable[[Place], Mapping[str, str]] = lambda _: {}
    answers: bool = True
    streams: bool = True
    passes_on: bool = True
    sessions: bool = False
    slow: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """A subject that is up. `process` is None for the mock itself."""

    subject: Subject
    port: int
    process: Process | None

    def cpu_seconds(self) -> float:
        """CPU seconds of the subject so far."""
        return self.process.cpu_seconds() if self.process else 0.0

    def resident_mb(self) -> float:
        """Resident memory of the subject in MB."""
        return self.process.resident_kb() / 1024 if self.process else 0.0


def _uvicorn(app: str, environment: str = "gateway") -> Callable[[Place], Sequence[str]]:
    def command(place: Place) -> Sequence[str]:
        words = ("-m", "uvicorn", "--no-access-log", "--log-level", "warning", "--port", str(place.port))
        return (place.python(environment), *words, f"benchmarks.{app}")

    return command


def _upstream(place: Place) -> str:
    return f"http://127.0.0.1:{place.upstream}"


def _gateway(place: Place) -> Mapping[str, str]:
    """As a user would run it: all that is not named here has its default."""
    return {"API_MASTER_KEY": KEY, "API_PORT": str(place.port), "CHAT_PAGE_URL": f"{_upstream(place)}/chat/"}


def _api_gateway(place: Place) -> Mapping[str, str]:
    """The same, asking the mock's OpenAI face: what comes in parts goes out in parts."""
    return {
        **_gateway(place),
        "VLLM_BASE_URL": f"{_upstream(place)}/v1",
        "MODEL_ROUTES": f"{MODEL}=vllm/{MODEL}",
    }


def _litellm(place: Place) -> Sequence[str]:
    """As light as it gets: one worker, no database, no callbacks, and a key as the gateway has one."""
    config = place.files / "litellm.yaml"
    text = f"""\
        model_list:
          - model_name: {MODEL}
            litellm_params:
              model: openai/mock
              api_base: {_upstream(place)}/v1
              api_key: sk-mock
        litellm_settings:
          telemetry: false
        general_settings:
          master_key: {KEY}
        """
    config.write_text(dedent(text))
    program = Path(place.python("litellm")).with_name("litellm")
    words = ("--host", "127.0.0.1", "--port", str(place.port), "--num_workers", "1")
    return (str(program), "--config", str(config), *words)


def _nginx(place: Place) -> Sequence[str]:
    config = place.files / "nginx.conf"
    text = f"""\
        daemon off;
        worker_processes 1;
        worker_rlimit_nofile 16384;
        pid {place.files}/nginx.pid;
        error_log /dev/null;
        events {{ worker_connections 8192; }}
        http {{
            access_log off;
            client_body_temp_path {place.files}/body;
            proxy_temp_path {place.files}/proxy;
            fastcgi_temp_path {place.files}/fastcgi;
            uwsgi_temp_path {place.files}/uwsgi;
            scgi_temp_path {place.files}/scgi;
            keepalive_requests 1000000;
            upstream mock {{ server 127.0.0.1:{place.upstream}; keepalive 256; keepalive_requests 1000000; }}
            server {{
                listen 127.0.0.1:{place.port} backlog=4096;
                location / {{
                    proxy_pass http://mock;
                    proxy_http_version 1.1;
                    proxy_set_header Connection "";
                    proxy_buffering off;
                }}
            }}
        }}
        """
    config.write_text(dedent(text))
    return ("nginx", "-c", str(config), "-p", str(place.files))


SUBJECTS = (
    Subject("direct", "the mock itself"),
    Subject("nginx", "nginx as a proxy", _nginx),
    Subject("hello", "bare uvicorn, answers itself", _uvicorn("apps:hello"), streams=False, passes_on=False),
    Subject(
        "sleep",
        "bare ASGI stream of prepared bytes, a sleep for each piece",
        _uvicorn("apps:stream_sleep"),
        answers=False,
        passes_on=False,
    ),
    Subject(
        "ticker",
        "bare ASGI stream of prepared bytes, one ticker for all",
        _uvicorn("apps:stream_ticker"),
        answers=False,
        passes_on=False,
    ),
    Subject(
        "floor",
        "raw ASGI + aiohttp, passes on: the floor",
        _uvicorn("floor:floor", "floor"),
        lambda place: {"FLOOR_UPSTREAM": _upstream(place) + PATH},
    ),
    Subject(
        "own-floor",
        "raw ASGI + the gateway's own client, passes on",
        _uvicorn("own_floor:own_floor"),
        lambda place: {"FLOOR_UPSTREAM": _upstream(place) + PATH},
        streams=False,
    ),
    Subject(
        "litellm",
        "LiteLLM proxy",
        _litellm,
        # Nothing is fetched from anywhere.
        lambda _: {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION"},
        slow=True,
    ),
    Subject(
        "gateway-api",
        "this gateway, passing on from an OpenAI-compatible upstream",
        lambda p: (p.python("gateway"), "main.py", "serve"),
        _api_gateway,
    ),
    Subject(
        "gateway-none",
        "this gateway without a database",
        lambda p: (p.python("gateway"), "main.py", "serve"),
        lambda place: {**_gateway(place), "DATABASE_URL": "none"},
        sessions=True,
    ),
    Subject(
        "gateway-limits",
        "this gateway, a key with four limits",
        lambda p: (p.python("gateway"), "main.py", "serve"),
        lambda place: {**_gateway(place), "DEFAULT_LIMITS": FOUR_LIMITS},
        sessions=True,
    ),
    Subject("gateway", "this gateway", lambda p: (p.python("gateway"), "main.py", "serve"), _gateway, sessions=True),
)


def environment(directory: Path, name: str) -> Path:
    """A virtual environment with nothing in it but what the subject needs; made anew when that has changed."""
    place, requirements = directory / name, ROOT / "requirements.txt"
    packages = {
        "gateway": ("-r", str(requirements)),
        "floor": ("aiohttp", "uvicorn", "uvloop", "httptools"),
        "litellm": ("litellm[proxy]",),
    }[name]
    wanted = requirements.read_text() if name == "gateway" else " ".join(packages)
    complete = place / "complete"
    if not complete.exists() or complete.read_text() != wanted:
        print(f"Making an environment for {name} …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        pip = (place / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check")
        subprocess.run([*pip, *packages], check=True)
        complete.write_text(wanted)
    return place


def version(directory: Path, name: str, package: str) -> str:
    """The version of a package in an environment."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    python = environment(directory, name) / "bin" / "python"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def mock(cores: Cores) -> Iterator[tuple[int, Process]]:
    """The upstream, on the core of the load; its port and its process."""
    port = free_port()
    process = start(["python", "-m", "benchmarks.mock", "--port", str(port)], core=cores.load, environment={})
    try:
        wait_for(port, process, "/_mock")
        yield port, process
    finally:
        process.stop()


@contextmanager
def running(
    subject: Subject, place: Place, core: int, further: Mapping[str, str] | None = None, *, log: Path | None = None
) -> Iterator[Running]:
    """A subject that is up and has answered.

    Args:
        further: Environment variables on top of the subject's own.
        log: Where its log goes; nowhere if None.
    """
    command = subject.command(place)
    if not command:
        yield Running(subject, place.upstream, None)
        return
    process = start(command, core=core, environment={**subject.variables(place), **(further or {})}, log=log)
    try:
        wait_for(place.port, process, "/health/liveliness" if subject.name == "litellm" else "/health")
        yield Running(subject, place.port, process)
    finally:
        process.stop()


def wait_for(port: int, process: Process, path: str) -> None:
    """Wait for the first answer, whatever it is."""
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and process.alive:
        try:
            fetch(port, "GET", path)
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"Nothing answers on port {port}.")


def fetch(port: int, method: str, path: str, body: bytes | None = None) -> bytes:
    """One request, by a plain client."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
        connection.request(method, path, body, headers)
        return connection.getresponse().read()
    finally:
        connection.close()


class Requests:
    """Makes requests to one subject.

    Args:
        stream: Ask for a stream.
        turns: How many requests each session gets; with none, requests name no session.
    """

    _numbers = count()

    def __init__(self, port: int, *, stream: bool = False, turns: int = TURNS) -> None:
        self._turns = turns
        body = request_body(stream=stream)
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n"
        )
        self._head, self._rest = head.encode(), b"\r\n" + body

    def __call__(self) -> bytes:
        """The bytes of the next request."""
        if not self._turns:
            return self._head + self._rest
        number = next(self._numbers)
        session = b"bench-%d-%d" % (number // (_SESSIONS * self._turns), number % _SESSIONS)
        return self._head + b"X-Session-Id: " + session + b"\r\n" + self._rest


def request_body(*, stream: bool) -> bytes:
    """What every request says."""
    messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _QUESTION}]
    document: dict[str, object] = {"model": MODEL, "messages": messages}
    return json.dumps(document | ({"stream": True} if stream else {})).encode()


def check(subject: Running, pieces: int) -> None:
    """Does the subject really give the upstream's answer, whole and streamed? Raises RuntimeError if not."""
    if subject.subject.answers and subject.subject.passes_on:
        document = json.loads(fetch(subject.port, "POST", PATH, request_body(stream=False)))
        _compare(subject, document["choices"][0]["message"]["content"], pieces)
    if subject.subject.streams:
        answer = fetch(subject.port, "POST", PATH, request_body(stream=True)).decode()
        events = [line[6:] for line in answer.split("\n") if line.startswith("data: {")]
        deltas = [json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events]
        _compare(subject, "".join(deltas), pieces)


def _compare(subject: Running, text: str, pieces: int) -> None:
    if text != reply_text(pieces):
        raise RuntimeError(f"{subject.subject.name} answers something else: {text[:200]!r}")
