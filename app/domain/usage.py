"""The record of a call."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from app.domain.caller import Caller
from app.domain.chat import Usage
from app.domain.conversation import Action
from app.domain.prompt import PromptLimit
from app.domain.waits import WaitStep

# `refused` requests never became calls.
Outcome = Literal["completed", "failed", "abandoned", "refused"]


class Origin(Struct, frozen=True):
    """How a call came in.

    Args:
        request_id: Of its request.
        dialect: In which it was written.
        streamed: Whether its answer is streamed.
        end_user: Whom the client says it is for.
    """

    request_id: str = ""
    dialect: str = ""
    streamed: bool = False
    end_user: str | None = None


NOWHERE = Origin()


class CallRecord(Struct, frozen=True):
    """A call that is over, without its texts. Fields are None if the call ended before they were known.

    Args:
        caller_id: Whose call it was.
        model: The model that was asked, by its public id.
        provider: The provider that answered, or should have.
        outcome: `abandoned` means that the client left first.
        error_code: Of a failed call.
        action: What the call meant for its session.
        prompt_size: Size of the prompt, in the unit of the model's limit.
        dropped: Messages that didn't fit into the prompt.
        tools_left_out: Tools that the model wasn't told of, for want of room.
        usage: Tokens, if an answer came.
        seconds: The duration of the call.
        upstream_seconds: The time to the upstream's answer (of a stream: its first part).
        session: A digest of the session's key, which finds the session's calls.
        passed_over: The providers that could not answer, each with an error code.
        reason: Why the connection to the upstream failed, if that is why the call did; with the server, for the
            operator only.
        origin: How it came in.
        project: Of its caller.
        asked_model: The name that was asked for.
        served_model: The model that it stands for; unlike `model` one of any number of names.
        status: The HTTP status of its answer.
        charged: The tokens that its caller has caused: `usage`, or what was sent and came before it broke off.
        counts: Whether its caller has caused a request: not if it failed before anything was sent to an upstream, or
            got the answer of an earlier request.
        began: When it counts, in seconds since the epoch; 0 for as long ago as it took.
        prompt_limit: What the prompt had room in.
        shortened: Messages of which only a part fitted into the prompt.
        waits: The seconds of each thing that it had to wait for; None if there was none.
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
    reason: str = ""
    server: str = ""
    tools_left_out: int = 0
    origin: Origin = NOWHERE
    project: str = ""
    asked_model: str = ""
    served_model: str = ""
    status: int = 200
    charged: Usage | None = None
    counts: bool = True
    began: float = 0.0
    prompt_limit: PromptLimit | None = None
    shortened: int = 0
    waits: Mapping[WaitStep, float] | None = None


def refused(
    caller: Caller, origin: Origin, error_code: str, status: int, *, model: str = "", seconds: float = 0.0
) -> CallRecord:
    """The record of a request that was refused before it became a call.

    Args:
        model: The name that it asks for, if that is known.
        seconds: How long it took.
    """
    return CallRecord(
        caller_id=caller.id,
        model="",
        provider="",
        outcome="refused",
        error_code=error_code,
        action=None,
        prompt_size=None,
        dropped=None,
        usage=None,
        seconds=seconds,
        upstream_seconds=None,
        origin=origin,
        project=caller.project,
        asked_model=model,
        status=status,
        counts=False,
    )
