"""An upstream that costs next to nothing: the Kimi site's face and OpenAI's, from prepared bytes.

    python -m benchmarks.mock --port 9000

    GET  /chat/                     the chat page with a nonce
    POST /wp-admin/admin-ajax.php   a message: the reply comes whole
    POST /v1/chat/completions       OpenAI's API; with "stream":true in paced chunks
    GET  /_mock?delay=0.5&pieces=75 changes the knobs and answers with the counters

`delay` is in seconds before an answer, `pieces` its length in pieces of four characters, `gap` the seconds between two
chunks of a stream.

It checks nothing of what it is sent but where it ends.
"""

import argparse
import asyncio
import json
import re
import time
from typing import cast
from urllib.parse import parse_qsl, urlsplit

import uvloop

PIECE = 4
_WORDS = "the quick brown fox jumps over a lazy dog while small waves roll on to the shore and back again "
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream": ?true')
_SLOTS = 10
_PAGE = """<!DOCTYPE html><html><head><title>Chat</title></head><body>
<script id="kimi-chat-js-extra">
var kimi_ajax = {"ajax_url":"\\/wp-admin\\/admin-ajax.php","nonce":"0a1b2c3d4e"};
</script></body></html>"""


def reply_text(pieces: int) -> str:
    """The answer: `pieces` times four characters."""
    size = pieces * PIECE
    return (_WORDS * (size // len(_WORDS) + 1))[:size]


def _response(body: bytes, kind: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (kind, len(body), body)


def _json(document: object) -> bytes:
    return _response(json.dumps(document, separators=(",", ":")).encode(), b"application/json")


class Upstream:
    """The knobs, the prepared answers, and the streams under way."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.gap = 0.02
        self.in_flight = 0
        self.served = 0
        self.page = _response(_PAGE.encode(), b"text/html; charset=UTF-8")
        self.prepare(75)
        self._slots: list[list[_Stream]] = [[] for _ in range(_SLOTS)]
        self._tick = 0
        self._running = False

    def prepare(self, pieces: int) -> None:
        """Make all answers of so many pieces."""
        self.pieces = pieces
        text = reply_text(pieces)
        self.kimi = _json({"success": True, "data": {"message": text}})
        self.openai = _json(_completion(text))
        self.chunks = _chunks(text)

    def turn(self, knobs: dict[str, str]) -> bytes:
        """Change knobs; the counters as an answer."""
        self.delay = float(knobs.get("delay", self.delay))
        self.gap = float(knobs.get("gap", self.gap))
        if "pieces" in knobs:
            self.prepare(int(knobs["pieces"]))
        return _json({"in_flight": self.in_flight, "served": self.served})

    def stream(self, transport: asyncio.WriteTransport) -> None:
        """Send a streamed answer: its first chunk at once, the others one after each gap."""
        stream = _Stream(transport, self.chunks)
        if stream.write():
            self._slots[self._tick].append(stream)
            if not self._running:
                self._running = True
                self._due = asyncio.get_running_loop().time()
                self._next()

    def _next(self) -> None:
        """One task for all streams: a gap has ten slots, and each stream keeps the one that it began in."""
        loop = asyncio.get_running_loop()
        self._tick = (self._tick + 1) % _SLOTS
        slot = self._slots[self._tick]
        self._slots[self._tick] = [stream for stream in slot if stream.write()]
        if any(self._slots):
            self._due = max(self._due + self.gap / _SLOTS, loop.time())
            loop.call_at(self._due, self._next)
        else:
            self._running = False


class _Stream:
    """A streamed answer under way."""

    __slots__ = ("_chunks", "_place", "_transport")

    def __init__(self, transport: asyncio.WriteTransport, chunks: list[bytes]) -> None:
        self._transport, self._chunks, self._place = transport, chunks, 0

    def write(self) -> bool:
        """Send the next chunk; is there another one?"""
        if self._transport.is_closing():
            return False
        self._transport.write(self._chunks[self._place])
        self._place += 1
        return self._place < len(self._chunks)


class _Connection(asyncio.Protocol):
    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        data = self._unread + data if self._unread else data
        while data:
            head = data.find(b"\r\n\r\n")
            if head < 0:
                break
            length = _LENGTH.search(data, 0, head)
            end = head + 4 + (int(length[1]) if length else 0)
            if len(data) < end:
                break
            self._answer(data[:end], head)
            data = data[end:]
        self._unread = data

    def _answer(self, request: bytes, head: int) -> None:
        upstream = self._upstream
        if request.startswith(b"POST /wp-admin/"):
            self._later(upstream.kimi)
        elif request.startswith(b"POST /"):
            self._later(b"" if _STREAM.search(request, head) else upstream.openai)
        elif request.startswith(b"GET /_mock"):
            target = request.split(b" ", 2)[1].decode()
            self._transport.write(upstream.turn(dict(parse_qsl(urlsplit(target).query))))
        else:
            self._transport.write(upstream.page)

    def _later(self, answer: bytes) -> None:
        """Answer after the delay; nothing stands for a stream."""
        upstream = self._upstream
        upstream.served += 1
        if upstream.delay:
            upstream.in_flight += 1
            asyncio.get_running_loop().call_later(upstream.delay, self._end_delay, answer)
        else:
            self._send(answer)

    def _end_delay(self, answer: bytes) -> None:
        self._upstream.in_flight -= 1
        if not self._transport.is_closing():
            self._send(answer)

    def _send(self, answer: bytes) -> None:
        if answer:
            self._transport.write(answer)
        else:
            self._upstream.stream(self._transport)


def _completion(text: str) -> dict[str, object]:
    message = {"role": "assistant", "content": text, "refusal": None}
    return {
        "id": "chatcmpl-0123456789abcdef01234567",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": "mock",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 60, "completion_tokens": 75, "total_tokens": 135},
    }


def _chunks(text: str) -> list[bytes]:
    """What is written at each tick: the first has the head, too, and the last one the end."""
    events = [_event({"content": text[start : start + PIECE]}, finish=None) for start in range(0, len(text), PIECE)]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    events[0] = head + _event({"role": "assistant", "content": ""}, finish=None) + events[0]
    events[-1] += _event({}, finish="stop") + _chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    return events


def _event(delta: dict[str, str], finish: str | None) -> bytes:
    document = {
        "id": "chatcmpl-0123456789abcdef01234567",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": "mock",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
    }
    return _chunked(b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n")


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def serve(port: int) -> None:
    """Serve until the process is ended."""
    upstream = Upstream()
    server = await asyncio.get_running_loop().create_server(
        lambda: _Connection(upstream), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))
