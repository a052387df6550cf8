"""How calls are opened and ended, for tests of what dialects write."""

from typing import Any

from app.chat.events import Answer, Ending, Opening
from app.domain.chat import Completion, FinishReason, Usage
from app.domain.prompt import PromptLimit, text_prompt

USAGE = Usage(3, 4)
OPENING = Opening("kimi", "kimi-web", None, "stateless", text_prompt("Hello, you.", 11, PromptLimit(1000)))


def ending(reason: FinishReason = "stop", usage: Usage = USAGE, text: str = "", **fields: Any) -> Ending:
    """The end of an answer.

    Args:
        fields: Of its `Completion`.
    """
    return Ending(Completion(text, reason, usage, **fields), usage)


def answer(text: str, reason: FinishReason = "stop", usage: Usage = USAGE, **fields: Any) -> Answer:
    """A whole answer; see `ending`."""
    return Answer(OPENING, ending(reason, usage, text, **fields))
