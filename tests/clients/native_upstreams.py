"""A gateway whose upstreams have Anthropic's and Gemini's form of API, and answer as a test's script says."""

import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from anthropic import Anthropic
from openai import OpenAI

from app.assembly.app import create_app
from app.observe import logging as logs
from app.settings import load_settings
from tests.clients import anthropic_sdk, sdk
from tests.ledger.upstream import upstream_in_thread
from tests.live import ALICE_KEY, UPSTREAM_KEY, LiveGateway, serving
from tests.providers.openai_compatible.upstream import LAST_CHUNK, RawUpstream, chunked

CLAUDE, GEMINI = "claude-test", "gemini-test"
_FILE = """
[[providers]]
name = "claude"
kind = "anthropic"
base_url = "{url}"
headers = {{ "x-api-key" = "{key}" }}
models = [{{ id = "claude-test", upstream_id = "claude-own-name" }}]

[[providers]]
name = "google"
kind = "gemini"
base_url = "{host}"
headers = {{ "x-goog-api-key" = "{key}" }}
models = [{{ id = "gemini-test", upstream_id = "gemini-3-own-name" }}]

[routes]
either = ["claude-test", "kimi-k2-instruct"]
"""


@pytest.fixture
def upstream(served: tuple[LiveGateway, RawUpstream]) -> RawUpstream:
    """The upstream of a module's `served`, asked for nothing yet."""
    served[1].requests.clear()
    return served[1]


@pytest.fixture
def claude(served: tuple[LiveGateway, RawUpstream]) -> Iterator[Anthropic]:
    """Anthropic's SDK."""
    with anthropic_sdk.connect(served[0]) as client:
        yield client


@pytest.fixture
def chat(served: tuple[LiveGateway, RawUpstream]) -> Iterator[OpenAI]:
    """OpenAI's SDK."""
    with sdk.connect(served[0]) as client:
        yield client


@contextmanager
def native_gateway(directory: Path, **settings: object) -> Iterator[tuple[LiveGateway, RawUpstream]]:
    """Serve both until the context ends. The Kimi site is away."""
    with upstream_in_thread() as upstream:
        file = directory / "providers.toml"
        file.write_text(
            _FILE.format(url=upstream.base_url, host=upstream.base_url.removesuffix("/v1"), key=UPSTREAM_KEY)
        )
        values: dict[str, object] = {
            "_env_file": None,
            "api_master_key": ALICE_KEY,
            "chat_page_url": "http://127.0.0.1:9/chat/",
            "providers_file": file,
            "max_retries": 0,
            "typing_delay_seconds": 0,
            "max_loop_lag_seconds": 30,  # tests may run on a busy machine
            **settings,
        }
        app = create_app(load_settings(**values))
        logs.configure("ERROR", "json", io.StringIO())
        with serving(app) as gateway:
            yield gateway, upstream


def events(*documents: dict[str, Any]) -> list[bytes]:
    """A stream of Anthropic's events that comes to its end."""
    return [*chunked(*map(event, documents)), LAST_CHUNK]


def event(document: dict[str, Any]) -> bytes:
    """One event, as Anthropic writes it."""
    return f"event: {document['type']}\ndata: {json.dumps(document)}\n\n".encode()


def streamed(message: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """The events of a message that is streamed."""
    begun = {**message, "content": [], "stop_reason": None, "usage": {**message["usage"], "output_tokens": 1}}
    yield {"type": "message_start", "message": begun}
    yield {"type": "ping"}
    for index, block in enumerate(message["content"]):
        empty, deltas = _taken_apart(block)
        yield {"type": "content_block_start", "index": index, "content_block": {**block, **empty}}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    ended = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
    yield {"type": "message_delta", "delta": ended, "usage": {"output_tokens": message["usage"]["output_tokens"]}}
    yield {"type": "message_stop"}


def _taken_apart(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    if block["type"] == "thinking":
        half = len(block["thinking"]) // 2
        pieces = (block["thinking"][:half], block["thinking"][half:])
        return {"thinking": "", "signature": ""}, [
            *({"type": "thinking_delta", "thinking": piece} for piece in pieces),
            {"type": "signature_delta", "signature": block["signature"]},
        ]
    if block["type"] in ("tool_use", "server_tool_use"):
        text = json.dumps(block["input"])
        return {"input": {}}, [
            {"type": "input_json_delta", "partial_json": piece} for piece in ("", text[:5], text[5:])
        ]
    if block["type"] == "text":
        deltas: list[dict[str, Any]] = [{"type": "text_delta", "text": block["text"]}]
        deltas += [{"type": "citations_delta", "citation": each} for each in block.get("citations") or ()]
        return {"text": "", **({"citations": []} if block.get("citations") else {})}, deltas
    return {}, []
