"""Shapes in which thoughts and extras come in chat completion messages, from clients as from upstreams. Pure."""

from collections.abc import Mapping

# What vendors add to a tool call or to an assistant's message, and want back with it.
CALL_EXTRAS = frozenset({"extra_content", "provider_specific_fields", "thought_signature", "thoughtSignature"})
MESSAGE_EXTRAS = frozenset({"annotations", "reasoning_details", "extra_content", "provider_specific_fields"})

THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
THOUGHT_PARTS = frozenset({"thinking", "reasoning", "reasoning_text", "thought"})
_TEXTS = ("text", "thinking", "reasoning", "content", "summary", "refusal")


def text_in(value: object, depth: int = 4) -> str:
    """A text that may come as a part, or as a list of parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and depth:
        return "".join([text_in(part, depth - 1) for part in value])
    if isinstance(value, Mapping) and depth:
        return next((text for name in _TEXTS if (text := text_in(value.get(name), depth - 1))), "")
    return ""


def thoughts_in(message: Mapping[str, object]) -> str:
    """The thoughts in the fields of a message, whatever its sender calls them; the same ones often come twice."""
    return next((text for name in THOUGHT_FIELDS if (text := text_in(message.get(name)))), "")
