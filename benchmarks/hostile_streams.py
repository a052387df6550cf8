"""Measures how long a hostile upstream holds the event loop: all other requests wait for as long.

    python -m benchmarks.hostile_streams            each kind of reply, whole and streamed
    python -m benchmarks.hostile_streams lines gzip  those whose names contain one of the words

Each reply comes from a process of its own, as fast as it can be sent, until the gateway's provider gives up. Meanwhile
a task of the same event loop wakes up every millisecond; the worst delay is what counts. The last column is how the
reply ended. Bounds are those of the default settings.
"""

import asyncio
import gc
import gzip
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

import uvloop

from app.domain.chat import Message
from app.domain.errors import GatewayError
from app.domain.prompt import PromptLimit, message_prompt
from app.providers.api_upstream.upstream import Upstream
from app.providers.base import Ability, CompletionRequest, ModelSpec
from app.providers.http import HttpClient
from app.providers.openai_compatible.provider import OpenAICompatibleProvider
from app.providers.resilience.breaker import BreakerPolicy
from app.providers.resilience.guard import Guard
from app.providers.resilience.limits import Bulkhead, RetryBudget, RetryPolicy

_MAX_REPLY = 4 * 1024 * 1024
_SENT_AT_ONCE = 64 * 1024
_MOST_SENT = 200 * 1024 * 1024
_SECONDS = 20.0
_LIMIT = PromptLimit(1000, "tokens")
_ABILITIES: frozenset[Ability] = frozenset({"messages", "tools"})
_MODEL = ModelSpec(id="m", upstream_id="m", prompt_limit=_LIMIT, owned_by="v", abilities=_ABILITIES)


def _event(delta: object, **more: object) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta, **more}]}).encode() + b"\n\n"


def _call(arguments: str, **function: str) -> bytes:
    return _event({"tool_calls": [{"index": 0, "function": {"arguments": arguments, **function}}]})


def _message(**message: object) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "message": message}]}).encode() + b"\n\n"


_HELLO = _event({"content": "Hello"})
_LONG = _event({"content": "long " * 400_000})
_NAMED = _call("", name="look_up")
_BIG_CALL = _call('{"a": "' + "x" * 2_000_000 + '"}', name="look_up", id="call_1")

# What comes once, and what comes over and over after it.
BODIES: dict[str, tuple[bytes, bytes]] = {
    "empty lines": (_HELLO, b"\n"),
    "empty lines from the start": (b"", b"\n"),
    "carriage returns": (_HELLO, b"\r"),
    "blanks from the start": (b"", b" "),
    "a line, then blanks": (b'{"a": 1}\n', b" "),
    "comments": (_HELLO, b":\n"),
    "comment lines of nothing": (_HELLO, b":" * 1000 + b"\n\n"),
    "tiny events": (_HELLO, b"data: {}\n\n"),
    "tiny deltas": (b"", _event({"content": "x"})),
    "an endless line": (_HELLO + b"data: ", b"x"),
    "an event of many lines": (_HELLO, b"data: x\n"),
    "an object of many lines": (_HELLO + b'data: {"a":[\n', b"data: }\n"),
    "run-together objects": (_HELLO + b"data: ", b"{}"),
    "run-together objects, by lines": (_HELLO, b"data: {}\n"),
    "run-together objects with text": (_HELLO + b"data: ", b'{"choices":[{"delta":{"content":"x"}}]}'),
    "one-character arguments": (_NAMED, _call("x")),
    "one-character arguments without a name": (b"", _call("x")),
    "braces as arguments": (_NAMED + _call('{"a":['), _call("}")),
    "braces as arguments, with an id": (_call('{"a":[', name="f"), b"data: " + json.dumps(
        {"choices": [{"delta": {"tool_calls": [{"id": "z", "function": {"arguments": "}"}}]}}]}).encode() + b"\n\n"),
    "objects as arguments": (_NAMED, _call("{}")),
    "other objects after large arguments": (_BIG_CALL, _call('{"a": 1}')),
    "sums of large calls": (_BIG_CALL, _message(tool_calls=[{"function": {"name": "look_up", "arguments": "{}"}}])),
    "sums of a large text": (_LONG, _message(content="long long")),
    "repeats at the end": (_LONG + _event({}, finish_reason="stop"), _event({"content": "long long long long"})),
    "many choices": (_HELLO, b'data: {"choices":[' + b'{"index":5,"delta":{"content":"x"}},' * 3000 + b"{}]}\n\n"),
    "a large index": (_HELLO, b'data: {"choices":[{"index":1000000000,"delta":{"content":"x"}}]}\n\n'),
    "extras": (_HELLO, _event({"annotations": [{"a": "x" * 100}]})),
    "a document of lists": (b'{"choices":[', b"[],"),
    "an event of lists": (_HELLO + b'data: {"choices":[', b"[],"),
    "one-byte chunks": (b"", b""),
}  # fmt: skip


def _sent(name: str, packed: bool) -> Iterator[bytes]:
    begin, more = BODIES[name]
    if name == "one-byte chunks":
        yield b"5\r\ndata:\r\n"
        while True:
            yield b"1\r\nx\r\n" * (_SENT_AT_ONCE // 6)
    if not packed:
        yield begin
        block = more * (_SENT_AT_ONCE // len(more) + 1)
        while True:
            yield block
    # A megabyte of text for each kilobyte.
    yield gzip.compress(begin + more * (64 * 1024 * 1024 // len(more)), 6)


async def _serve(pipe: Connection) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            case = next(line for line in head.splitlines() if line.lower().startswith("x-case:"))
            name, _, packing = case.partition(":")[2].strip().partition("|")
            coding = "Content-Encoding: gzip\r\n" if packing == "gzip" else ""
            framing = "Transfer-Encoding: chunked" if name == "one-byte chunks" else "Connection: close"
            writer.write(f"HTTP/1.1 200 OK\r\n{framing}\r\nContent-Type: text/event-stream\r\n{coding}\r\n".encode())
            sent = 0
            for block in _sent(name, packing == "gzip"):
                writer.write(block)
                await writer.drain()
                sent += len(block)
                if sent > _MOST_SENT:
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    pipe.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def _server(pipe: Connection) -> None:
    asyncio.run(_serve(pipe))


async def _worst_delay(stop: asyncio.Event) -> float:
    worst = 0.0
    while not stop.is_set():
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        worst = max(worst, time.perf_counter() - before - 0.001)
    return worst


async def _ask(port: int, case: str, *, stream: bool) -> str:
    upstream = Upstream(name="acme", base_url=f"http://127.0.0.1:{port}/v1", models=(_MODEL,), headers={"X-Case": case})
    guard = Guard(
        bulkhead=Bulkhead(slots=10, queue_size=10, queue_timeout=20),
        breaker=BreakerPolicy(),
        retry=RetryPolicy(retries=0),
        budget=RetryBudget(fraction=0.2, reserve=10),
        timeout=_SECONDS,
        idle_timeout=_SECONDS,
    )
    client = HttpClient(max_reply_bytes=_MAX_REPLY, keep_cookies=False)
    provider = OpenAICompatibleProvider(upstream, client=client, guard=guard, max_reply_bytes=_MAX_REPLY)
    await provider.start()
    request = CompletionRequest(model=_MODEL, prompt=message_prompt((Message("user", "Hi"),), _LIMIT), caller_id="a")
    try:
        if not stream:
            return f"an answer of {len((await provider.create_completion(request)).text)} characters"
        size = 0
        async for delta in provider.stream_completion(request):
            size += len(delta.text)
    except GatewayError as error:
        return f"{error.code}: {error.message}"
    finally:
        await provider.aclose()
    return f"a stream of {size} characters"


async def _measure(port: int, words: list[str]) -> None:
    print(f"{'reply':62} {'seconds':>8} {'worst ms':>9}  end")
    for name in BODIES:
        for packing in ("", "gzip"):
            for stream in (True, False):
                case = f"{name}{' (gzip)' if packing else ''}{', streamed' if stream else ', whole'}"
                if (packing and not BODIES[name][1]) or (words and not any(word in case for word in words)):
                    continue
                gc.collect()
                stop = asyncio.Event()
                watch = asyncio.create_task(_worst_delay(stop))
                began = time.perf_counter()
                end = await _ask(port, f"{name}|{packing}", stream=stream)
                seconds = time.perf_counter() - began
                stop.set()
                print(f"{case:62} {seconds:8.2f} {await watch * 1000:9.1f}  {end[:90]}", flush=True)


def main(words: list[str]) -> None:
    """Measure and print."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    server = context.Process(target=_server, args=(theirs,), daemon=True)
    server.start()
    run: Callable[..., None] = uvloop.run
    try:
        run(_measure(mine.recv(), words))
    finally:
        server.terminate()


if __name__ == "__main__":
    main(sys.argv[1:])
