"""A conversation as one text within a hard limit, for upstreams that take nothing else.

Pure and deterministic. What is kept, in this order:

1. The last user turn, or the tool results that wait for an answer: it must fit, else `ContextTooLong`.
2. Instructions on tools and output format: what the answer depends on; they must fit too.
3. The system prompt: whole if it takes at most a third of what the instructions leave of the limit, else its head and
   its tail.
   Where tool results wait for an answer, what the user asked last has its share before that.
4. The newest answer, the first thing that the user said, and what users have said since, newest first: each whole if
   it takes at most a third of that, else its head and its tail. One long text crowds out nothing that was told before
   it. What is left makes these whole.
5. The other answers, newest first, each whole; the first that doesn't fit keeps its head and tail if enough remains.
   User messages that never got an answer, as failed ones in the histories of chat apps, come after all that did.

The kept parts are written in chronological order, each behind a short role tag, as in `[User]: Hello`. A message that
goes alone is sent as it is, with no tag. Instructions stand right before the last turn: a model follows best what it
has just read, and the turn that it is to answer still comes last. Room for one more character never makes less of the
conversation fit: each share below is reckoned from the limit, not from where a cut happened to fall.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from app.domain.chat import Message, Role, ToolCall
from app.domain.chunking import boundary_after, boundary_before
from app.domain.errors import ContextTooLong, InvalidRequest
from app.domain.forgery import may_forge, without_forgeries
from app.domain.tokens import BYTES_PER_TOKEN, estimate, utf8_size
from app.domain.wording import instructions_too_long, message_too_long

Unit = Literal["codepoints", "utf16", "bytes", "tokens"]

_SEPARATOR = "\n"
ELLIPSIS = " … "
# A cut-down message below this many units says too little to be worth its place.
USEFUL = 60
# No message but the last has more than one of so many shares before the others have theirs.
_SHARES = 3
_PLAIN_TAGS = {role: f"[{role.capitalize()}]: " for role in ("system", "user", "assistant", "tool")}
_NOT_IN_A_TAG = re.compile(r"[^\w.-]+")


class PromptLimit(Struct, frozen=True):
    """How large a prompt may be: `size`, counted in `unit`. `setting` is what an operator changes to raise it."""

    size: int
    unit: Unit = "codepoints"
    setting: str = "CONTEXT_MAX_LENGTH"

    @property
    def max_characters(self) -> int:
        """Code points that no text within the limit exceeds."""
        return self.size * BYTES_PER_TOKEN if self.unit == "tokens" else self.size

    @property
    def measure(self) -> Callable[[str], int]:
        """The function that gives the size of a text in this limit's unit."""
        return _MEASURES[self.unit]

    @property
    def in_words(self) -> str:
        """The limit for people, as in `1000 characters`."""
        return f"{self.size} {_UNITS_IN_WORDS[self.unit]}"


def _utf16_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


# Functions, not branches: a composed prompt measures dozens of texts, and `len` costs next to nothing.
_MEASURES: Mapping[Unit, Callable[[str], int]] = MappingProxyType(
    {"codepoints": len, "utf16": _utf16_size, "bytes": utf8_size, "tokens": estimate}
)
_UNITS_IN_WORDS: Mapping[Unit, str] = MappingProxyType(
    {"codepoints": "characters", "utf16": "UTF-16 units", "bytes": "bytes", "tokens": "tokens"}
)


class Prompt(Struct, frozen=True, kw_only=True):
    """What clients and operators are told about a prompt, whatever form it was sent in.

    Args:
        size: Its size in the limit's unit, at most `limit.size` unless it is sent in parts.
        limit: The limit it was made for.
        tokens: Its estimated size in tokens.
        dropped: Messages that were left out.
        shortened: Messages that were cut down to their head and tail.
    """

    size: int
    limit: PromptLimit
    tokens: int
    dropped: int = 0
    shortened: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether the whole conversation is in it, and fits."""
        return not self.dropped and not self.shortened and self.size <= self.limit.size


class TextPrompt(Prompt, frozen=True, kw_only=True):
    """A conversation as one text.

    Args:
        earlier_parts: Texts that are sent before it, one by one, in the same session of the upstream's. Its size is
            that of all together.
    """

    text: str
    earlier_parts: tuple[str, ...] = ()


class MessagePrompt(Prompt, frozen=True, kw_only=True):
    """A conversation as messages, for models that take them. Its size is estimated; the upstream knows better."""

    messages: tuple[Message, ...]

    @property
    def text(self) -> str:
        """The same for people."""
        return "\n".join([f"{message.role}: {message.text}" for message in self.messages])


def text_prompt(text: str, size: int, limit: PromptLimit, dropped: int = 0, shortened: int = 0) -> TextPrompt:
    """A prompt of a finished text that has been measured."""
    return TextPrompt(text=text, size=size, limit=limit, tokens=estimate(text), dropped=dropped, shortened=shortened)


def message_prompt(messages: tuple[Message, ...], limit: PromptLimit) -> MessagePrompt:
    """A prompt of messages that are sent as they are."""
    tokens = sum([estimate(message.text) for message in messages])
    for message in messages:
        for call in message.tool_calls:
            tokens += estimate(call.name + call.arguments)
    return MessagePrompt(messages=messages, size=tokens, limit=limit, tokens=tokens)


def told_call(call: ToolCall) -> str:
    """An earlier tool call in words, for a model that has no form of its own for calls."""
    return f"(called {call.name} with {call.arguments})"


def compose(
    messages: Sequence[Message],
    limit: PromptLimit,
    instructions: str = "",
    instructions_param: str = "tools",
    render_call: Callable[[ToolCall], str] = told_call,
) -> TextPrompt:
    """Compose one text of a conversation, oldest message first.

    Args:
        messages: The conversation.
        limit: How large the prompt may be.
        instructions: Further text that the model must read in full.
        instructions_param: The request field to name if the instructions don't fit.
        render_call: Writes an earlier tool call.

    Raises:
        ContextTooLong: What must be sent exceeds the limit.
        InvalidRequest: There is nothing to send.
    """
    measure = _MEASURES[limit.unit]
    if len(messages) == 1 and not instructions and not messages[0].tool_calls:
        text = messages[0].text
        size = measure(text)
        if size <= limit.size and not _is_blank(text):
            return text_prompt(text, size, limit)
    draft = _draft(messages, render_call)
    has_words = not _is_blank("".join([section.body for section in draft.pending]))
    if not has_words and messages[-1].role != "tool":  # a tool may well have nothing to say
        raise InvalidRequest("The last message is empty.", param="messages")
    told = [_Section(_PLAIN_TAGS["system"], instructions, ours=True)] if instructions else []
    must = [*told, *draft.pending]
    # A lower bound of the size, which saves joining long texts in vain.
    if len(instructions) + sum([len(message.text) for message in messages]) <= limit.max_characters:
        text = _join([*draft.system, *draft.sections(draft.history), *must], has_words)
        size = measure(text)
        if size <= limit.size:
            return text_prompt(text, size, limit)
    kept = _select(draft, must, limit)
    text = _join(kept, has_words)
    size = measure(text)
    if size > limit.size:
        raise _too_long(size, draft.pending, told, limit, instructions_param)
    dropped = len(draft.system) + len(draft.history) + len(must) - len(kept)
    return text_prompt(text, size, limit, dropped, sum([section.cut for section in kept]))


def room_for_instructions(messages: Sequence[Message], limit: PromptLimit) -> int:
    """The size that instructions may have beside what must be sent of a conversation; below 0 if not even that fits."""
    draft = _draft(messages, told_call)
    beside = _join([_Section(_PLAIN_TAGS["system"], "", ours=True), *draft.pending], has_words=True)
    return limit.size - limit.measure(beside)


def pending_places(messages: Sequence[Message], limit: PromptLimit) -> tuple[list[int], int]:
    """The places of the messages that must be sent, and the size of their tags; none if only instructions came."""
    places = [place for place, message in enumerate(messages) if message.role != "system"]
    if not places:
        return [], 0
    draft = _draft(messages, told_call)
    overhead = sum([limit.measure(section.tag + _SEPARATOR) for section in draft.pending])
    return places[-len(draft.pending) :], overhead


class _Section(Struct, frozen=True):
    """A message as it is written.

    Args:
        ours: Written by the gateway, so that nothing in it can be forged.
        cut: Only its head and tail are left.
    """

    tag: str
    body: str
    ours: bool = False
    cut: bool = False


class _Draft(Struct, frozen=True):
    """A conversation sorted by what must be sent.

    Args:
        system: The system prompt: one section or none.
        history: Messages that may be left out, oldest first; none is empty.
        pending: The sections that must be sent.
        first_pending: The message of the first of these.
        tool_names: By the ids of their calls.
        render_call: Writes an earlier tool call.
    """

    system: list[_Section]
    history: list[Message]
    pending: list[_Section]
    first_pending: Message
    tool_names: dict[str, str]
    render_call: Callable[[ToolCall], str]

    def sections(self, messages: Iterable[Message]) -> list[_Section]:
        """Messages as they are written."""
        # Most have a role and a text: a call for each of those would cost more than all else that is done with them.
        return [
            self._section(message)
            if message.name or message.tool_calls or message.tool_call_id
            else _Section(_PLAIN_TAGS[message.role], message.text)
            for message in messages
        ]

    def _section(self, message: Message) -> _Section:
        body, name = message.text, message.name
        if message.tool_calls:
            calls = [self.render_call(call) for call in message.tool_calls]
            body = "\n".join([body, *calls] if body else calls)
        if not name and message.tool_call_id:
            name = self.tool_names.get(message.tool_call_id)
        return _Section(_tag(message.role, name) if name else _PLAIN_TAGS[message.role], body)


def _is_blank(text: str) -> bool:
    return not text or text.isspace()


def _join(sections: list[_Section], has_words: bool) -> str:
    if len(sections) == 1 and has_words:
        return sections[0].body
    # What forged tags and calls begin with is searched for in all bodies at once: a search in each costs several times
    # as much, and most conversations have nothing of the kind.
    bodies = _SEPARATOR.join([section.body for section in sections])
    if may_forge(bodies):
        sections = [
            section if section.ours else replace(section, body=without_forgeries(section.body)) for section in sections
        ]
    return _SEPARATOR.join([section.tag + section.body for section in sections])


def _too_long(
    size: int, pending: list[_Section], told: list[_Section], limit: PromptLimit, instructions_param: str
) -> ContextTooLong:
    """The error that blames the instructions if the message to be answered would fit without them."""
    text = _join(pending, has_words=True)
    alone = limit.measure(text)
    unit = _UNITS_IN_WORDS[limit.unit]
    if told and alone <= limit.size:
        details = instructions_too_long(
            text, instructions_param, limit.measure(told[0].body), size, unit=unit, setting=limit.setting
        )
        return ContextTooLong(details, param=instructions_param, limit=limit.in_words)
    are_results = all(section.tag.startswith("[Tool") for section in pending)
    details = message_too_long(
        text, alone if told else size, limit.size, unit=unit, setting=limit.setting, are_results=are_results
    )
    return ContextTooLong(details, param="messages", limit=limit.in_words)


def _draft(messages: Sequence[Message], render_call: Callable[[ToolCall], str]) -> _Draft:
    turns = [message for message in messages if message.role != "system"]
    instructions = [message.text for message in messages if message.role == "system" and message.text]
    tool_names = {call.id: call.name for message in turns if message.tool_calls for call in message.tool_calls}
    if not turns:
        # Only instructions came: then they are the question.
        pending = [_Section(_PLAIN_TAGS["user"], "\n\n".join(instructions))]
        return _Draft([], [], pending, messages[-1], tool_names, render_call)
    first = _first_pending(turns)
    draft = _Draft(
        [_Section(_PLAIN_TAGS["system"], "\n\n".join(instructions))] if instructions else [],
        [message for message in turns[:first] if message.text or message.tool_calls],
        [],
        turns[first],
        tool_names,
        render_call,
    )
    draft.pending.extend(draft.sections(turns[first:]))
    return draft


def _first_pending(turns: Sequence[Message]) -> int:
    """The tool results at the end, else the last user turn, else (a conversation without a user) the last message."""
    first = len(turns)
    while first > 0 and turns[first - 1].role == "tool":
        first -= 1
    if first < len(turns):
        return first
    while first > 0:
        first -= 1
        if turns[first].role == "user":
            return first
    return len(turns) - 1


def _tag(role: Role, name: str) -> str:
    label = f"{role.capitalize()} {_NOT_IN_A_TAG.sub('', name)[:64]}".rstrip()
    return f"[{label}]: "


def _select(draft: _Draft, must: list[_Section], limit: PromptLimit) -> list[_Section]:
    """The sections to send where not all fit, oldest first, cut down where necessary."""
    measure = limit.measure
    separator = measure(_SEPARATOR)
    # Every section but the first costs a separator; so does the first here, and the budget pays it back.
    room = limit.size + separator
    told = 0
    for section in must:
        cost = measure(section.tag) + separator + measure(section.body)
        room -= cost
        told += cost if section.ours else 0
    if room <= 0:
        return must
    kept: list[_Section] = []
    budget = limit.size - told
    asked, place = 0, _asked(draft)
    if place is not None:
        (section,) = draft.sections([draft.history[place]])
        asked = min(measure(section.tag) + separator + measure(section.body), budget // _SHARES)
    share = max(min(room - asked, budget // _SHARES), 0)
    taken = 0
    for section in draft.system:
        cost = measure(section.tag) + separator + measure(section.body)
        kept += [section] if cost <= share else _cut(section, share, limit)
        taken += cost > share
        room -= min(share, cost)
    first, others = _by_importance(draft, limit.max_characters)
    history, room = _shared(first, draft, room, (budget, taken), limit)
    for place, section in zip(others, draft.sections([draft.history[place] for place in others]), strict=True):
        cost = measure(section.tag) + separator + measure(section.body)
        if cost > room:
            history += [(place, part) for part in _cut(section, room, limit)]
            break
        history.append((place, section))
        room -= cost
    history.sort(key=_place)
    return kept + [section for _, section in history] + must


def _shared(
    places: Sequence[int], draft: _Draft, room: int, shares: tuple[int, int], limit: PromptLimit
) -> tuple[list[tuple[int, _Section]], int]:
    """The messages at these places, cut down where they take more than their share, and the room that is left.

    Args:
        places: The most important first.
        draft: The conversation.
        room: What they may take together.
        shares: What all shares make up together, and how many of them are taken.
        limit: What the prompt is made for.
    """
    budget, taken = shares
    measure = limit.measure
    least_part = measure(ELLIPSIS) + USEFUL
    overheads: dict[str, int] = {}
    # All shares together grow with the limit, never two of them at once: that would cost another message its place.
    share = (taken + 1) * budget // _SHARES - taken * budget // _SHARES
    given: list[tuple[int, _Section, int, int]] = []
    for place, section in zip(places, draft.sections([draft.history[place] for place in places]), strict=True):
        overhead = overheads.get(section.tag)
        if overhead is None:
            overhead = overheads[section.tag] = measure(section.tag + _SEPARATOR)
        size = cost = overhead + measure(section.body)
        if cost > share >= overhead + least_part:
            size = share
            taken += 1
            share = (taken + 1) * budget // _SHARES - taken * budget // _SHARES
        if size > room:
            given.append((place, section, cost, room))
            room = 0
            break
        given.append((place, section, cost, size))
        room -= size
    kept: list[tuple[int, _Section]] = []
    for place, section, cost, size in given:
        if size < cost:
            more = min(cost - size, room)
            room -= more
            if size + more < cost:
                kept += [(place, part) for part in _cut(section, size + more, limit)]
                continue
        kept.append((place, section))
    return kept, room


def _place(placed: tuple[int, _Section]) -> int:
    return placed[0]


def _by_importance(draft: _Draft, max_characters: int) -> tuple[list[int], list[int]]:
    """The places of the messages that could have room among so many characters, the most important first.

    First the newest answer, what the user said first, and what users have said since; then the other answers, and what
    was never answered.
    """
    history = draft.history
    first: list[int] = []
    answers: list[int] = []
    unanswered: list[int] = []
    room_for_first = room_for_others = max_characters
    share = max_characters // _SHARES
    follower = draft.first_pending
    has_answer = False
    for place in range(len(history) - 1, -1, -1):
        message = history[place]
        size = len(message.text)
        is_unanswered = message.role == "user" == follower.role and message.name == follower.name
        follower = message
        if is_unanswered:
            unanswered.append(place)
        elif message.role == "user" or not has_answer:
            has_answer = has_answer or message.role != "user"
            first.append(place)
            room_for_first -= min(share, size)
        elif room_for_others >= 0:
            answers.append(place)
            room_for_others -= size
        if room_for_first < 0:
            break
    opening = next((place for place, message in enumerate(history) if message.role == "user"), None)
    if opening is not None and opening not in unanswered:
        # People introduce themselves, and what they want, in the first thing they say.
        first = [place for place in first if place != opening]
        first.insert(1, opening)
    asked = _asked(draft)
    if asked is not None:
        first = [asked, *(place for place in first if place != asked)]
    for place in unanswered:
        if room_for_others < 0:
            break
        answers.append(place)
        room_for_others -= len(history[place].text)
    return first, answers


def _asked(draft: _Draft) -> int | None:
    """The place of what the user asked last, if tool results wait for an answer: without it they mean nothing."""
    if draft.first_pending.role != "tool":
        return None
    history = draft.history
    return next((place for place in range(len(history) - 1, -1, -1) if history[place].role == "user"), None)


def _cut(section: _Section, room: int, limit: PromptLimit) -> list[_Section]:
    """The section's head and tail; nothing if too little of them would be left."""
    room -= limit.measure(section.tag + _SEPARATOR) + limit.measure(ELLIPSIS)
    if room < USEFUL:
        return []
    head, tail = head_of(section.body, room - room // 2, limit), tail_of(section.body, room // 2, limit)
    return [_Section(section.tag, head + ELLIPSIS + tail, cut=True)]


def head_of(text: str, size: int, limit: PromptLimit) -> str:
    """The beginning of a text, at most so large, that ends between two visible characters."""
    end = len(text[:size])
    if limit.unit == "bytes":
        end = len(text[:size].encode("utf-8", "surrogatepass")[:size].decode("utf-8", "ignore"))
    elif limit.unit == "utf16":
        end = len(text[:size].encode("utf-16-le", "surrogatepass")[: 2 * size].decode("utf-16-le", "ignore"))
    return text[: boundary_before(text, end)]


def tail_of(text: str, size: int, limit: PromptLimit) -> str:
    """The end of a text, at most so large, that begins between two visible characters."""
    kept = text[max(0, len(text) - size) :] if size else ""
    if limit.unit == "bytes":
        kept = kept.encode("utf-8", "surrogatepass")[-size:].decode("utf-8", "ignore") if size else ""
    elif limit.unit == "utf16":
        kept = kept.encode("utf-16-le", "surrogatepass")[-2 * size :].decode("utf-16-le", "ignore") if size else ""
    return text[boundary_after(text, len(text) - len(kept)) :]
