"""The parts of an answer, as Gemini writes them. Pure."""

import json
from collections.abc import Iterator, Mapping

from app.domain.chat import Extras, ToolCall, Usage
from app.domain.errors import UnexpectedReply
from app.providers.gemini.signatures import signature_in

_BASE64 = ";base64,"


def text_part(text: str, *, thought: bool = False) -> dict[str, object]:
    """A text, or a thought."""
    return {"text": text, "thought": True} if thought else {"text": text}


def call_part(call: ToolCall) -> dict[str, object]:
    """A call.

    Raises:
        UnexpectedReply: Its arguments can't be shown as an object.
    """
    arguments = arguments_of(call)
    if arguments is None:
        raise UnexpectedReply("The model called a function with arguments that are not a JSON object.")
    part: dict[str, object] = {"functionCall": {"id": call.id, "name": call.name, "args": arguments}}
    return _signed(part, call.extras)


def arguments_of(call: ToolCall) -> dict[str, object] | None:
    """A call's arguments; None if they are no JSON object, such as those of a call that was cut off."""
    try:
        arguments = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        return None
    return arguments if isinstance(arguments, dict) else None


def extra_parts(text: str, extras: Extras) -> Iterator[dict[str, object]]:
    """A text with what the provider added to it, as far as there is a place for it: a signature, and images."""
    if text or signature_in(extras) is not None:
        yield _signed(text_part(text), extras)
    images = extras.get("images")
    for image in images if isinstance(images, list) else ():
        address = image.get("image_url") if isinstance(image, Mapping) else None
        url = address.get("url") if isinstance(address, Mapping) else None
        if isinstance(url, str) and url.startswith("data:") and _BASE64 in url:
            kind, _, data = url.removeprefix("data:").partition(_BASE64)
            yield {"inlineData": {"mimeType": kind, "data": data}}


def usage_metadata(usage: Usage) -> dict[str, object]:
    """The `usageMetadata` of an answer; what was thought is counted apart."""
    counts: dict[str, object] = {
        "promptTokenCount": usage.prompt_tokens,
        "candidatesTokenCount": max(0, usage.completion_tokens - usage.reasoning_tokens),
        "totalTokenCount": usage.total_tokens,
    }
    if usage.reasoning_tokens:
        counts["thoughtsTokenCount"] = usage.reasoning_tokens
    if usage.cached_tokens:
        counts["cachedContentTokenCount"] = usage.cached_tokens
    return counts


def _signed(part: dict[str, object], extras: Extras | None) -> dict[str, object]:
    signature = signature_in(extras)
    return part if signature is None else {**part, "thoughtSignature": signature}
