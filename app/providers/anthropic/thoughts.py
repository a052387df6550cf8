"""Signed thoughts in the form in which chat completions carry them, `reasoning_details`. Pure.

OpenRouter has made up this form. A client that sends an assistant's message back as it came sends these with it, and
the vendor gets its thoughts back as they were.
"""

from collections.abc import Iterator

from app.domain.chat import Extras, Message

_FORMAT = "anthropic-claude-v1"


def signed_detail(thought: str, signature: str, index: int) -> Extras:
    """What is added to an answer for a thought that has been told."""
    detail = {"type": "reasoning.text", "text": thought, "signature": signature, "format": _FORMAT, "index": index}
    return {"reasoning_details": [detail]}


def sealed_detail(data: str, index: int) -> Extras:
    """What is added to an answer for a thought that only its vendor can read."""
    return {"reasoning_details": [{"type": "reasoning.encrypted", "data": data, "format": _FORMAT, "index": index}]}


def thinking_blocks(message: Message) -> Iterator[dict[str, object]]:
    """The content blocks of an earlier answer's thoughts. Without its signature the vendor takes none."""
    details = message.extras.get("reasoning_details") if message.extras else None
    for detail in details if isinstance(details, list) else ():
        if not isinstance(detail, dict) or detail.get("format") != _FORMAT:
            continue
        text, signature, data = (detail.get(name) for name in ("text", "signature", "data"))
        if isinstance(signature, str) and signature:
            yield {"type": "thinking", "thinking": text if isinstance(text, str) else "", "signature": signature}
        elif isinstance(data, str) and data:
            yield {"type": "redacted_thinking", "data": data}
