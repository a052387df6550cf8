"""A chat as the gateway understands it, whatever dialect the client or the upstream speaks."""

from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Raw, Struct

from app.domain.units import Unit

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
# What a provider adds of its own, by its names: nobody here reads it, and it goes through both ways.
Extras = Mapping[str, object]
# The form that an upstream's API has.
ApiKind = Literal["openai", "anthropic", "gemini"]


class ToolCall(Struct, frozen=True):
    """A call that the assistant asked for.

    Args:
        arguments: The JSON text as it came.
        extras: What the provider added, such as the signature of the thought behind it.
    """

    id: str
    name: str
    arguments: str
    extras: Extras | None = None


class Image(Struct, frozen=True):
    """An image in a message.

    Args:
        url: Its address; a `data:` URL holds the image itself.
        place: The request field that it came in, for errors.
        detail: How closely the model should look at it, if the client says so.
    """

    url: str
    place: str = ""
    detail: str | None = None


class Message(Struct, frozen=True):
    """One message of a conversation. A `tool` message holds the result of the call named by `tool_call_id`.

    Args:
        text: All texts of the message, joined; `[image]` stands for an image.
        reasoning: What the assistant thought before it answered.
        parts: Texts and images in their order, if there are images; else empty.
        extras: What a provider had added to an assistant's message.
    """

    role: Role
    text: str
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning: str = ""
    parts: "tuple[str | Image, ...]" = ()
    extras: Extras | None = None

    @property
    def images(self) -> tuple[Image, ...]:
        """The images, in order."""
        return tuple(part for part in self.parts if isinstance(part, Image))


class Tool(Struct, frozen=True):
    """A function that the model may ask the client to call.

    Args:
        parameters: The JSON Schema of its arguments, an object.
        strict: The client relies on arguments that fit the schema exactly.
        place: The request field that its parameters came in, for errors.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, object] = {}
    strict: bool = False
    place: str = ""


class ToolUse(Struct, frozen=True):
    """How a request wants tools to be used.

    Args:
        tools: All described tools; never empty, and with distinct names.
        choice: Whether a tool must be called.
        allowed: The names of the tools that may be called now; None for all.
        parallel: Whether several may be called at once.
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
        place: The request field that it came in, for errors.
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


class CacheWish(Struct, frozen=True):
    """What a request says about answers that were given before.

    Args:
        max_age: How old one may be that answers it, in seconds; 0 for none.
        keeps: Whether its own may be kept. If not, it gets no kept one either.
    """

    max_age: float
    keeps: bool = True


class NativeTurn(Struct, frozen=True):
    """A message in the form in which it came, and those that it was read as; none if there was nothing to read."""

    wire: Raw
    messages: tuple[Message, ...]


class NativeRequest(Struct, frozen=True):
    """A request in the form in which it came, for an upstream whose API has that form: nothing need be lost then.

    Args:
        kind: The form.
        fields: The fields of its body, each as the JSON that came.
        messages: All messages that it was read as.
        system: The one that its instructions were read as.
        turns: Where the other ones came from.
        headers: Its headers that are about the form.
        refusal: Why an upstream of another kind can't answer it, as message and field; None if any can.
    """

    kind: ApiKind
    fields: Mapping[str, Raw]
    messages: tuple[Message, ...]
    system: Message | None
    turns: tuple[NativeTurn, ...]
    headers: Mapping[str, str] = {}
    refusal: tuple[str, str | None] | None = None


class NativeEvent(Struct, frozen=True, gc=False):
    """An event of a streamed answer in the form in which it came: its type, and its data as JSON.

    Without data for a part of the answer that the event before has said already.
    """

    type: str
    data: bytes


class ChatCall(Struct, frozen=True):
    """One request for an answer, understood.

    Args:
        model: The public model id that the client asked for.
        messages: What the client sent, oldest first; never empty.
        tools: The tools that the model may call; None if there are none.
        output_format: The form that the answer must have.
        provider: The only provider that may answer; None for any.
        max_tokens: The length limit of the answer; None for no limit.
        stop: Texts that end the answer and are not part of it.
        session: None for a request without memory.
        reset: Whether the session starts over.
        strict: Whether an expired session is an error, instead of starting a new one.
        is_retry: Whether the client's SDK marks this request as a retry.
        idempotency_key: The client's key for this request; the same on a retry.
        options: Further request fields, for upstreams that know them.
        n: How many answers are wanted.
        native: The request as it came, where one of those who may answer takes that form.
        cache: What it says about answers that were given before; None for nothing.
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
    n: int = 1
    native: NativeRequest | None = None
    cache: CacheWish | None = None


class Usage(Struct, frozen=True):
    """Tokens read and written, and what was used besides.

    Args:
        cached_tokens: Prompt tokens that came from the upstream's cache.
        cache_written_tokens: Prompt tokens that were put into it, where the upstream counts them apart.
        reasoning_tokens: Completion tokens that were thought and not said.
        estimated: Whether the gateway has estimated them, because the upstream doesn't count.
        unit: Of what else was used; None if nothing was.
        amount: How much of it.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    cache_written_tokens: int = 0
    unit: Unit | None = None
    amount: int = 0

    @property
    def total_tokens(self) -> int:
        """The sum of both."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.estimated or other.estimated,
            self.cache_written_tokens + other.cache_written_tokens,
        )


class ToolCallDelta(Struct, frozen=True, gc=False):
    """A part of a tool call.

    Args:
        index: Which of the answer's calls it belongs to, from 0; calls come one after the other.
        id: Given by the first part of each call, and only there.
        name: Likewise.
        arguments: The next piece of the JSON text.
        extras: What the provider added.
    """

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    extras: Extras | None = None


# gc=False: a stream keeps all its deltas until it ends, and the garbage collector need not look through them.
class Delta(Struct, frozen=True, gc=False):
    """A part of an answer, in order.

    Args:
        text: A part of the text; may be empty.
        whole: Whether the text, or `native`, is the complete answer, which may be typed out piece by piece.
        finish_reason: In the last delta, if the upstream says why it stopped.
        usage: In the last delta, if the upstream counts tokens.
        reasoning: A part of the thoughts that precede the answer.
        tool_call: A part of a tool call; such a delta has no text.
        stop: In the last delta, the stop text that ended the answer.
        refusal: A part of what is said in place of an answer.
        extras: What the provider added. `logprobs` are about this part's text.
        choice: Which of several answers it belongs to. Only the first one's last part ends the whole.
        native: The events that say the same in the form of the client's request. Given for all parts of an answer, or
            for none.
    """

    text: str = ""
    whole: bool = False
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    reasoning: str = ""
    tool_call: ToolCallDelta | None = None
    stop: str | None = None
    refusal: str = ""
    extras: Extras | None = None
    choice: int = 0
    native: tuple[NativeEvent, ...] = ()


class Completion(Struct, frozen=True):
    """A whole answer.

    Args:
        usage: None where the upstream doesn't count.
        stop: The stop text that ended the answer; None if none did.
        deltas: The answer's parts in their order where thoughts, text and calls alternate. Empty for an answer that is
            simply thoughts, then text, then calls.
        refusal: What is said in place of an answer by a model that refuses to give one.
        extras: What the provider added.
        others: Further answers, where several were asked for.
        native: The answer in the form of the client's request.
    """

    text: str
    finish_reason: FinishReason = "stop"
    usage: Usage | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""
    stop: str | None = None
    deltas: tuple[Delta, ...] = ()
    refusal: str = ""
    extras: Extras | None = None
    others: "tuple[Completion, ...]" = ()
    native: Mapping[str, object] | None = None


def merged_extras(parts: Sequence[Extras]) -> Extras | None:
    """What a provider added to the parts of an answer, together: lists grow, and so do those in `logprobs`."""
    merged: dict[str, object] = {}
    for extras in parts:
        for name, value in extras.items():
            merged[name] = _merged(merged.get(name), value)
    return merged or None


def _merged(earlier: object, later: object) -> object:
    if isinstance(earlier, list) and isinstance(later, list):
        return [*earlier, *later]
    if isinstance(earlier, dict) and isinstance(later, dict):
        return earlier | {name: _merged(earlier.get(name), value) for name, value in later.items()}
    return earlier if later is None else later
