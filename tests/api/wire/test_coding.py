"""Bodies that come compressed."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.conftest import StartGateway

HELLO = json.dumps({"messages": [{"role": "user", "content": "Hello"}], "metadata": {"a": "x" * 2000}}).encode()


def _bare(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


def _in_pieces(body: bytes) -> Iterator[bytes]:
    for start in range(len(body)):
        yield body[start : start + 1]


@pytest.mark.parametrize(
    ("coding", "encode"),
    [
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", _bare),
        ("identity", bytes),
        ("", bytes),
        ("identity, gzip", gzip.compress),
        ("deflate, gzip", lambda body: gzip.compress(zlib.compress(body))),
    ],
)
@pytest.mark.parametrize("in_pieces", [False, True])
def test_a_compressed_body_is_read(
    client: httpx.Client, coding: str, encode: Callable[[bytes], bytes], in_pieces: bool
) -> None:
    """In every coding that can be read, however it is cut on the way."""
    body = encode(HELLO)
    response = client.post(
        "/v1/chat/completions",
        content=_in_pieces(body) if in_pieces else body,
        headers={"Content-Encoding": coding, "Content-Type": "application/json"},
    )
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"input": "Hello"}),
        ("/v1/responses/input_tokens", {"input": "Hello"}),
        ("/v1/completions", {"prompt": "Hello"}),
        ("/v1/messages", {"model": "kimi", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}),
        ("/v1/messages/count_tokens", {"model": "kimi", "messages": [{"role": "user", "content": "Hello"}]}),
        ("/v1beta/models/kimi:generateContent", {"contents": [{"parts": [{"text": "Hello"}]}]}),
        ("/v1beta/models/kimi:countTokens", {"contents": [{"parts": [{"text": "Hello"}]}]}),
    ],
)
def test_every_address_that_takes_a_body_takes_it_compressed(
    client: httpx.Client, path: str, body: dict[str, object]
) -> None:
    """Also those that the web framework serves."""
    packed = gzip.compress(json.dumps(body).encode())
    assert client.post(path, content=packed, headers={"Content-Encoding": "gzip"}).status_code == 200
    assert client.post(path, content=packed, headers={"Content-Encoding": "zstd"}).status_code == 415


@pytest.mark.parametrize("coding", ["zstd", "br", "gzip, br", "gzip, gzip, gzip", "unheard-of"])
def test_what_can_not_be_read_is_told_what_can(client: httpx.Client, coding: str) -> None:
    """A 415 in the envelope, with the codings that are read."""
    response = client.post("/v1/chat/completions", content=HELLO, headers={"Content-Encoding": coding})
    assert (response.status_code, response.json()["error"]["code"]) == (415, "unsupported_content_encoding")
    assert response.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", HELLO),
        ("deflate", b"\x78" + HELLO),
        ("gzip", gzip.compress(HELLO)[:-5]),
        ("gzip", gzip.compress(HELLO) + b"more"),
        ("deflate", zlib.compress(HELLO)[:9]),
    ],
    ids=["plain", "broken", "cut off", "followed by more", "cut off early"],
)
def test_a_body_that_is_not_what_it_says_is_refused(client: httpx.Client, coding: str, body: bytes) -> None:
    """Broken, cut off or with something behind it: a 400 that says so, and not that there is no JSON."""
    response = client.post("/v1/chat/completions", content=body, headers={"Content-Encoding": coding})
    assert response.status_code == 400
    assert coding in response.json()["error"]["message"]


@pytest.mark.parametrize("packed_twice", [False, True])
def test_a_body_is_bounded_by_what_it_is_decompressed(start_gateway: StartGateway, packed_twice: bool) -> None:
    """A bomb, which is small on the way, is a 413 in any number of layers; what fits is read."""
    fits = json.dumps({"messages": [{"role": "user", "content": "Hello"}], "metadata": {"a": "x" * 8000}}).encode()
    bomb = fits + b" " * 50_000_000
    coding = "gzip, gzip" if packed_twice else "gzip"
    with start_gateway(max_body_bytes=10_000) as gateway, gateway.client() as http:
        statuses = []
        for body in (fits, bomb[:9_000_000] if not packed_twice else bomb):
            packed = gzip.compress(gzip.compress(body)) if packed_twice else gzip.compress(body)
            assert len(packed) < 10_000
            response = http.post("/v1/chat/completions", content=packed, headers={"Content-Encoding": coding})
            statuses.append(response.status_code)
    assert statuses == [200, 413]
