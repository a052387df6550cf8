"""A client's request that has Gemini's form already: sent on with nothing lost. Pure."""

from collections.abc import Mapping, Sequence
from functools import partial

from app.domain.chat import Message, NativeRequest
from app.domain.json import exact_json_bytes, read_json_object
from app.providers.api_upstream.native_turns import own_messages, turns_as_they_came
from app.providers.base import CompletionRequest
from app.providers.gemini.contents import wire_turns
from app.providers.gemini.request import OPTIONS

# The address says both.
_OURS = frozenset({"model", "stream"})
_CONFIG = "generationConfig"


def native_body(request: CompletionRequest, native: NativeRequest) -> bytes:
    """The JSON body of the request: the client's own.

    Contents that the gateway has added or changed are written anew; all others stay as they came.
    """
    fields: dict[str, object] = {name: value for name, value in native.fields.items() if name not in _OURS}
    if request.model.bounds is not None and _CONFIG in native.fields:
        config = read_json_object(bytes(native.fields[_CONFIG])) or {}
        if (bounded := _bounded(config, request)) != config:
            fields[_CONFIG] = bounded
    if request.messages is not native.messages:
        fields |= _conversation(request.messages, native, request.model.upstream_id)
    return exact_json_bytes(fields)


def _conversation(messages: Sequence[Message], native: NativeRequest, model: str) -> dict[str, object]:
    write = partial(wire_turns, model=model)
    said: dict[str, object] = {"contents": list(turns_as_they_came(messages, native, write))}
    ours = own_messages(native)
    system = [message for message in messages if message.role == "system" and id(message) not in ours]
    if any(message is not native.system for message in system):
        said["systemInstruction"] = {"parts": [{"text": message.text} for message in system]}
    return said


def _bounded(config: Mapping[str, object], request: CompletionRequest) -> dict[str, object]:
    """The configuration with the options that the gateway keeps within the model's bounds."""
    kept = dict(config)
    for ours, theirs in OPTIONS.items():
        for name in {ours, theirs} & kept.keys():
            if ours not in request.options:
                del kept[name]
            elif kept[name] != request.options[ours]:
                kept[name] = request.options[ours]
    for name in {"maxOutputTokens", "max_output_tokens"} & kept.keys():
        if request.max_tokens is not None:
            kept[name] = request.max_tokens
    return kept
