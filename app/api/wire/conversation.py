"""A conversation that came in a form other than OpenAI's, as it was read. Pure."""

import json
from collections.abc import Iterator, Sequence

from msgspec import Struct

from app.domain.chat import Message, ToolUse
from app.domain.errors import InvalidRequest
from app.domain.tokens import estimate


class Conversation(Struct, frozen=True):
    """A conversation, as far as it could be read.

    Args:
        system: The system prompt; None if it says nothing.
        turns: The messages that each of the request's own means. One that goes on with another means none.
        refusal: What could not be read, the first of it.
    """

    system: Message | None
    turns: tuple[tuple[Message, ...], ...]
    refusal: InvalidRequest | None = None

    @property
    def messages(self) -> tuple[Message, ...]:
        """All messages, the system prompt first."""
        turns = tuple([message for turn in self.turns for message in turn])
        return turns if self.system is None else (self.system, *turns)


def tokens_of(messages: Sequence[Message], tools: ToolUse | None) -> int:
    """Estimated tokens of all that is sent; images and files count nothing."""
    return estimate("\n".join(_texts(messages, tools)))


def _texts(messages: Sequence[Message], tools: ToolUse | None) -> Iterator[str]:
    for message in messages:
        yield message.reasoning + message.text
        for call in message.tool_calls:
            yield call.name + call.arguments
    for tool in tools.tools if tools else ():
        yield tool.name + tool.description + json.dumps(tool.parameters, ensure_ascii=False, separators=(",", ":"))
