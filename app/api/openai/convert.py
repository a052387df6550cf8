"""Between the wire and what it means. Pure; every fault of the request is found here and named by its `param`."""

from collections.abc import Sequence

from app.api.bodies import given_fields, nameable, parse_body
from app.api.headers import SessionHints
from app.api.openai.schemas import ChatCompletionRequest, ChatMessage, ContentPart
from app.domain.chat import ChatCall, Message, Role, ToolCall
from app.domain.errors import InvalidRequest

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
# What is looked at; of the last two every value but "text" is refused.
_HONOURED = frozenset(
    {"messages", "model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "stop", "n", "user"}
    | {"response_format", "modalities"}
)
# Of no consequence for the answer: nothing is lost when they are not looked at.
_INCONSEQUENTIAL = frozenset(
    {"metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}
)
_MOST_STOPS = 16


def parse_request(body: bytes) -> ChatCompletionRequest:
    """Read a request's body.

    Raises:
        InvalidRequest: It is no JSON, or not of the right shape; `param` names the first field at fault.
    """
    return parse_body(ChatCompletionRequest, body)


def to_call(request: ChatCompletionRequest, hints: SessionHints, *, default_model: str, max_messages: int) -> ChatCall:
    """What a request means.

    Args:
        request: As it came.
        hints: What its headers say of its session.
        default_model: The model of a request that names none.
        max_messages: The most messages that are read.

    Raises:
        InvalidRequest: It asks for something that can't be done.
    """
    if len(request.messages) > max_messages:
        raise InvalidRequest(f"At most {max_messages} messages can be sent (MAX_MESSAGES).", param="messages")
    _refuse_impossible(request)
    return ChatCall(
        model=request.model or default_model,
        messages=tuple(_message(message, index) for index, message in enumerate(request.messages)),
        max_tokens=request.max_completion_tokens or request.max_tokens,
        stop=_stops(request.stop),
        session=hints.session,
        reset=hints.reset,
        strict=hints.strict,
        is_retry=hints.is_retry,
        idempotency_key=hints.idempotency_key,
        options={name: value for name, value in given_fields(request).items() if name not in _HONOURED},
    )


def ignored_params(request: ChatCompletionRequest) -> list[str]:
    """The fields of a request that the answer takes no account of, as far as their names can stand in a header."""
    return nameable(given_fields(request).keys() - _HONOURED - _INCONSEQUENTIAL)


def _refuse_impossible(request: ChatCompletionRequest) -> None:
    if request.n not in (None, 1):
        raise InvalidRequest("This model gives one answer at a time: n must be 1.", param="n")
    kind = (request.response_format or {}).get("type", "text")
    if kind != "text":
        raise InvalidRequest("This model answers in plain text only.", param="response_format")
    if request.tool_choice not in (None, "none", "auto"):
        raise InvalidRequest("This model can't be made to call a tool.", param="tool_choice")
    if set(request.modalities or ()) - {"text"}:
        raise InvalidRequest("This model answers in text only.", param="modalities")


def _stops(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(stops) > _MOST_STOPS:
        raise InvalidRequest(f"At most {_MOST_STOPS} stop texts can be given.", param="stop")
    return tuple(text for text in stops if text)


def _message(message: ChatMessage, index: int) -> Message:
    place = f"messages[{index}].content"
    if message.content is None and message.role not in ("assistant", "tool", "function"):
        raise InvalidRequest(f"A {message.role} message needs content.", param=place)
    return Message(
        role=_ROLES[message.role],
        text=_text(message.content, place),
        name=message.name,
        tool_calls=tuple(
            ToolCall(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()
        ),
        tool_call_id=message.tool_call_id,
    )


def _text(content: str | list[ContentPart] | None, place: str) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "\n".join(_part_text(part, f"{place}[{index}]") for index, part in enumerate(content))


def _part_text(part: ContentPart, place: str) -> str:
    if part.type == "refusal":
        return str((part.model_extra or {}).get("refusal") or "")
    if part.type != "text":
        raise InvalidRequest(f"This model reads text only, not content of type {part.type[:40]!r}.", param=place)
    if part.text is None:
        raise InvalidRequest("A text part needs a text.", param=f"{place}.text")
    return part.text
