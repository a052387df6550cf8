"""The words in which the gateway thinks about a chat, whatever dialect the client or the upstream speaks."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class ToolCall(Struct, frozen=True):
    """A call that the assistant asked for; `arguments` is the JSON text as it came."""

    id: str
    name: str
    arguments: str


class Image(Struct, frozen=True):
    """An image in a message.

    Args:
        url: Where it is; a `data:` URL holds the image itself.
        place: The field of the request in which it came, to be named if it can't be used.
        detail: How closely it is to be looked at, if the client says so.
    """

    url: str
    place: str = ""
    detail: str | None = None


class Message(Struct, frozen=True):
    """One message of a conversation. A `tool` message holds the result of the call named by `tool_call_id`.

    Args:
        text: All texts of the message, joined; `[image]` stands where an image is.
        reasoning: What the assistant thought before it answered.
        parts: Texts and images in their order, if there are images; else empty.
    """

    role: Role
    text: str
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning: str = ""
    parts: "tuple[str | Image, ...]" = ()

    @property
    def images(self) -> tuple[Image, ...]:
        """The images, in order."""
        return tuple(part for part in self.parts if isinstance(part, Image))


class Tool(Struct, frozen=True):
    """A function that the model may ask the client to call.

    Args:
        parameters: The JSON Schema of its arguments, an object.
        strict: The client relies on arguments that fit the schema exactly.
        place: The field of the request in which its parameters came, to be named if they can't be used.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, object] = {}
    strict: bool = False
    place: str = ""


class ToolUse(Struct, frozen=True):
    """What a request says about tools.

    Args:
        tools: All that are described; never empty, and no name twice.
        choice: Whether a tool is to be called.
        allowed: The names of those that may be called now; None for all.
        parallel: May several be called at once?
    """

    tools: tuple[Tool, ...]
    choice: Literal["none", "auto", "required"] = "auto"
    allowed: frozenset[str] | None = None
    parallel: bool = True

    @property
    def callable_tools(self) -> tuple[Tool, ...]:
        """The tools that may be called now."""
        if self.choice == "none":
            return ()
        return tuple(tool for tool in self.tools if self.allowed is None or tool.name in self.allowed)


class OutputFormat(Struct, frozen=True):
    """The form that the answer's text must have.

    Args:
        kind: `json_object` is any JSON object, `json_schema` one that fits `schema`.
        name: The client's name for the schema.
        strict: The client relies on an answer that fits exactly.
        place: The field of the request in which it came, to be named if it can't be used.
    """

    kind: Literal["text", "json_object", "json_schema"] = "text"
    schema: Mapping[str, object] | None = None
    name: str = ""
    description: str = ""
    strict: bool = False
    place: str = "response_format"


PLAIN_TEXT = OutputFormat()


class SessionRef(Struct, frozen=True):
    """Which session a request belongs to, and how the client said so."""

    id: str
    source: Literal["header", "user"]


class ChatCall(Struct, frozen=True):
    """One request for an answer, understood.

    Args:
        model: The public model id that the client asked for.
        messages: What the client sent, oldest first; never empty.
        tools: What the model may call; None if the request has no tools.
        output_format: The form that the answer must have.
        provider: The only provider that may answer; None leaves the choice to the routes.
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
    tools: ToolUse | None = None
    output_format: OutputFormat = PLAIN_TEXT
    provider: str | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    session: SessionRef | None = None
    reset: bool = False
    strict: bool = False
    is_retry: bool = False
    idempotency_key: str | None = None
    options: Mapping[str, object] = {}


class Usage(Struct, frozen=True):
    """Tokens read and written.

    Args:
        cached_tokens: Of those read, the ones that the upstream had read before.
        reasoning_tokens: Of those written, the ones that were thought and not said.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Read and written together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


class ToolCallDelta(Struct, frozen=True, gc=False):
    """A part of a tool call.

    Args:
        index: Which of the answer's calls it belongs to, from 0; calls come one after the other.
        id: Given by the first part of each call, and only there.
        name: Likewise.
        arguments: The next piece of the JSON text.
    """

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


# gc=False: a stream keeps all its deltas until it ends, and the garbage collector need not look through them.
class Delta(Struct, frozen=True, gc=False):
    """A part of an answer, in order.

    Args:
        text: The part; may be empty.
        whole: It is the complete reply in one piece: whoever shows it may type it out bit by bit.
        reasoning: A part of what is thought before the answer.
        tool_call: A part of a tool call; such a delta has no text.
        finish_reason: Given by the last part of an upstream that says why it stopped.
        usage: Given by the last part of an upstream that counts.
        stop: The stop text that ended the answer, with its last part.
    """

    text: str = ""
    whole: bool = False
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    reasoning: str = ""
    tool_call: ToolCallDelta | None = None
    stop: str | None = None


class Completion(Struct, frozen=True):
    """A whole answer.

    Args:
        usage: None where the upstream doesn't count.
        stop: The stop text that ended the answer; None if none did.
        deltas: The answer's parts in their order where thoughts, text and calls alternate. Empty for an answer that is
            simply thoughts, then text, then calls.
    """

    text: str
    finish_reason: FinishReason = "stop"
    usage: Usage | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""
    stop: str | None = None
    deltas: tuple[Delta, ...] = ()
