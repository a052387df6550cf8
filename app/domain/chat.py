"""The words in which the gateway thinks about a chat, whatever dialect the client or the upstream speaks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the assistant asked for; `arguments` is the JSON text as it came."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation. A `tool` message holds the result of the call named by `tool_call_id`."""

    role: Role
    text: str
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class SessionRef:
    """Which session a request belongs to, and how the client said so."""

    id: str
    source: Literal["header", "user"]


@dataclass(frozen=True, slots=True)
class ChatCall:
    """One request for an answer, understood.

    Args:
        model: The public model id that the client asked for.
        messages: What the client sent, oldest first; never empty.
        max_tokens: The most tokens that the answer may have; None for no limit.
        stop: Texts at which the answer ends; they are not part of it.
        session: None for a request that wants no memory.
        reset: The client wants the session to start anew.
        strict: The client would rather have an error than a new session in place of an expired one.
        is_retry: The client's SDK says that it sends this for another time.
        idempotency_key: The client's own name for this request, the same when it is sent again.
        options: Further fields of the request, for upstreams that know them.
    """

    model: str
    messages: tuple[Message, ...]
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    session: SessionRef | None = None
    reset: bool = False
    strict: bool = False
    is_retry: bool = False
    idempotency_key: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        """Both together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer. `usage` is None where the upstream doesn't count."""

    text: str
    finish_reason: FinishReason = "stop"
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """A part of an answer, in order.

    Args:
        text: The part; may be empty in the last one.
        whole: It is the complete reply in one piece: whoever shows it may type it out bit by bit.
        finish_reason: Given by the last part of an upstream that says why it stopped.
        usage: Given by the last part of an upstream that counts.
    """

    text: str
    whole: bool = False
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
