"""Reads tool calls from a model's reply, in one pass."""

import re
from collections.abc import Callable, Mapping

from app.domain.chat import Tool
from app.domain.emulation.callable_tools import CallableTools, CallText
from app.domain.emulation.json_answer import only_json, whole_json
from app.domain.emulation.jsontext import Fault, decode, items, members, skip_space
from app.domain.emulation.markup import (
    AFTER_JSON,
    AROUND_JSON,
    END,
    END_OF_THINKING,
    FENCE,
    FENCE_BEFORE,
    FENCED_JSON,
    KIMI_HEAD,
    LOOSE_ENDING,
    LOOSE_HEAD,
    LOOSE_SEPARATOR,
    MARK,
    Markup,
    without_thinking,
)
from app.domain.emulation.quotation import Quotations
from app.domain.emulation.repair import repaired
from app.domain.emulation.templates import template_calls

_CUT_OFF = "it is cut off"
# Each is looked for in the whole conversation.
_MOST_LOOSE = 64


def read_calls(
    reply: str,
    markup: Markup,
    tools: CallableTools,
    quotations: Quotations,
    *,
    must_call: bool,
    is_answer: Callable[[object], bool],
) -> tuple[str, list[CallText]]:
    """The words of a reply and its calls. Without calls, the words are the whole reply.

    Args:
        reply: What the model answered.
        markup: The request's own.
        tools: The tools that may be called.
        quotations: What is no call unless it stands in the request's own tag.
        must_call: Whether the reply must be a call. If so, JSON in a code fence at its end counts as one.
        is_answer: Whether a JSON value that looks like a call is the answer that was asked for.

    Raises:
        Fault: The reply tries to call a tool, but the call can't be used.
    """
    marked = _MarkedCalls(reply, markup, tools, quotations)
    calls = marked.read()
    if calls:
        return markup.between_calls(marked.pieces), _without_echoes(calls)
    if markup.is_cut_off(reply):
        raise Fault(_CUT_OFF)
    answer = without_thinking(reply)
    words, loose = _loose_calls(answer, tools, quotations, must_call, is_answer)
    if not loose:
        words, loose = template_calls(answer, tools, quotations)
    return (words, _without_echoes(loose)) if loose else (reply, [])


def bare_calls(reply: str, tool: Tool, tools: CallableTools) -> tuple[str, list[CallText]]:
    """The words of a reply and the calls of a tool of which it has only the arguments; none if there is any doubt.

    Args:
        reply: What the model answered, without thinking and tags.
        tool: The only tool that may be called, and must be.
        tools: Checks the arguments.
    """
    body = reply.strip()
    bare = AROUND_JSON.sub("", body)
    is_alone = bare.startswith(("{", "["))
    try:
        value, text = whole_json(bare) or only_json(body, "{[" if is_alone else "{")
    except Fault:
        return reply, []
    calls: list[CallText] = []
    for found, found_text in items(text, 0) if isinstance(value, list) else [(value, text)]:
        arguments, part = _unwrapped(found, found_text, tool)
        if not isinstance(arguments, dict) or not _may_be_meant(arguments, tool.parameters, is_alone):
            return reply, []
        try:
            calls.append(tools.call(tool.name, arguments, part))
        except Fault:
            return reply, []
    words = "" if is_alone or text not in body else FENCE_BEFORE.sub("", body[: body.index(text)]).strip()
    return words, calls


def _unwrapped(arguments: object, text: str, tool: Tool) -> tuple[object, str]:
    """The arguments that are the only member of an object, under the tool's name or `arguments`."""
    if not isinstance(arguments, dict) or len(arguments) != 1:
        return arguments, text
    (name, inner, part), *_ = members(text, 0)
    properties = tool.parameters.get("properties")
    is_part = isinstance(properties, Mapping) and name in properties
    is_holder = name in (tool.name, "arguments", "parameters") and isinstance(inner, dict) and not is_part
    return (inner, part) if is_holder else (arguments, text)


def _may_be_meant(arguments: Mapping[str, object], schema: Mapping[str, object], is_alone: bool) -> bool:
    """Whether an object that fits the schema isn't something else, which fits only because the schema is lax."""
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or not properties:
        is_of_another = "name" in arguments and ("arguments" in arguments or "parameters" in arguments)
        return is_alone and not is_of_another
    is_open = bool(schema.get("additionalProperties")) or "patternProperties" in schema
    return (is_open or arguments.keys() <= properties.keys()) and (is_alone or bool(arguments))


def _without_echoes(calls: list[CallText]) -> list[CallText]:
    """The calls without immediate repetitions, which some models produce."""
    return [call for index, call in enumerate(calls) if index == 0 or call != calls[index - 1]]


class _MarkedCalls:
    def __init__(self, reply: str, markup: Markup, tools: CallableTools, quotations: Quotations) -> None:
        self._reply = reply
        self._markup = markup
        self._tools = tools
        self._quotations = quotations
        self._begin = len(reply) - len(reply.lstrip())
        self._last_thinking = reply.rfind(END_OF_THINKING)
        self._last_closing = reply.rfind(markup.closing)
        self._in_fence = False
        self._calls: list[CallText] = []
        self.pieces: list[str] = []

    def read(self) -> list[CallText]:
        """All calls. The texts around them are then in `pieces`."""
        place = begin = 0
        while mark := MARK.search(self._reply, place):
            end = self._passed(mark)
            if end is None:
                place = mark.end()
            else:
                self.pieces.append(self._reply[begin : mark.start()])
                place = begin = end
        self.pieces.append(self._reply[begin:])
        return self._calls

    def _passed(self, mark: re.Match[str]) -> int | None:
        """The end of the call or the thinking that begins at a mark; None if the mark belongs to the words."""
        if mark["think"]:
            return self._thought(mark.start())
        if mark["fence"]:
            self._in_fence = not self._in_fence
            return None
        if mark["tag"]:
            return self._our_call(mark.end()) if mark["tag"] == self._markup.tag else None
        if self._in_fence:
            return None
        before = len(self._calls)
        end = self._kimi_call(mark)
        if end is not None and self._quotations.has(self._reply[mark.start() : end]):
            del self._calls[before:]
            return None
        return end

    def _kimi_call(self, mark: re.Match[str]) -> int | None:
        """The end of the call behind one of Kimi's tokens."""
        if mark["name"]:
            return self._named_call(mark["name"], mark.end())
        head = KIMI_HEAD.match(self._reply, mark.end())
        if head:
            return self._named_call(head[1], head.end())
        start = skip_space(self._reply, mark.end())
        if self._reply[start : start + 1] != "{":
            raise Fault("a tool call has no name or no arguments")
        return self._our_call(start)

    def _thought(self, start: int) -> int | None:
        if start < self._last_thinking:
            return self._reply.find(END_OF_THINKING, start) + len(END_OF_THINKING)
        # A tag that is never closed begins thinking at the start of a reply; elsewhere it is only mentioned.
        return len(self._reply) if start == self._begin else None

    def _our_call(self, start: int) -> int | None:
        """Read name and arguments as JSON; several calls may follow each other."""
        if self._reply[start : start + 1] not in ("{", "["):
            if start < self._last_closing:
                raise Fault("there is no JSON object in the tags")
            if start == len(self._reply):
                raise Fault(_CUT_OFF)
            return None  # the tag is only mentioned
        place = start
        while self._reply[place : place + 1] in ("{", "["):
            value, text, end = self._json(place)
            self._calls += self._tools.calls(value, text)
            separator = LOOSE_SEPARATOR.match(self._reply, end)
            place = separator.end() if separator else end
        return self._closed(end)

    def _named_call(self, name: str, start: int) -> int:
        """Read the arguments as JSON, after the name."""
        if closing := END.match(self._reply, start):
            self._calls.append(self._tools.call(name, None, None))
            return closing.end()
        value, text, end = self._json(start)
        self._calls.append(self._tools.call(name, value, text))
        return self._closed(end)

    def _json(self, start: int) -> tuple[object, str | None, int]:
        """The JSON value that begins there; its text, None if it had to be repaired; and where it ends."""
        try:
            value, end = decode(self._reply, start)
        except ValueError:
            closing = END.search(self._reply, start)
            end = closing.start() if closing else len(self._reply)
            return _repaired(self._reply[start:end], may_close=closing is not None), None, end
        return value, self._reply[start:end], end

    def _closed(self, end: int) -> int:
        """The place after the closing tag, if there is one."""
        between = AFTER_JSON.match(self._reply, end)
        after = between.end() if between else end
        closing = END.match(self._reply, after)
        if closing is None and self._reply[after : after + 1] in tuple(',:"'):
            raise Fault("the JSON ends too early")
        return closing.end() if closing else end


def _repaired(text: str, *, may_close: bool) -> object:
    try:
        return repaired(text, may_close=may_close)
    except ValueError as error:
        raise Fault(str(error) if may_close else _CUT_OFF) from error


def _loose_calls(
    reply: str, tools: CallableTools, quotations: Quotations, must_call: bool, is_answer: Callable[[object], bool]
) -> tuple[str, list[CallText]]:
    """Calls that only their form and place give away; none if there is any doubt, as about one that is quoted."""
    reply = reply.strip()
    start = place = _loose_start(reply, must_call)
    words = reply[: max(start, 0)].strip()
    calls: list[CallText] = []
    while 0 <= place < len(reply):
        separator = LOOSE_SEPARATOR.match(reply, place)
        name, place = (separator[1], separator.end()) if separator else (None, place)
        if place == len(reply):
            break
        begin = place if separator is None or name is None else separator.start(1)
        value, text, place = _loose_json(reply, place)
        if len(calls) > _MOST_LOOSE or quotations.has(reply[begin:place]):
            return reply, []
        if name is not None and tools.name(name) is not None and isinstance(value, dict):
            calls.append(tools.call(name, value, text))
        elif name is None and tools.is_call(value) and not is_answer(value):
            calls += tools.calls(value, text)
            words += _said_beside(value)
        else:
            return reply, []
    return words, calls


def _said_beside(value: object) -> str:
    """The words of a whole message in JSON."""
    said = value.get("content") if isinstance(value, dict) else None
    return said if isinstance(said, str) else ""


def _loose_json(reply: str, start: int) -> tuple[object, str | None, int]:
    """The JSON value that begins there, or the whole rest of the reply, repaired."""
    try:
        value, end = decode(reply, start)
    except ValueError:
        rest = LOOSE_ENDING.sub("", reply[start:])
        try:
            return repaired(rest, may_close=False), None, len(reply)
        except ValueError:
            return None, None, len(reply)
    return value, reply[start:end], end


def _loose_start(reply: str, must_call: bool) -> int:
    """Where loose calls could begin; -1 if nowhere."""
    if reply.startswith(("{", "[")) or FENCED_JSON.match(reply):
        return 0
    head = LOOSE_HEAD.search(reply)
    # In a code fence it is an example, unless the fence is around the whole reply, by habit.
    if head is not None and not reply.startswith("```") and len(FENCE.findall(reply, 0, head.start())) % 2:
        head = None
    if head is None and must_call:
        head = FENCED_JSON.search(reply)
    return head.start() if head else -1
