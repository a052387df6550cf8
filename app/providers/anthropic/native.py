"""A client's request that has Anthropic's form already: sent on with nothing lost. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from operator import is_

from msgspec import Raw

from app.domain.chat import Message, NativeRequest, NativeTurn
from app.domain.json import exact_json_bytes, lenient_json_bytes, read_json_object
from app.providers.anthropic.messages import wire_turns
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
    said: dict[str, object] = {"messages": list(_wire(messages, native))}
    within = _own(native)
    # Instructions within the conversation have come with their message.
    system = [message for message in messages if message.role == "system" and id(message) not in within]
    if any(message is not native.system for message in system):
        said["system"] = "\n\n".join([message.text for message in system])
    return said


def _own(native: NativeRequest) -> set[int]:
    """The client's own messages, by identity: an equal one that was remembered is another."""
    return {id(message) for turn in native.turns for message in turn.messages}


def _wire(messages: Sequence[Message], native: NativeRequest) -> Iterator[Raw]:
    """The messages: the client's own as they came, others between them."""
    places = {id(turn.messages[0]): place for place, turn in enumerate(native.turns) if turn.messages}
    others: list[Message] = []
    at = 0
    while at < len(messages):
        place = places.get(id(messages[at]))
        if place is None or not _is_at(native.turns[place], messages, at):
            others.append(messages[at])
            at += 1
            continue
        yield from _written(others)
        others = []
        at += len(native.turns[place].messages)
        yield native.turns[place].wire
        # What nobody here could make anything of stays where it was.
        for turn in native.turns[place + 1 :]:
            if turn.messages:
                break
            yield turn.wire
    yield from _written(others)


def _is_at(turn: NativeTurn, messages: Sequence[Message], at: int) -> bool:
    found = messages[at : at + len(turn.messages)]
    return len(found) == len(turn.messages) and all(map(is_, turn.messages, found))


def _written(messages: list[Message]) -> Iterator[Raw]:
    yield from [Raw(lenient_json_bytes(turn)) for turn in wire_turns(messages)]


def _lacks_a_thought(messages: Sequence[Message], native: NativeRequest) -> bool:
    """Whether the results that end the conversation are those of a call that the gateway has remembered without the
    thought behind it: the API takes no thinking then."""
    ours = _own(native)
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
