"""What is told about a call while it is answered, as the dialects see it."""

from msgspec import Struct
from msgspec.structs import replace

from app.domain.chat import Completion, Delta, Usage
from app.domain.conversation import Action
from app.domain.prompt import Prompt
from app.limits.limiter import Admission


class Opening(Struct, frozen=True):
    """What is known before the upstream has said a word; it becomes response headers.

    Args:
        model: The model name that the client asked for.
        provider: The provider that is asked.
        session_id: The session; None if there is none.
        action: What the call means for its session.
        prompt: What is sent, and what was left out.
        options_taken: Whether further fields of the request reach the upstream.
        fallback: The providers that were passed over, each as `provider=reason`.
        ignored: What was left out or changed because the model doesn't take it, by our names.
        admission: By the limits of its caller; None if there are none.
        native: Whether the upstream's API has the form of the request: then the answer's parts have it, too.
        cache_age: The age of an answer from the cache, in seconds; -1 if there was none, None if none was looked for.
    """

    model: str
    provider: str
    session_id: str | None
    action: Action
    prompt: Prompt
    options_taken: bool = False
    fallback: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    admission: Admission | None = None
    native: bool = False
    cache_age: int | None = None


class Ending(Struct, frozen=True):
    """The end of an answer. When it is told, the turn has been remembered.

    Args:
        completion: The whole answer, also when it was streamed: nobody needs to gather it again.
        usage: Counted by the upstream, or estimated.
        notice: What `Answer.as_shown` adds below a whole answer. A streamed one has it as its last delta.
    """

    completion: Completion
    usage: Usage
    notice: str = ""


class Answer(Struct, frozen=True):
    """A whole answer."""

    opening: Opening
    ending: Ending

    def as_shown(self) -> "Answer":
        """The answer with its notice below it."""
        completion, notice = self.ending.completion, self.ending.notice
        deltas = (*completion.deltas, Delta(notice)) if completion.deltas else ()
        shown = replace(completion, text=completion.text + notice, deltas=deltas)
        return Answer(self.opening, replace(self.ending, completion=shown))


# An `Opening` may be followed by another one before the first `Delta`: then the next provider was asked.
Event = Opening | Delta | Ending
