"""A server that says exactly what a test wants, over a real socket, and remembers what it was asked."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from app.providers.http import HttpClient

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
WAIT_SECONDS = 20.0
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@dataclass(slots=True)
class Asked:
    """One request, as it came."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Server:
    """Gives its answers in turn, the last one for ever; hangs up after one that doesn't say where it ends.

    Args:
        answers: Each the bytes of an answer, or something that talks by itself.
    """

    answers: list[bytes | Talk]
    scheme: str = "http"
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    left: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/ask"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while (asked := await read_request(reader)) is not None:
                self.asked.append(asked)
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if callable(answer):
                    await answer(reader, writer)
                    continue
                writer.write(answer)
                await writer.drain()
                if b"\r\n\r\n" in answer and b"length" not in answer.lower() and b"chunked" not in answer.lower():
                    return
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            self.left.set()
            writer.close()


async def read_request(reader: asyncio.StreamReader) -> Asked | None:
    """The next request; None if the client has gone instead."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return None
    line, *rest = head.removesuffix("\r\n\r\n").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (row.partition(":") for row in rest)}
    return Asked(line, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


@asynccontextmanager
async def server(*answers: bytes | Talk, tls: ssl.SSLContext | None = None) -> AsyncGenerator[Server, None]:
    """Listen for as long as the context lasts."""
    serving = Server(list(answers), scheme="https" if tls else "http")
    listener = await asyncio.start_server(serving.serve, "127.0.0.1", 0, ssl=tls)
    serving.port = listener.sockets[0].getsockname()[1]
    try:
        yield serving
    finally:
        listener.close()


@asynccontextmanager
async def client(*, max_reply_bytes: int = 1_000_000, keep_cookies: bool = True) -> AsyncGenerator[HttpClient, None]:
    """A client that is open for as long as the context lasts."""
    http = HttpClient(max_reply_bytes=max_reply_bytes, keep_cookies=keep_cookies)
    await http.open()
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            yield http
    finally:
        await http.aclose()


def reply(body: bytes = b"well", *headers: str, status: str = "200 OK") -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def bytewise(said: bytes) -> Talk:
    """An answer that arrives byte by byte."""

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for start in range(len(said)):
            writer.write(said[start : start + 1])
            await asyncio.sleep(0)
        if b"length" not in said.lower() and b"chunked" not in said.lower():
            writer.close()

    return talk


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something has happened that no event tells of."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def hold(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Say nothing until the client leaves."""
    await reader.read(1)
