"""What was said in a call, for the few who may know."""

from collections.abc import Container, Sequence
from typing import Protocol

from msgspec import Struct

from app.domain.chat import ChatCall, Completion, Message
from app.domain.prompt import MessagePrompt, TextPrompt, told_call
from app.domain.usage import CallRecord


class CallTexts(Struct, frozen=True):
    """What was said in a call that is over.

    Args:
        record: All that is known of the call but its texts.
        asked: What the client sent.
        prompt: What the upstream was sent; None if none was asked.
        answer: What came back, as far as it came.
        call: The call itself, with all its settings; None for one that was passed on.
    """

    record: CallRecord
    asked: Sequence[Message]
    prompt: TextPrompt | MessagePrompt | None
    answer: Completion
    call: ChatCall | None = None


class TextTaker(Protocol):
    """Takes the texts of calls."""

    @property
    def callers(self) -> Container[str]:
        """The ids of those whose calls it takes the texts of. Looked up once in each call."""

    def take_texts(self, texts: CallTexts) -> None:
        """Take the texts of a call of theirs. It must return at once: it may run while a task is being cancelled."""


def messages_in_words(messages: Sequence[Message]) -> str:
    """Messages for people, with their tool calls."""
    told = []
    for message in messages:
        head = f"{message.role} {message.name}" if message.name else message.role
        lines = [message.text, *map(told_call, message.tool_calls)]
        told.append(f"{head}: " + "\n".join(filter(None, lines)))
    return "\n".join(told)


def prompt_in_words(prompt: TextPrompt | MessagePrompt) -> str:
    """A prompt for people, with all its parts."""
    if isinstance(prompt, MessagePrompt):
        return messages_in_words(prompt.messages)
    return "\n\n".join((*prompt.earlier_parts, prompt.text))


def answer_in_words(answer: Completion) -> str:
    """An answer for people: its text, or what is said in place of it, and its tool calls; and the answers beside it."""
    lines = [answer.text, answer.refusal, *map(told_call, answer.tool_calls)]
    return "\n\n".join(filter(None, ("\n".join(filter(None, lines)), *map(answer_in_words, answer.others))))
