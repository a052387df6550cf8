"""A whole message, as the events that would have streamed it. Pure."""

from collections.abc import Iterator

from app.providers.anthropic.blocks import input_text
from app.providers.api_upstream.reply import Json


def events_of(message: Json) -> Iterator[Json]:
    """The events of a stream that says the same: who reads those reads whole messages, too."""
    yield {"type": "message_start", "message": {**message, "content": [], "stop_reason": None, "stop_sequence": None}}
    content = message.get("content")
    for index, block in enumerate(content if isinstance(content, list) else ()):
        if isinstance(block, dict):
            yield from _events_of_block(block, index)
    ending = {name: message[name] for name in ("stop_reason", "stop_sequence", "stop_details") if name in message}
    yield {"type": "message_delta", "delta": ending, "usage": message.get("usage")}
    yield {"type": "message_stop"}


def _events_of_block(block: dict[str, object], index: int) -> Iterator[Json]:
    parts: list[Json] = []
    if block.get("type") == "text":
        begun = {**block, "text": "", "citations": None}
        parts.append({"type": "text_delta", "text": block.get("text")})
        citations = block.get("citations")
        parts += [
            {"type": "citations_delta", "citation": citation}
            for citation in (citations if isinstance(citations, list) else ())
        ]
    elif block.get("type") == "thinking":
        begun = {**block, "thinking": "", "signature": ""}
        parts.append({"type": "thinking_delta", "thinking": block.get("thinking")})
        parts.append({"type": "signature_delta", "signature": block.get("signature")})
    elif block.get("type") == "tool_use":
        begun = {**block, "input": {}}
        arguments = input_text(block.get("input"))
        parts.append({"type": "input_json_delta", "partial_json": arguments})
    else:
        begun = block
    yield {"type": "content_block_start", "index": index, "content_block": begun}
    for part in parts:
        yield {"type": "content_block_delta", "index": index, "delta": part}
    yield {"type": "content_block_stop", "index": index}
