"""What the simulated API does besides chats: embeddings, ranking, moderation, images, speech.

The same request always gets the same answer, of the form that OpenAI's answers have.
"""

import asyncio
import base64
import hashlib
import json
import re
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from simulator.behaviour import Behaviour
from simulator.openai_answers import tokens
from simulator.openai_api import API_PATH, refused_key
from simulator.openai_failures import API_ERRORS
from simulator.responses import END, JSON, Messages, Streamed, Watched, piece, start
from simulator.server import HANG_UP, RESET
from simulator.site import Site

_EVENTS: Final = "text/event-stream"
_DIMENSIONS: Final = 8
_PIECE: Final = 64 * 1024
# Of speech: samples a second, and how many of them a character takes.
_RATE: Final = 24_000
_SAMPLES: Final = 1440
_PART: Final = re.compile(rb'name="([^"]*)"(?:; filename="([^"]*)")?')
# Harmful, as the simulator sees it.
_HARMFUL: Final = "kill"
_HEARD: Final = ("This ", "is what ", "was said.")
_LARGEST_SIDE: Final = 4096


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered, in as many parts as it is sent in."""

    content_type: str
    parts: tuple[bytes, ...]


def service_routes(site: Site) -> Sequence[Route]:
    """The routes of these endpoints."""
    return [
        Route(f"{API_PATH}{path}", partial(_serve, site, path, answer), methods=["POST"])
        for path, answer in _ANSWERS.items()
    ]


async def _serve(site: Site, path: str, answer: Callable[[Mapping[str, Any]], Answer], request: Request) -> ASGIApp:
    body = {"path": path, **_fields(request.headers.get("content-type", ""), await request.body())}
    desk = site.api
    desk.begin(body)

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        behaviour, failure = site.take_api_failure()
        await asyncio.sleep(behaviour.api_latency_s)
        refusal = refused_key(request, behaviour) or API_ERRORS.get(failure or "")
        shown: ASGIApp
        if refusal is not None:
            shown = refusal.response(behaviour)
        elif not body.get("model"):
            shown = Response('{"error": {"message": "you must provide a model parameter"}}', 400, media_type=JSON)
        else:
            shown = Streamed(_messages(answer(body), failure, behaviour))
        await shown(scope, receive, send)

    return Watched(respond, ended=partial(desk.end, abandoned=False), left=partial(desk.end, abandoned=True))


async def _messages(answer: Answer, failure: str | None, behaviour: Behaviour) -> Messages:
    """The answer to a request that is in order, or what goes wrong with it."""
    if failure == "hang":
        await asyncio.Event().wait()
    if failure == "reset":
        yield RESET
    is_stream = answer.content_type == _EVENTS
    yield start(answer.content_type, None if is_stream else sum(map(len, answer.parts)))
    breaks_off = failure is not None and failure.endswith("_mid_answer")
    for number, part in enumerate(answer.parts):
        if number and behaviour.api_chunk_delay_s:
            await asyncio.sleep(behaviour.api_chunk_delay_s)
        if breaks_off and number == len(answer.parts) // 2:
            yield piece(part[: len(part) // 2])
            if failure == "hang_mid_answer":
                await asyncio.Event().wait()
            yield HANG_UP
        yield piece(part)
    yield END


def _fields(content_type: str, body: bytes) -> dict[str, Any]:
    """The fields of a request; of a file its name, its size and a digest."""
    found = re.search(r'boundary="?([^";]+)', content_type)
    if found is None:
        try:
            document = json.loads(body)
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}
    fields: dict[str, Any] = {}
    for part in body.split(f"--{found[1]}".encode()):
        head, _, value = part.partition(b"\r\n\r\n")
        if (named := _PART.search(head)) is not None:
            value = value.removesuffix(b"\r\n")
            is_file = named[2] is not None
            fields[named[1].decode("utf-8", "replace")] = (
                {
                    "filename": named[2].decode("utf-8", "replace"),
                    "size": len(value),
                    "sha256": hashlib.sha256(value).hexdigest(),
                }
                if is_file
                else value.decode("utf-8", "replace")
            )
    return fields


def _json(document: Mapping[str, Any]) -> Answer:
    body = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
    return _pieces(JSON, body)


def _pieces(content_type: str, body: bytes) -> Answer:
    return Answer(content_type, tuple(body[place : place + _PIECE] for place in range(0, len(body), _PIECE)))


def _events(*documents: Mapping[str, Any]) -> Answer:
    return Answer(
        _EVENTS, tuple(b"event: %b\ndata: %b\n\n" % (each["type"].encode(), _json(each).parts[0]) for each in documents)
    )


def _embeddings(body: Mapping[str, Any]) -> Answer:
    given = body.get("input")
    is_many = isinstance(given, list) and not all(isinstance(one, int) for one in given)
    inputs = given if isinstance(given, list) and is_many else [given]
    vectors = [_vector(json.dumps(one)) for one in inputs]
    packs = body.get("encoding_format") == "base64"
    rows = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if packs else vector}
        for index, vector in enumerate(vectors)
    ]
    read = sum(tokens(len(one) if isinstance(one, str) else 4) for one in inputs)
    usage = {"prompt_tokens": read, "total_tokens": read}
    return _json({"object": "list", "data": rows, "model": body["model"], "usage": usage})


def _vector(text: str) -> list[float]:
    return [(byte - 128) / 128 for byte in hashlib.sha256(text.encode()).digest()[:_DIMENSIONS]]


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _ranking(body: Mapping[str, Any]) -> Answer:
    asked = set(str(body.get("query")).lower().split())
    given = body.get("documents")
    rows = given if isinstance(given, list) else []
    documents = [str(one.get("text") if isinstance(one, dict) else one) for one in rows]
    scores = {
        index: len(asked & set(text.lower().split())) / max(len(asked), 1) for index, text in enumerate(documents)
    }
    best = sorted(scores, key=lambda index: -scores[index])
    results = [{"index": index, "relevance_score": scores[index]} for index in best]
    usage = {"total_tokens": tokens(sum(map(len, documents)))}
    # As Cohere bills: by hundred documents.
    billed = {"billed_units": {"search_units": max(1, -(-len(documents) // 100))}}
    return _json({"model": body["model"], "usage": usage, "meta": billed, "results": results})


def _moderation(body: Mapping[str, Any]) -> Answer:
    given = body.get("input")
    results = []
    for one in given if isinstance(given, list) else [given]:
        harmful = _HARMFUL in json.dumps(one)
        categories = {"violence": harmful}
        scores = {"violence": 0.9 if harmful else 0.0}
        results.append({"flagged": harmful, "categories": categories, "category_scores": scores})
    return _json({"id": "modr-simulated", "model": body["model"], "results": results})


def _images(body: Mapping[str, Any]) -> Answer:
    asked = re.fullmatch(r"(\d{1,4})x(\d{1,4})", str(body.get("size")))
    width, height = (min(int(side), _LARGEST_SIDE) for side in asked.groups()) if asked else (64, 64)
    image = base64.b64encode(png(width, height)).decode()
    usage = {"input_tokens": tokens(len(str(body.get("prompt") or ""))), "output_tokens": width * height // 256}
    usage["total_tokens"] = sum(usage.values())
    if body.get("stream") in (True, "true") and body["path"] != "/images/variations":
        partial_image = {"type": "image_generation.partial_image", "b64_json": image, "partial_image_index": 0}
        return _events(partial_image, {"type": "image_generation.completed", "b64_json": image, "usage": usage})
    return _json({"created": 1_700_000_000, "data": [{"b64_json": image}], "usage": usage})


def png(width: int, height: int) -> bytes:
    """An image in stripes, not compressed."""
    line = b"\0" + bytes(range(0, 240, 10)) * (width * 3 // 24 + 1)
    rows = line[: 1 + width * 3] * height
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows, 0)))
    written = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (*chunks, (b"IEND", b""))
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


def _speech(body: Mapping[str, Any]) -> Answer:
    text = str(body.get("input") or "")
    if body.get("stream_format") == "sse":
        audio = base64.b64encode(wav(text)).decode()
        usage = {"input_tokens": tokens(len(text)), "output_tokens": len(text), "total_tokens": 0}
        return _events({"type": "speech.audio.delta", "audio": audio}, {"type": "speech.audio.done", "usage": usage})
    return _pieces("audio/wav", wav(text))


def wav(text: str) -> bytes:
    """Silence of the length that it takes to say a text."""
    size = len(text) * _SAMPLES * 2
    shape = struct.pack("<IHHIIHH", 16, 1, 1, _RATE, _RATE * 2, 2, 16)
    head = struct.pack("<4sI4s4s", b"RIFF", 36 + size, b"WAVE", b"fmt ") + shape + struct.pack("<4sI", b"data", size)
    return head + bytes(size)


# What stands before the text in forms that aren't JSON.
_PLAIN: Final = {
    "text": "",
    "srt": "1\n00:00:00,000 --> 00:00:01,500\n",
    "vtt": "WEBVTT\n\n00:00.000 --> 00:01.500\n",
}


def _transcript(body: Mapping[str, Any]) -> Answer:
    text = "".join(_HEARD)
    usage = {"type": "tokens", "input_tokens": 14, "output_tokens": 5, "total_tokens": 19}
    if body.get("stream") == "true" and body["path"] != "/audio/translations":
        deltas = [{"type": "transcript.text.delta", "delta": word} for word in _HEARD]
        return _events(*deltas, {"type": "transcript.text.done", "text": text, "usage": usage})
    kind = body.get("response_format")
    if kind in _PLAIN:
        return _pieces("text/plain; charset=utf-8", f"{_PLAIN[kind]}{text}\n".encode())
    more = {"task": "transcribe", "language": "english", "duration": 1.5, "segments": []}
    return _json({"text": text, "usage": usage, **(more if kind == "verbose_json" else {})})


_ANSWERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Answer]]] = {
    "/embeddings": _embeddings,
    "/rerank": _ranking,
    "/moderations": _moderation,
    "/images/generations": _images,
    "/images/edits": _images,
    "/images/variations": _images,
    "/audio/speech": _speech,
    "/audio/transcriptions": _transcript,
    "/audio/translations": _transcript,
}
