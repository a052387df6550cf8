"""An upstream that sends exactly the bytes that a test wants, over a real socket, and remembers what it was sent."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from app.domain.chat import Completion, Delta, Message, ToolCall, merged_extras
from app.domain.prompt import PromptLimit, message_prompt
from app.providers.api_upstream.upstream import Quirks, Upstream
from app.providers.base import Ability, CompletionRequest, ModelSpec
from app.providers.http import HttpClient
from app.providers.openai_compatible.provider import OpenAICompatibleProvider
from app.providers.resilience.breaker import BreakerPolicy
from app.providers.resilience.guard import Guard
from app.providers.resilience.limits import Bulkhead, RetryBudget, RetryPolicy

KEY = "sk-upstream-71c0ffee5ab1e"
LAST_CHUNK = b"0\r\n\r\n"
LIMIT = PromptLimit(1000, "tokens")
ABILITIES: frozenset[Ability] = frozenset({"messages", "options", "tools", "json_object", "json_schema", "images"})
MODEL = ModelSpec(id="m", upstream_id="vendor-m", prompt_limit=LIMIT, owned_by="vendor", abilities=ABILITIES)


@dataclass(slots=True)
class Sent:
    """One request, as it came."""

    line: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def key(self) -> str:
        """The key that it came with."""
        headers = (self.headers.get(name) for name in ("authorization", "x-api-key", "x-goog-api-key"))
        return next(filter(None, headers), "").removeprefix("Bearer ")


@dataclass(slots=True)
class RawUpstream:
    """What is sent back: the pieces of each answer in turn, the last one for ever."""

    base_url: str = ""
    answers: list[Sequence[bytes]] = field(default_factory=list)
    by_key: dict[str, list[Sequence[bytes]]] = field(default_factory=dict)
    """The same for requests with these keys."""
    hold: asyncio.Event | None = None
    """With one, the connection stays open after the last piece until it is set or the client leaves."""
    requests: list[Sent] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    connections: int = 0
    written: int = 0
    """Answers whose last piece is on its way."""
    serving: set["asyncio.Task[None]"] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if (task := asyncio.current_task()) is not None:
            self.serving.add(task)
        try:
            while (sent := await _read(reader)) is not None:
                self.requests.append(sent)
                self.asked.set()
                answers = self.by_key.get(sent.key, self.answers)
                pieces = answers.pop(0) if len(answers) > 1 else answers[0]
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await _let_it_be_read()
                self.written += 1
                if self.hold is None and b"\r\nContent-Length:" not in pieces[0] and pieces[-1] != LAST_CHUNK:
                    return
                if self.hold is not None:
                    await self._wait(reader, self.hold)
        except ConnectionError:
            pass
        finally:
            self.left.set()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _wait(self, reader: asyncio.StreamReader, hold: asyncio.Event) -> None:
        waits = [asyncio.create_task(hold.wait()), asyncio.create_task(reader.read(1))]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        raise ConnectionResetError


async def _let_it_be_read() -> None:
    """A few rounds of the event loop, which the client shares: each piece comes by itself."""
    for _ in range(6):
        await asyncio.sleep(0)


async def _read(reader: asyncio.StreamReader) -> Sent | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return None
    line, *rest = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (row.partition(":") for row in rest)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Sent(line, headers, json.loads(body) if body else {})


@asynccontextmanager
async def raw_upstream(*answers: Sequence[bytes], hold: bool = False) -> AsyncGenerator[RawUpstream, None]:
    """Listen for as long as the context lasts."""
    upstream = RawUpstream(answers=list(answers), hold=asyncio.Event() if hold else None)
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    upstream.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield upstream
    finally:
        if upstream.hold is not None:
            upstream.hold.set()
        server.close()
        # The provider has closed its connections by now: each is served to its end.
        if upstream.serving:
            _, unfinished = await asyncio.wait(upstream.serving, timeout=10)
            assert not unfinished


@asynccontextmanager
async def provider_at(
    base_url: str,
    *,
    guard: Guard | None = None,
    quirks: Quirks | None = None,
    max_reply_bytes: int = 1_000_000,
    **row: Any,
) -> AsyncGenerator[OpenAICompatibleProvider, None]:
    """A provider that has been started, with a key and one model with all abilities."""
    values: dict[str, Any] = {"name": "acme", "key": KEY, "key_name": "ACME_API_KEY", "models": (MODEL,), **row}
    upstream = Upstream(base_url=base_url, quirks=quirks or Quirks(), **values)
    client = HttpClient(max_reply_bytes=max_reply_bytes, keep_cookies=False)
    provider = OpenAICompatibleProvider(
        upstream, client=client, guard=guard or make_guard(), max_reply_bytes=max_reply_bytes
    )
    await provider.start()
    try:
        yield provider
    finally:
        await provider.aclose()


def make_guard(*, retries: int = 0, timeout: float = 20.0, idle_timeout: float | None = 20.0, slots: int = 10) -> Guard:
    """A guard without pauses, and without retries unless asked for."""
    return Guard(
        bulkhead=Bulkhead(slots=slots, queue_size=10, queue_timeout=20),
        breaker=BreakerPolicy(),
        retry=RetryPolicy(retries=retries, first_pause=0.0),
        budget=RetryBudget(fraction=0.2, reserve=10),
        timeout=timeout,
        idle_timeout=idle_timeout,
    )


def wanted(*messages: Message, **fields: Any) -> CompletionRequest:
    """A request for an answer of the one model."""
    prompt = message_prompt(messages or (Message("user", "Hello"),), LIMIT)
    return CompletionRequest(**{"model": MODEL, "prompt": prompt, "caller_id": "alice", **fields})


def reply(body: object, status: str = "200 OK", kind: str = "application/json", **headers: str) -> list[bytes]:
    """A whole answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\nContent-Type: {kind}\r\n{more}\r\n"
    return [head.encode() + data]


def stream(*pieces: bytes, kind: str = "text/event-stream") -> list[bytes]:
    """A stream that ends with its connection, piece by piece."""
    return [f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n".encode(), *pieces]


def chunked(*pieces: bytes) -> list[bytes]:
    """A stream in chunks, which can break off."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [head, *(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)]


def event(document: object) -> bytes:
    """One event."""
    return b"data: " + json.dumps(document, ensure_ascii=False).encode() + b"\n\n"


def delta(finish_reason: str | None = None, **fields: object) -> bytes:
    """The event of one chunk."""
    return event({"choices": [{"index": 0, "delta": fields, "finish_reason": finish_reason}]})


DONE = b"data: [DONE]\n\n"


async def streamed(*answer: bytes, **options: Any) -> list[Delta]:
    """The deltas of a stream that is answered with these bytes."""
    async with raw_upstream(list(answer)) as upstream, provider_at(upstream.base_url, **options) as provider:
        return [part async for part in provider.stream_completion(wanted())]


def joined(deltas: Sequence[Delta]) -> Completion:
    """What the deltas say together."""
    parts = [part.tool_call for part in deltas if part.tool_call is not None]
    assert [part.index for part in parts] == sorted(part.index for part in parts)
    heads = {part.index: part for part in reversed(parts)}
    calls = tuple(
        ToolCall(head.id or "", head.name or "", "".join(part.arguments for part in parts if part.index == index))
        for index, head in sorted(heads.items())
    )
    assert all(part.id is None and part.name is None for part in parts if heads[part.index] is not part)
    assert deltas[-1].finish_reason is not None
    assert not any(part.finish_reason or part.usage for part in deltas[:-1])
    text, reasoning = ("".join(getattr(part, kind) for part in deltas) for kind in ("text", "reasoning"))
    extras = merged_extras([part.extras for part in deltas if part.extras])
    refusal = "".join(part.refusal for part in deltas)
    return Completion(
        text, deltas[-1].finish_reason, deltas[-1].usage, calls, reasoning, refusal=refusal, extras=extras
    )
