"""Answers to requests that are passed on, over a real socket: what is an answer, and what it tells of tokens."""

import asyncio
import json
from collections.abc import Sequence

import pytest

from app.domain.chat import Usage
from app.domain.errors import GatewayError, InvalidRequest, UpstreamRateLimited, UpstreamUnavailable
from app.domain.relay import Payload, RelayHead
from app.providers.base import RelayRequest
from app.providers.openai_compatible.relay import UsageFinder
from tests.providers.openai_compatible.upstream import KEY, LAST_CHUNK, MODEL, chunked, provider_at, raw_upstream, reply


async def relayed(*answer: bytes) -> tuple[RelayHead, bytes, list[Usage]]:
    """Head, body and tokens of what is passed on."""
    told: list[Usage] = []
    async with raw_upstream(answer) as upstream, provider_at(upstream.base_url) as provider:
        request = RelayRequest(
            model=MODEL,
            path="/embeddings",
            subject="input",
            payload=Payload(b'{"input": "x"}'),
            caller_id="alice",
            deadline=asyncio.get_running_loop().time() + 20,
            retries=False,
            report=told.append,
        )
        parts = provider.relay(request)
        head = await anext(parts)
        assert isinstance(head, RelayHead)
        body = b"".join([part async for part in parts if isinstance(part, bytes)])
        (sent,) = upstream.requests
        assert (sent.line, sent.headers["authorization"]) == ("POST /v1/embeddings HTTP/1.1", f"Bearer {KEY}")
        return head, body, told


async def test_an_answer_is_passed_on_with_its_type_and_length() -> None:
    """Whatever it is, byte for byte."""
    audio = bytes(range(256)) * 1000
    assert await relayed(*reply(audio, kind="audio/mpeg")) == (RelayHead("audio/mpeg", len(audio)), audio, [])


@pytest.mark.parametrize("size", [10, 200_000], ids=["short", "long"])
@pytest.mark.parametrize("has_length", [True, False], ids=["of known length", "in chunks"])
@pytest.mark.parametrize("place", ["first", "last"])
async def test_tokens_are_found_wherever_they_are_told(size: int, has_length: bool, place: str) -> None:
    """Before an image of any size, or after it."""
    usage, data = {"usage": {"prompt_tokens": 7, "total_tokens": 9, "details": {"a": 1}}}, {"data": "x" * size}
    body = json.dumps({**usage, **data} if place == "first" else {**data, **usage}).encode()
    answer = reply(body) if has_length else chunked(body[:50], body[50:])
    answer = answer if has_length else [answer[0].replace(b"text/event-stream", b"application/json"), *answer[1:]]
    head, got, told = await relayed(*answer, *([] if has_length else [LAST_CHUNK]))
    assert (got, told) == (body, [Usage(7, 0)])
    assert head.length == (len(body) if has_length else None)


@pytest.mark.parametrize(
    ("text", "usage"),
    [
        ('{"usage": {"prompt_tokens": 3, "completion_tokens": 4}}', Usage(3, 4)),
        ('{"usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}}', Usage(3, 4)),
        ('{"usage": {"total_tokens": 5}}', Usage(5, 0)),
        ('data: {"usage": null}\n\ndata: {"usage" : {"input_tokens": 1}}\n\n', Usage(1, 0)),
        ('{"usage": {"type": "duration", "seconds": 3}}', None),
        ('{"usage": {"prompt_tokens": -1}}', None),
        ('{"usage": {"prompt_tokens": true}}', None),
        ('{"usage": {"prompt_tokens": 3', None),
        ('{"text": "\\"usage\\": {\\"prompt_tokens\\": 3}"}', None),
        ("", None),
    ],
)
def test_tokens_are_read_in_each_form(text: str, usage: Usage | None) -> None:
    """By the names of any endpoint, cut anywhere; never from within a text."""
    for size in (1, 7, 10_000):
        finder = UsageFinder(RelayHead("application/json"))
        for place in range(0, len(text), size):
            finder.feed(text[place : place + size].encode())
        assert finder.usage == usage


IN_CHUNKS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
ERROR = b'{"error": {"message": "Rate limit reached", "code": 429}}'
FAILURES: dict[str, tuple[Sequence[bytes], type[GatewayError], str]] = {
    "an error with 200": (reply(ERROR), UpstreamRateLimited, "acme asks for fewer requests"),
    "the same in chunks": ([IN_CHUNKS, b"%x\r\n%b\r\n" % (len(ERROR), ERROR), LAST_CHUNK], UpstreamRateLimited, "acme"),
    "a text that is too long": (
        reply({"error": {"message": "This input is too long: maximum context length is 8192 tokens"}}, "400 Bad"),
        InvalidRequest,
        "maximum context length is 8192 tokens. The request is too long for the model at acme",
    ),
    "no endpoint": (reply({"detail": "Not Found"}, "404 Not Found"), GatewayError, "acme has no endpoint /embeddings"),
    "a page": (reply(b"<html>Sign in</html>", kind="text/html"), GatewayError, "a web page instead of an answer"),
    "half a head": ([b"HTTP/1.1 200 OK\r\nContent-Le"], UpstreamUnavailable, "without an answer"),
    "no body": ([b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nContent-Type: a/b\r\n\r\n"], GatewayError, "broke off"),
}


@pytest.mark.parametrize(("answer", "kind", "words"), FAILURES.values(), ids=FAILURES)
async def test_what_is_no_answer(answer: Sequence[bytes], kind: type[GatewayError], words: str) -> None:
    """It is an error before anything is passed on, in the gateway's words."""
    with pytest.raises(kind, match=words) as raised:
        await relayed(*answer)
    assert raised.value.param in (None, "input")
