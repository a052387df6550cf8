"""A client's request that has Anthropic's form already: sent on with nothing lost. Pure."""

from collections.abc import Mapping, Sequence

from msgspec import Raw

from app.domain.chat import Message, NativeRequest
from app.domain.json import exact_json_bytes, read_json_object
from app.providers.anthropic.messages import wire_turns
from app.providers.api_upstream.native_turns import own_messages, turns_as_they_came
from app.providers.base import CompletionRequest

# The gateway keeps them within the model's bounds.
_OPTIONS = ("temperature", "top_k", "top_p")
_THINKS = frozenset({"enabled", "adaptive"})


def native_body(request: CompletionRequest, native: NativeRequest, *, stream: bool) -> bytes:
    """The JSON body of the request: the client's own, for the upstream's model.

    Messages that the gateway has added or changed are written anew; all others stay as they came.
    """
    fields: dict[str, object] = {**native.fields, "model": request.model.upstream_id, "stream": stream}
    if request.max_tokens is not None and _value(native.fields.get("max_tokens")) != request.max_tokens:
        fields["max_tokens"] = request.max_tokens
    for name in _OPTIONS:
        if name in fields and name not in request.options:
            del fields[name]
        elif name in fields and _value(native.fields[name]) != request.options[name]:
            fields[name] = request.options[name]
    if request.messages is not native.messages:
        fields |= _conversation(request.messages, native)
        if _lacks_a_thought(request.messages, native) and _is_thinking(native.fields):
            del fields["thinking"]
    return exact_json_bytes(fields)


def _conversation(messages: Sequence[Message], native: NativeRequest) -> dict[str, object]:
    said: dict[str, object] = {"messages": list(turns_as_they_came(messages, native, wire_turns))}
    within = own_messages(native)
    # Instructions within the conversation have come with their message.
    system = [message for message in messages if message.role == "system" and id(message) not in within]
    if any(message is not native.system for message in system):
        said["system"] = "\n\n".join([message.text for message in system])
    return said


def _lacks_a_thought(messages: Sequence[Message], native: NativeRequest) -> bool:
    """Whether the results that end the conversation are those of a call that the gateway has remembered without the
    thought behind it: the API takes no thinking then."""
    ours = own_messages(native)
    for message in reversed(messages):
        if message.role == "assistant":
            return bool(message.tool_calls) and id(message) not in ours
    return False


def _is_thinking(fields: Mapping[str, Raw]) -> bool:
    thinking = read_json_object(bytes(fields["thinking"])) if "thinking" in fields else None
    return thinking is not None and thinking.get("type") in _THINKS


def _value(raw: Raw | None) -> object:
    """A number that the client sent."""
    document = None if raw is None else read_json_object(b'{"value":%b}' % bytes(raw))
    return None if document is None else document["value"]
