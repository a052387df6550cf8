"""What keys, ledger and limits add to a call, in one process: microseconds of CPU of the event loop's thread.

    python -m benchmarks.added                 alone, and within whole calls
    python -m benchmarks.added --blocks 200    more of these, for quieter figures

Alone: each part in a loop of its own, less what the empty loop takes. Within whole calls: blocks of 320 calls, 32 at
once, with a part and without it in turn; the median of the differences. There, the processor's caches are cold.
"""

import argparse
import asyncio
import gc
import json
import math
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch
from zoneinfo import ZoneInfo

import uvloop
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Scope

from app.api.limit_headers import openai_limit_headers
from app.assembly.app import create_app
from app.assembly.database import prepare
from app.domain.caller import Caller
from app.domain.chat import ChatCall, Usage
from app.domain.chat import Message as ChatMessage
from app.domain.granting import Scope as LimitScope
from app.domain.limits import read_limits
from app.domain.usage import CallRecord, Origin
from app.keys.administration import create_key
from app.keys.keyring import Keyring
from app.ledger.journal import Journal
from app.ledger.ledger import Ledger
from app.limits.book import LimitBook
from app.limits.leases import Leases
from app.limits.limiter import Admission, Limiter, LimiterPolicy
from app.limits.store import MemoryStore
from app.settings import load_settings
from app.storage.database import Database
from app.storage.feed import ChangeFeed
from app.storage.limits import set_limits
from benchmarks.processes import cores, free_port, on_core, start
from benchmarks.subjects import FOUR_LIMITS, wait_for

_USED = Usage(8, 75)
_TIMES, _LOOPS = 500, 40
_AT_ONCE, _EACH = 32, 10
_WARM_UP = 6
# Until the worker has heard of the keys and their limits.
_SETTLING_SECONDS = 1.5
_PATH = "/v1/chat/completions"
_MODEL = "kimi-k2-instruct-0905"
_KINDS: dict[str, dict[str, object]] = {"whole": {}, "session": {"user": "u"}, "streamed": {"stream": True}}


def main() -> None:
    """Run both, and print them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.added", description=__doc__)
    parser.add_argument("--blocks", type=int, default=60, help="of each kind with and without a part")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        uvloop.run(_alone(Path(folder)))
    for part in ("ledger", "four limits"):
        with TemporaryDirectory() as folder:
            uvloop.run(_within_calls(Path(folder), part, options.blocks))


async def _alone(folder: Path) -> None:
    database = Database(f"sqlite:///{folder}/gateway.db")
    prepare(database)
    with database.transaction() as connection:
        issued = create_key(connection, name="one", project="one")
    keyring = Keyring(database, ChangeFeed(database), known_for=60)
    secret = issued.secret.encode()
    await keyring.look_up(secret)
    _print("key: a look-up that hits", _looped(lambda: keyring.caller(secret)))
    journal = Journal(folder / "journal", most=1 << 30, segment=1 << 26)
    journal.open()
    ledger, record = Ledger(journal), _record()
    _print("ledger: the row and its line in the journal", _looped(lambda: ledger.call_ended(record)))
    journal.close()
    database.close()
    await _limits_alone()


async def _limits_alone() -> None:
    leases = Leases(MemoryStore(ZoneInfo("UTC")))
    limiter = Limiter(LimitBook(read_limits(FOUR_LIMITS)), leases, LimiterPolicy())
    caller, call = Caller("k", "n", "p"), ChatCall(model=_MODEL, messages=(ChatMessage("user", "How are you?"),))

    async def admit() -> None:
        admission = await limiter.admit(call, caller, "kimi-web", _MODEL)
        assert admission is not None
        admissions.append(admission)

    async def nothing() -> None:
        nothings.append(None)

    nothings: list[None] = []
    best = [math.inf] * 5
    for _ in range(_LOOPS):
        admissions: list[Admission] = []
        gc.collect()
        took = [
            await _awaited(admit),
            _each(admissions, lambda one: one.headers(openai_limit_headers)),
            _each(admissions, lambda one: one.settle(_USED, counts=True, was_answered=True)),
            await _awaited(nothing),
            _each(admissions, lambda _: None),
        ]
        best = [min(pair) for pair in zip(best, took, strict=True)]
        await asyncio.sleep(0.05)  # its leases are renewed
    admitting, headers, settling = best[0] - best[3], best[1] - best[4], best[2] - best[4]
    _print("four limits: admission", admitting)
    _print("four limits: headers", headers)
    _print("four limits: settling", settling)
    _print("four limits, all together", admitting + headers + settling)
    await leases.aclose()


async def _within_calls(folder: Path, part: str, blocks: int) -> None:
    port, here = free_port(), cores()
    mock = start(["python", "-m", "benchmarks.mock", "--port", str(port)], core=here.load, environment={})
    wait_for(port, mock, "/chat/")
    url = f"sqlite:///{folder}/gateway.db"
    settings = load_settings(
        _env_file=None,
        api_master_key="sk-added-4f9a1c77d2e0",
        chat_page_url=f"http://127.0.0.1:{port}/chat/",
        database_url=url,
        journal_dir=folder / "journal",
        typing_delay_seconds=0,
        log_level="WARNING",
    )
    switch, really = _Switch(), Ledger.call_ended

    def call_ended(ledger: Ledger, record: CallRecord) -> None:
        if switch.is_on:
            really(ledger, record)

    try:
        with on_core(here.subject), patch.object(Ledger, "call_ended", call_ended):
            await _compared(create_app(settings), url, switch, part, blocks)
    finally:
        mock.stop()


async def _compared(app: FastAPI, url: str, switch: "_Switch", part: str, blocks: int) -> None:
    async with app.router.lifespan_context(app):
        database = Database(url)
        with database.transaction() as connection:
            plain, limited = (create_key(connection, name=name, project=name) for name in ("plain", "limited"))
            set_limits(database, connection, LimitScope("key", limited.key.id), FOUR_LIMITS)
        database.close()
        await asyncio.sleep(_SETTLING_SECONDS)
        for kind, fields in _KINDS.items():
            differences = []
            for number in range(-_WARM_UP, blocks):
                took = {}
                # Each of the two comes first as often as the other.
                for has_part in (True, False) if number % 2 else (False, True):
                    switch.is_on = has_part or part != "ledger"
                    secret = (limited if has_part and part != "ledger" else plain).secret
                    took[has_part] = await _block(app, secret, fields, number)
                if number >= 0:
                    differences.append(took[True] - took[False])
            low, middle, high = quantiles(differences, n=4)
            print(f"{part}, in a loop of calls, {kind}: {middle:+.1f} (quartiles {low:+.1f} and {high:+.1f})")


class _Switch:
    """Whether calls are put into the ledger."""

    is_on = True


async def _block(app: ASGIApp, secret: str, fields: Mapping[str, object], number: int) -> float:
    """Microseconds of a call, in a block of them."""

    async def client(place: int) -> None:
        session = {"user": f"{fields['user']}{place}-{number // 10}"} if "user" in fields else {}
        messages = [{"role": "user", "content": "Hello there, how are you today?"}]
        body = json.dumps({"model": _MODEL, "messages": messages, **fields, **session}).encode()
        for _ in range(_EACH):
            await _call(app, secret, body)

    gc.collect()
    began = time.thread_time()
    await asyncio.gather(*map(client, range(_AT_ONCE)))
    return (time.thread_time() - began) / (_AT_ONCE * _EACH) * 1e6


async def _call(app: ASGIApp, secret: str, body: bytes) -> None:
    headers = [
        (b"host", b"localhost"),
        (b"authorization", f"Bearer {secret}".encode()),
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
    ]
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": _PATH,
        "raw_path": _PATH.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    pieces: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Message] = []

    async def receive() -> Message:
        if not pieces:
            await asyncio.Event().wait()
        return pieces.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    if sent[0]["status"] != 200:
        raise RuntimeError(f"The gateway answered {sent}.")


def _record() -> CallRecord:
    return CallRecord(
        caller_id="k_9fJ3kQ2mXb",
        model=_MODEL,
        provider="kimi-web",
        outcome="completed",
        error_code=None,
        action="stateless",
        prompt_size=31,
        dropped=0,
        usage=_USED,
        seconds=4.3,
        upstream_seconds=4.1,
        origin=Origin("req_6887998e9a9ae252", "openai"),
        project="one",
        asked_model=_MODEL,
        served_model=_MODEL,
        charged=_USED,
    )


def _looped(function: Callable[[], object]) -> float:
    """What one call takes."""
    return min(_each(range(_TIMES), lambda _: function()) for _ in range(_LOOPS)) - min(
        _each(range(_TIMES), lambda _: None) for _ in range(_LOOPS)
    )


def _each(values: Sequence[Any], function: Callable[[Any], object]) -> float:
    began = time.thread_time()
    for value in values:
        function(value)
    return (time.thread_time() - began) / len(values) * 1e6


async def _awaited(function: Callable[[], Coroutine[Any, Any, None]]) -> float:
    began = time.thread_time()
    for _ in range(_TIMES):
        await function()
    return (time.thread_time() - began) / _TIMES * 1e6


def _print(what: str, microseconds: float) -> None:
    print(f"{what}: {microseconds:.2f}")


if __name__ == "__main__":
    main()
