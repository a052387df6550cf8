"""What an upstream was really sent, told of part by part: which messages went whole, cut down, or not at all."""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from app.domain.chat import Message
from app.domain.prompt import ELLIPSIS, MessagePrompt, Prompt, TextPrompt

# So much of a message's beginning tells that its head is there.
_HEAD = 16
_LONGEST_TOLD = 4000
State = Literal["whole", "shortened", "dropped"]


class Part(Struct, frozen=True):
    """A message of the conversation, and what became of it."""

    role: str
    text: str
    state: State


class SentPrompt(Struct, frozen=True):
    """A prompt as it was sent.

    Args:
        text: As one text; empty if an earlier answer was given again.
        earlier_parts: What went before it, if it didn't fit into one message.
        size: In the unit of the model's limit.
        parts: The conversation, oldest message first.
    """

    text: str
    earlier_parts: tuple[str, ...]
    size: int
    limit: int
    dropped: int
    shortened: int
    parts: tuple[Part, ...]


def sent_prompt(prompt: Prompt, conversation: Sequence[Message]) -> SentPrompt:
    """Tell what was sent of a conversation."""
    text = prompt.text if isinstance(prompt, TextPrompt | MessagePrompt) else ""
    earlier = prompt.earlier_parts if isinstance(prompt, TextPrompt) else ()
    return SentPrompt(
        text=text,
        earlier_parts=earlier,
        size=prompt.size,
        limit=prompt.limit.size,
        dropped=prompt.dropped,
        shortened=prompt.shortened,
        parts=_parts("\n".join((*earlier, text)), conversation) if text else (),
    )


def _parts(sent: str, conversation: Sequence[Message]) -> tuple[Part, ...]:
    """The messages, each with what became of it.

    The newest comes first, and each is looked for before the one that was found last: what was said twice isn't taken
    for what was said once.
    """
    parts, end = [], len(sent)
    # Searched from its end in a mirror: `rfind` takes the square of a text's length if the text is made for that.
    mirror = sent[::-1]
    for message in reversed(conversation):
        text = message.text
        state: State = "whole"
        at = _last(mirror, text, end)
        if at < 0:
            at = _last(mirror, text[:_HEAD], end)
            state = "shortened" if at >= 0 and ELLIPSIS.strip() in sent[at:end] else "dropped"
        if state != "dropped" and message.role != "system":
            # A system prompt is put before everything, wherever it came.
            end = at
        parts.append(Part(message.role, text[:_LONGEST_TOLD], state))
    return tuple(reversed(parts))


def _last(mirror: str, text: str, end: int) -> int:
    """Where a text begins for the last time before a place, in what is given from back to front; -1 if nowhere."""
    at = mirror.find(text[::-1], len(mirror) - end)
    return -1 if at < 0 else len(mirror) - at - len(text)
