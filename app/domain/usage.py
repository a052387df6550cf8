"""What is written down about an answered (or failed) call."""

from typing import Literal

from msgspec import Struct

from app.domain.chat import Usage
from app.domain.conversation import Action

Outcome = Literal["completed", "failed", "abandoned"]


class CallRecord(Struct, frozen=True):
    """One call, when it is over; without any text of it. What a call that ended early never knew is None.

    Args:
        caller_id: Whose call it was.
        model: The model that was asked, by its public id.
        provider: Who answered, or should have.
        outcome: `abandoned` means that the client left first.
        error_code: Of a failed call.
        action: What the call meant for its session.
        prompt_size: Size of the prompt, in the unit of the model's limit.
        dropped: Messages that didn't fit into the prompt.
        usage: Tokens, if an answer came.
        seconds: From the call's beginning to its end.
        upstream_seconds: Of these, until the upstream had answered (streams: its first part).
        session: Stands for the session, so that its calls can be found together.
        passed_over: The providers that couldn't answer, each with the code of its reason.
    """

    caller_id: str
    model: str
    provider: str
    outcome: Outcome
    error_code: str | None
    action: Action | None
    prompt_size: int | None
    dropped: int | None
    usage: Usage | None
    seconds: float
    upstream_seconds: float | None
    session: str | None = None
    passed_over: tuple[tuple[str, str], ...] = ()
