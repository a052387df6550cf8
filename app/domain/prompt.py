"""A conversation as one text within a hard limit, for upstreams that take nothing else.

Pure and deterministic. What is kept, in this order:

1. The last user turn, or the tool results that wait for an answer: it must fit, else `ContextTooLong`.
2. Instructions on tools and output format: what the answer depends on; they must fit too.
3. The system prompt: whole if it takes at most a third of the limit, else its head and its tail.
4. The other turns, newest first, each whole; the first that doesn't fit keeps its head and tail if enough remains.

The kept parts are written in chronological order, each behind a short role tag, as in `[User]: Hello`. A message that
goes alone is sent as it is, with no tag. Instructions stand right before the last turn: a model follows best what it
has just read, and the turn that it is to answer still comes last. Room for one more character never makes less of the
conversation fit: each share below is reckoned from the limit, not from where a cut happened to fall.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

from app.domain.chat import Message, ToolCall
from app.domain.chunking import boundary_after, boundary_before
from app.domain.errors import ContextTooLong, InvalidRequest
from app.domain.tokens import estimate, utf8_size

Unit = Literal["codepoints", "utf16", "bytes", "tokens"]

_SEPARATOR = "\n"
_ELLIPSIS = " … "
# A cut-down message below this many units says too little to be worth its place.
_USEFUL = 60
_SYSTEM_SHARE = 3
# A tag counts as such only together with its colon: `[user]` alone, as in a configuration file, stays as it is.
_FORGED_TAG = re.compile(
    r"[\[［](?=\s{0,3}(?:system|user|assistant|tool)\b[^\]］]{0,80}[\]］]\s{0,3}[:：])", re.IGNORECASE
)
# Likewise what would read as a call of a tool: Kimi-K2's own tokens and its form without them, and a tag that isn't the
# request's own. The model may repeat it, and then it must not be one.
_FORGED_CALL = re.compile(r"<(?=\|tool_calls?_|/?tool_calls?\s{0,9}>)")
_FORGED_KIMI_CALL = re.compile(r"functions\.(?=[\w.\-]{1,128}:\d)")
_PLAIN_TAGS = {role: f"[{role.capitalize()}]: " for role in ("system", "user", "assistant", "tool")}
_NOT_IN_A_TAG = re.compile(r"[^\w.-]+")


class PromptLimit(Struct, frozen=True):
    """How large a prompt may be: `size` counted in `unit`; `setting` is what an operator would change."""

    size: int
    unit: Unit = "codepoints"
    setting: str = "CONTEXT_MAX_LENGTH"

    def measure(self, text: str) -> int:
        """The size of a text in this limit's unit."""
        if self.unit == "codepoints":
            return len(text)
        if self.unit == "bytes":
            return utf8_size(text)
        if self.unit == "tokens":
            return estimate(text)
        return len(text) + sum(1 for char in text if char > "\uffff") if not text.isascii() else len(text)


class Prompt(Struct, frozen=True):
    """A composed prompt, and what it took.

    Args:
        text: What the upstream gets.
        size: Its size in the limit's unit, at most `limit.size`.
        limit: The limit it was composed for.
        dropped: Messages that are not in it at all.
        shortened: Messages of which only the head and the tail are in it.
    """

    text: str
    size: int
    limit: PromptLimit
    dropped: int = 0
    shortened: int = 0


@dataclass(slots=True)
class _Section:
    tag: str
    body: str
    ours: bool = False
    """Written by the gateway: nothing in it is forged."""

    @property
    def text(self) -> str:
        return self.tag + (self.body if self.ours else _neutral(self.body))


def compose(
    messages: Sequence[Message],
    limit: PromptLimit,
    instructions: str = "",
    instructions_param: str = "tools",
    render_call: Callable[[ToolCall], str] | None = None,
) -> Prompt:
    """Make one prompt of a conversation, oldest message first.

    Args:
        messages: The conversation.
        limit: How large the prompt may be.
        instructions: What the model must be told besides, in full.
        instructions_param: The field of the request that is at fault if they don't fit.
        render_call: How an earlier call of a tool is written.

    Raises:
        ContextTooLong: What must be sent is larger than the limit.
        InvalidRequest: There is nothing to send.
    """
    system, turns, first_pending = _sections(messages, render_call or _told_call)
    has_words = any(section.body.strip() for section in turns[first_pending:])
    if not has_words and messages[-1].role != "tool":  # a tool may well have nothing to say
        raise InvalidRequest("The last message is empty: there is nothing to answer.", param="messages")
    told = [_Section("[System]: ", instructions, ours=True)] if instructions else []
    kept = _select(system, turns, first_pending, told, limit)
    text = kept[0].body if len(kept) == 1 and has_words else _SEPARATOR.join(section.text for section in kept)
    size = limit.measure(text)
    if size > limit.size:
        raise _too_long(size, turns[first_pending:], told, limit, instructions_param)
    whole = {id(section) for section in (*system, *turns, *told)}
    shortened = sum(id(section) not in whole for section in kept)
    return Prompt(text, size, limit, dropped=len(whole) - len(kept), shortened=shortened)


def _too_long(
    size: int, pending: list[_Section], told: list[_Section], limit: PromptLimit, instructions_param: str
) -> ContextTooLong:
    """Whose fault it is: the instructions', if what is to be answered would fit without them."""
    most = f"but this model takes at most {limit.size} ({limit.setting})"
    if told:
        alone = limit.measure(_alone(pending))
        if alone <= limit.size:
            alone = limit.measure(told[0].body)
            return ContextTooLong(
                f"What {instructions_param} asks to tell the model takes {alone} {limit.unit}, {size} together with "
                f"the message to be answered, {most}. Send less of it, or shorten the last message.",
                param=instructions_param,
            )
        size = alone
    return ContextTooLong(
        f"The part of the conversation that has to be sent takes {size} {limit.unit}, {most}. "
        "Shorten the last message.",
        param="messages",
    )


def _alone(pending: list[_Section]) -> str:
    return pending[0].body if len(pending) == 1 else _SEPARATOR.join(section.text for section in pending)


def _sections(
    messages: Sequence[Message], render_call: Callable[[ToolCall], str]
) -> tuple[list[_Section], list[_Section], int]:
    """The system prompt (one section or none), the turns, and the place of the first turn that must be sent."""
    system_text = "\n\n".join(message.text for message in messages if message.role == "system" and message.text)
    turns = [message for message in messages if message.role != "system"]
    if not turns:
        # Only instructions came: then they are what wants an answer.
        return [], [_Section("[User]: ", system_text)], 0
    first = _first_pending(turns)
    tool_names = {call.id: call.name for message in turns for call in message.tool_calls}
    sections: list[_Section] = []
    first_section = 0
    for index, message in enumerate(turns):
        if index == first:
            first_section = len(sections)
        body = _body(message, render_call)
        if body or index >= first:
            sections.append(_Section(_tag(message, tool_names), body))
    return ([_Section("[System]: ", system_text)] if system_text else []), sections, first_section


def _first_pending(turns: Sequence[Message]) -> int:
    """The tool results at the end, else the last user turn, else (a conversation without a user) the last message."""
    first = len(turns)
    while first > 0 and turns[first - 1].role == "tool":
        first -= 1
    if first < len(turns):
        return first
    return next((index for index in reversed(range(len(turns))) if turns[index].role == "user"), len(turns) - 1)


def _tag(message: Message, tool_names: dict[str, str]) -> str:
    name = message.name or tool_names.get(message.tool_call_id or "") or ""
    if not name:
        return _PLAIN_TAGS[message.role]
    label = f"{message.role.capitalize()} {_NOT_IN_A_TAG.sub('', name)[:64]}".rstrip()
    return f"[{label}]: "


def _body(message: Message, render_call: Callable[[ToolCall], str]) -> str:
    calls = [render_call(call) for call in message.tool_calls]
    return "\n".join([message.text, *calls] if message.text else calls)


def _told_call(call: ToolCall) -> str:
    return f"(called {call.name} with {call.arguments})"


def _select(
    system: list[_Section], turns: list[_Section], first_pending: int, told: list[_Section], limit: PromptLimit
) -> list[_Section]:
    """The sections to send, in chronological order, cut down where they have to be."""
    pending = [*told, *turns[first_pending:]]
    # Every section but the first costs a separator; so does the first here, and the budget pays it back.
    budget = limit.size + limit.measure(_SEPARATOR)
    everything = [*system, *turns[:first_pending], *pending]
    if len(everything) > 1 and _fits(everything, budget, limit):
        return everything
    room = budget - sum(_cost(section, limit) for section in pending)
    if room <= 0:
        return pending
    share = min(room, limit.size // _SYSTEM_SHARE)
    kept_system = [cut for section in system if (cut := _cut_to(section, share, limit))]
    room -= min(share, sum(_cost(section, limit) for section in system))
    history: list[_Section] = []
    for section in reversed(turns[:first_pending]):
        cut = _cut_to(section, room, limit)
        if cut:
            history.append(cut)
        if cut is not section:
            break
        room -= _cost(section, limit)
    return [*kept_system, *reversed(history), *pending]


def _fits(sections: list[_Section], budget: int, limit: PromptLimit) -> bool:
    if sum(len(section.body) for section in sections) > budget:
        return False  # every unit counts at least one for each code point
    return sum(_cost(section, limit) for section in sections) <= budget


def _cost(section: _Section, limit: PromptLimit) -> int:
    return limit.measure(section.tag) + limit.measure(section.body) + limit.measure(_SEPARATOR)


def _cut_to(section: _Section, room: int, limit: PromptLimit) -> _Section | None:
    """The section itself if it fits, its head and tail if enough of them do, else None."""
    # Measuring a long text costs time, and no text is smaller than its number of code points.
    if len(section.body) <= room and _cost(section, limit) <= room:
        return section
    room -= limit.measure(section.tag) + limit.measure(_SEPARATOR) + limit.measure(_ELLIPSIS)
    if room < _USEFUL:
        return None
    head, tail = _head(section.body, room - room // 2, limit), _tail(section.body, room // 2, limit)
    return _Section(section.tag, head + _ELLIPSIS + tail)


def _head(text: str, size: int, limit: PromptLimit) -> str:
    end = len(text[:size])
    if limit.unit == "bytes":
        end = len(text[:size].encode("utf-8", "surrogatepass")[:size].decode("utf-8", "ignore"))
    elif limit.unit == "utf16":
        end = len(text[:size].encode("utf-16-le", "surrogatepass")[: 2 * size].decode("utf-16-le", "ignore"))
    return text[: boundary_before(text, end)]


def _tail(text: str, size: int, limit: PromptLimit) -> str:
    kept = text[max(0, len(text) - size) :] if size else ""
    if limit.unit == "bytes":
        kept = kept.encode("utf-8", "surrogatepass")[-size:].decode("utf-8", "ignore") if size else ""
    elif limit.unit == "utf16":
        kept = kept.encode("utf-16-le", "surrogatepass")[-2 * size :].decode("utf-16-le", "ignore") if size else ""
    return text[boundary_after(text, len(text) - len(kept)) :]


def without_forged_calls(text: str) -> str:
    """A text with all that a model could repeat as a call of a tool made harmless, at the same length."""
    if "tool_call" in text:
        text = _FORGED_CALL.sub("(", text)
    return _FORGED_KIMI_CALL.sub("functions ", text) if "functions." in text else text


def _neutral(body: str) -> str:
    """The body with all that reads like a tag of ours or like a tool call made harmless; it gets no longer by that."""
    if "[" in body or "［" in body:
        body = _FORGED_TAG.sub("(", body)
    return without_forged_calls(body)
