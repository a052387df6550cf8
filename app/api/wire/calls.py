"""Tool calls in a history, put right where clients leave something out. Pure."""

import json
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence

from msgspec.structs import replace

from app.domain.chat import Message, ToolCall


def arguments_text(given: str | Mapping[str, object] | None) -> str:
    """A call's arguments as JSON text, whether they came as text, as the object itself or not at all."""
    if isinstance(given, str):
        return given if given.strip() else "{}"
    return json.dumps(given or {}, ensure_ascii=False, separators=(",", ":"))


def with_call_ids(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages, with an id for every call and every result.

    A call without an id gets that of the first result behind it that answers no other call, and a result without one
    that of the first call before it that has no other result. What is still without one gets one of its place, which
    is the same each time the conversation is sent.
    """
    named = list(messages)
    for start, message in enumerate(messages):
        if not message.tool_calls:
            continue
        end = start + 1
        while end < len(messages) and messages[end].role == "tool":
            end += 1
        results = messages[start + 1 : end]
        if all(call.id for call in message.tool_calls) and all(result.tool_call_id for result in results):
            continue
        calls = _named_calls(message.tool_calls, results, start)
        named[start] = replace(message, tool_calls=calls)
        named[start + 1 : end] = _named_results(results, calls)
    return tuple(named)


def _named_calls(calls: Sequence[ToolCall], results: Sequence[Message], place: int) -> tuple[ToolCall, ...]:
    known = {call.id for call in calls}
    free = iter([result.tool_call_id for result in results if result.tool_call_id and result.tool_call_id not in known])
    # All results without an id: then the calls get ids of their own, and the results those.
    return tuple(
        call if call.id else replace(call, id=next(free, f"call_{place}_{index}")) for index, call in enumerate(calls)
    )


def _named_results(results: Sequence[Message], calls: Sequence[ToolCall]) -> Iterator[Message]:
    answered = {result.tool_call_id for result in results}
    open_calls = OrderedDict((place, call) for place, call in enumerate(calls) if call.id not in answered)
    places: defaultdict[str | None, deque[int]] = defaultdict(deque)
    for place, call in open_calls.items():
        places[call.name].append(place)
    for result in results:
        if result.tool_call_id or not open_calls:
            yield result
            continue
        # The older form names the function.
        same = places[result.name]
        while same and same[0] not in open_calls:
            same.popleft()
        call = open_calls.pop(same[0] if same else next(iter(open_calls)))
        yield replace(result, tool_call_id=call.id)
