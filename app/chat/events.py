"""What becomes of a call, event by event, as those see it who write it to a client."""

from msgspec import Struct

from app.domain.chat import Delta, FinishReason, ToolCall, Usage
from app.domain.conversation import Action
from app.domain.prompt import Prompt


class Opening(Struct, frozen=True):
    """What is known before the upstream has said a word; it becomes response headers.

    Args:
        model: The model name that the client asked for.
        provider: Who is asked.
        session_id: The session, if there is one.
        action: What the call means for it.
        prompt: What is sent, and what was left out.
        options_taken: Do further fields of the request reach the upstream?
        fallback: The providers that were passed over, each as `provider=reason`.
    """

    model: str
    provider: str
    session_id: str | None
    action: Action
    prompt: Prompt
    options_taken: bool = False
    fallback: tuple[str, ...] = ()


class Ending(Struct, frozen=True):
    """How an answer ended. When it is told, the turn has been remembered.

    Args:
        stop: The stop text that ended the answer, if one did and it is known which.
    """

    finish_reason: FinishReason
    usage: Usage
    stop: str | None = None


class Answer(Struct, frozen=True):
    """A whole answer."""

    opening: Opening
    text: str
    ending: Ending
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""


# An `Opening` may be followed by another before the first `Delta`: then it is the other provider that answers.
Event = Opening | Delta | Ending
