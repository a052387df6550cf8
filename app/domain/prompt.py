"""A conversation as one text within a hard limit, for upstreams that take nothing else.

Pure and deterministic. What is kept, in this order:

1. The last user turn, or the tool results that wait for an answer: it must fit, else `ContextTooLong`.
2. The system prompt: whole if it takes at most a third of the limit, else its head and its tail.
3. The other turns, newest first, each whole; the first that doesn't fit keeps its head and tail if enough remains.

The kept parts are written in chronological order, each behind a short role tag, as in `[User]: Hello`. A message that
goes alone is sent as it is, with no tag. Room for one more character never makes less of the conversation fit: each
share below is reckoned from the limit, not from where a cut happened to fall.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from app.domain.chat import Message
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
_NOT_IN_A_TAG = re.compile(r"[^\w.-]+")


@dataclass(frozen=True, slots=True)
class PromptLimit:
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


@dataclass(frozen=True, slots=True)
class Prompt:
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


@dataclass(frozen=True, slots=True)
class _Section:
    tag: str
    body: str


def compose(messages: Sequence[Message], limit: PromptLimit) -> Prompt:
    """Make one prompt of a conversation, oldest message first.

    Raises:
        ContextTooLong: What must be sent is larger than the limit.
        InvalidRequest: There is nothing to send.
    """
    system, turns, first_pending = _sections(messages)
    has_words = any(section.body.strip() for section in turns[first_pending:])
    if not has_words and messages[-1].role != "tool":  # a tool may well have nothing to say
        raise InvalidRequest("The last message is empty: there is nothing to answer.", param="messages")
    kept = _select(system, turns, first_pending, limit)
    if len(kept) == 1 and has_words:
        text = kept[0].body
    else:
        text = _SEPARATOR.join(section.tag + _neutral(section.body) for section in kept)
    size = limit.measure(text)
    if size > limit.size:
        raise ContextTooLong(
            f"The part of the conversation that has to be sent takes {size} {limit.unit}, "
            f"but this model takes at most {limit.size} ({limit.setting}). Shorten the last message.",
            param="messages",
        )
    whole = {id(section) for section in (*system, *turns)}
    shortened = sum(id(section) not in whole for section in kept)
    return Prompt(text, size, limit, dropped=len(whole) - len(kept), shortened=shortened)


def _sections(messages: Sequence[Message]) -> tuple[list[_Section], list[_Section], int]:
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
        body = _body(message)
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
    label = f"{message.role.capitalize()} {_NOT_IN_A_TAG.sub('', name)[:64]}".rstrip()
    return f"[{label}]: "


def _body(message: Message) -> str:
    calls = [f"(called {call.name} with {call.arguments})" for call in message.tool_calls]
    return "\n".join([message.text, *calls] if message.text else calls)


def _select(system: list[_Section], turns: list[_Section], first_pending: int, limit: PromptLimit) -> list[_Section]:
    """The sections to send, in chronological order, cut down where they have to be."""
    pending = turns[first_pending:]
    # Every section but the first costs a separator; so does the first here, and the budget pays it back.
    budget = limit.size + limit.measure(_SEPARATOR)
    if len(system) + len(turns) > 1 and _fits([*system, *turns], budget, limit):
        return [*system, *turns]
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


def _neutral(body: str) -> str:
    """The body with every text that reads like one of our tags made harmless; it gets no longer by that."""
    return _FORGED_TAG.sub("(", body)
