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
from typing import Literal

from msgspec import Struct

from app.domain.chat import Message, Role, ToolCall
from app.domain.chunking import boundary_after, boundary_before
from app.domain.errors import ContextTooLong, InvalidRequest
from app.domain.tokens import BYTES_PER_TOKEN, estimate, utf8_size

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

    @property
    def most_characters(self) -> int:
        """No text of more code points keeps within the limit."""
        return self.size * BYTES_PER_TOKEN if self.unit == "tokens" else self.size

    def measure(self, text: str) -> int:
        """The size of a text in this limit's unit."""
        if self.unit == "codepoints":
            return len(text)
        if self.unit == "bytes":
            return utf8_size(text)
        if self.unit == "tokens":
            return estimate(text)
        return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


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


class _Section(Struct, frozen=True):
    """A message as it is written.

    Args:
        ours: Written by the gateway: nothing in it is forged.
        cut: Only the head and the tail are left.
    """

    tag: str
    body: str
    ours: bool = False
    cut: bool = False


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
    if len(messages) == 1 and not instructions and (prompt := _of_one(messages[0], limit)):
        return prompt
    parts = _parts(messages, render_call or _told_call)
    has_words = not _is_blank("".join([section.body for section in parts.pending]))
    if not has_words and messages[-1].role != "tool":  # a tool may well have nothing to say
        raise InvalidRequest("The last message is empty: there is nothing to answer.", param="messages")
    told = [_Section(_PLAIN_TAGS["system"], instructions, ours=True)] if instructions else []
    must = [*told, *parts.pending]
    # Before long texts are put together in vain: so many code points are in it in any case.
    if len(instructions) + sum([len(message.text) for message in messages]) <= limit.most_characters:
        text = _written([*parts.system, *map(parts.section, parts.history), *must], has_words)
        size = limit.measure(text)
        if size <= limit.size:
            return Prompt(text, size, limit)
    kept = _select(parts, must, limit)
    text = _written(kept, has_words)
    size = limit.measure(text)
    if size > limit.size:
        raise _too_long(size, parts.pending, told, limit, instructions_param)
    dropped = len(parts.system) + len(parts.history) + len(must) - len(kept)
    return Prompt(text, size, limit, dropped, shortened=sum([section.cut for section in kept]))


def _of_one(message: Message, limit: PromptLimit) -> Prompt | None:
    """The prompt of a lone message, if there is nothing to it."""
    text = message.text
    if message.tool_calls or _is_blank(text):
        return None
    size = limit.measure(text)
    return Prompt(text, size, limit) if size <= limit.size else None


def _is_blank(text: str) -> bool:
    return not text or text.isspace()


def _written(sections: list[_Section], has_words: bool) -> str:
    if len(sections) == 1 and has_words:
        return sections[0].body
    return _SEPARATOR.join(
        [section.tag + (section.body if section.ours else _neutral(section.body)) for section in sections]
    )


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
    return _written(pending, has_words=True)


class _Parts(Struct, frozen=True):
    """A conversation taken apart.

    Args:
        system: The system prompt: one section or none.
        history: What may be left out, oldest first; no empty messages.
        pending: What must be sent.
        tool_names: By the ids of their calls.
        render_call: How a call is written.
    """

    system: list[_Section]
    history: list[Message]
    pending: list[_Section]
    tool_names: dict[str, str]
    render_call: Callable[[ToolCall], str]

    def section(self, message: Message) -> _Section:
        """How a message is written."""
        return _section(message, self.tool_names, self.render_call)


def _parts(messages: Sequence[Message], render_call: Callable[[ToolCall], str]) -> _Parts:
    instructions: list[str] = []
    turns: list[Message] = []
    tool_names: dict[str, str] = {}
    for message in messages:
        if message.role != "system":
            turns.append(message)
            if message.tool_calls:
                tool_names.update({call.id: call.name for call in message.tool_calls})
        elif message.text:
            instructions.append(message.text)
    system_text = "\n\n".join(instructions)
    if not turns:
        # Only instructions came: then they are what wants an answer.
        return _Parts([], [], [_Section(_PLAIN_TAGS["user"], system_text)], tool_names, render_call)
    first = _first_pending(turns)
    return _Parts(
        [_Section(_PLAIN_TAGS["system"], system_text)] if instructions else [],
        [message for message in turns[:first] if message.text or message.tool_calls] if first else [],
        [_section(message, tool_names, render_call) for message in turns[first:]],
        tool_names,
        render_call,
    )


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


def _section(message: Message, tool_names: dict[str, str], render_call: Callable[[ToolCall], str]) -> _Section:
    body = message.text
    if message.tool_calls:
        calls = [render_call(call) for call in message.tool_calls]
        body = "\n".join([body, *calls] if body else calls)
    name = message.name
    if not name and message.tool_call_id:
        name = tool_names.get(message.tool_call_id)
    return _Section(_tag(message.role, name) if name else _PLAIN_TAGS[message.role], body)


def _tag(role: Role, name: str) -> str:
    label = f"{role.capitalize()} {_NOT_IN_A_TAG.sub('', name)[:64]}".rstrip()
    return f"[{label}]: "


def _told_call(call: ToolCall) -> str:
    return f"(called {call.name} with {call.arguments})"


def _select(parts: _Parts, must: list[_Section], limit: PromptLimit) -> list[_Section]:
    """The sections to send where not all fit, in chronological order, cut down where they have to be."""
    # Every section but the first costs a separator; so does the first here, and the budget pays it back.
    room = limit.size + limit.measure(_SEPARATOR) - sum([_cost(section, limit) for section in must])
    if room <= 0:
        return must
    kept: list[_Section] = []
    share = min(room, limit.size // _SYSTEM_SHARE)
    for section in parts.system:
        cost = _cost(section, limit)
        kept += [section] if cost <= share else _cut(section, share, limit)
        room -= min(share, cost)
    history: list[_Section] = []
    for message in reversed(parts.history):
        section = parts.section(message)
        cost = _cost(section, limit)
        if cost > room:
            history += _cut(section, room, limit)
            break
        history.append(section)
        room -= cost
    history.reverse()
    return kept + history + must


def _cost(section: _Section, limit: PromptLimit) -> int:
    return limit.measure(section.tag + _SEPARATOR) + limit.measure(section.body)


def _cut(section: _Section, room: int, limit: PromptLimit) -> list[_Section]:
    """The section's head and tail; nothing if too little of them would be left."""
    room -= limit.measure(section.tag + _SEPARATOR) + limit.measure(_ELLIPSIS)
    if room < _USEFUL:
        return []
    head, tail = _head(section.body, room - room // 2, limit), _tail(section.body, room // 2, limit)
    return [_Section(section.tag, head + _ELLIPSIS + tail, cut=True)]


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
    # A single character is looked for ten times as fast as a word.
    if "<" in text and "tool_call" in text:
        text = _FORGED_CALL.sub("(", text)
    return _FORGED_KIMI_CALL.sub("functions ", text) if ":" in text and "functions." in text else text


def _neutral(body: str) -> str:
    """The body with all that reads like a tag of ours or like a tool call made harmless; it gets no longer by that."""
    if "[" in body or "［" in body:
        body = _FORGED_TAG.sub("(", body)
    return without_forged_calls(body)
