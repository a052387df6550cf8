"""Reads chat completions: from the wire to the call that is meant. Every fault is named by its `param`."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from itertools import count

from app.api.dialects import DialectServices, Exchange
from app.api.openai.schemas import (
    ChatCompletionRequest,
    ChatMessage,
    FunctionCall,
    FunctionDefinition,
    NamedFunction,
    ToolChoice,
    ToolChoiceEntry,
    ToolDefinition,
    WireToolCall,
)
from app.api.openai.stream import ChunkEncoder
from app.api.openai.write import write_completion
from app.api.request import RequestContext, SessionHints, session_hints
from app.api.wire.body import given_fields, nameable, parse_body
from app.api.wire.calls import arguments_text, with_call_ids
from app.api.wire.content import Part, read_parts, text_and_parts
from app.api.wire.custom import custom_arguments, custom_tool
from app.api.wire.faults import invalid_value, missing_parameter, too_many, unsupported_value
from app.api.wire.formats import output_format
from app.api.wire.openai import stop_texts
from app.api.wire.other_models import take_other_models
from app.api.wire.tools import tool_use
from app.domain.chat import PLAIN_TEXT, ChatCall, Extras, Message, Role, Tool, ToolCall, ToolUse
from app.domain.message_shapes import CALL_EXTRAS, MESSAGE_EXTRAS, THOUGHT_PARTS, text_in, thoughts_in

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
# The fields that are looked at here; the rest is for upstreams that know it.
HONOURED = frozenset(
    {"messages", "model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "stop", "n", "user"}
    | {"tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "response_format", "modalities"}
)
# Of no consequence for the answer: nothing is lost when they are not looked at.
_INCONSEQUENTIAL = frozenset(
    {"metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}
)
_NO_NAMES: frozenset[str] = frozenset()
_NEWER_NAMES = {"max_tokens": "max_completion_tokens"}


async def read(body: bytes, context: RequestContext, services: DialectServices) -> Exchange:
    """Read a chat completion request."""
    request = parse_body(ChatCompletionRequest, body)
    # For speed: reading a field of a pydantic model takes as long as reading ten variables.
    tools, user, stream_options = request.tools, request.user, request.stream_options
    options = given_fields(request, HONOURED)
    unserved = take_other_models(options) if options else []
    # Within a text its quotes would be escaped.
    # `find`, for speed: `in` raises a TypeError within, and catches it, before it looks for bytes.
    if body.find(b'"cache_control"') >= 0:
        unserved.append("cache_control")
    hints = session_hints(context.headers, user if services.session_from_user else None)
    # The older form of tools, which clients want their answer in as well.
    legacy = bool(request.functions) and not tools
    custom = _custom_names(tools) if tools else _NO_NAMES
    include_usage = stream_options is not None and bool(stream_options.include_usage)
    return Exchange(
        calls=(to_call(request, hints, services, options, legacy=legacy),),
        stream=bool(request.stream),
        write=partial(write_completion, legacy=legacy, custom=custom),
        encoder=partial(ChunkEncoder, include_usage=include_usage, legacy=legacy, custom=custom),
        ignored=nameable(options.keys() - _INCONSEQUENTIAL) if options else (),
        names={} if request.max_completion_tokens is None else _NEWER_NAMES,
        unserved=nameable(unserved) if unserved else (),
        end_user=user,
    )


def to_call(
    request: ChatCompletionRequest,
    hints: SessionHints,
    services: DialectServices,
    options: Mapping[str, object],
    *,
    legacy: bool = False,
) -> ChatCall:
    """The call that a request means.

    Args:
        request: The request as it came.
        hints: What its headers say of its session.
        services: For the default model, and the number of messages that may come.
        options: Its fields that are passed on as they are.
        legacy: Its tools are `functions`.

    Raises:
        InvalidRequest: It asks for something that can't be done.
    """
    given, tools = request.messages, request.tools
    if len(given) > services.max_messages:
        raise too_many("messages", services.max_messages, len(given), "MAX_MESSAGES bounds it.")
    if request.modalities and set(request.modalities) - {"text"}:
        raise unsupported_value("modalities", ", ".join(request.modalities), "It answers in text only.")
    messages = tuple(map(_message, given, count()))
    for message in messages:
        if message.tool_calls:
            messages = with_call_ids(messages)
            break
    # Without `**hints`, for speed: it would have one dictionary made of all fields, and taken apart again.
    return ChatCall(
        request.model or services.registry.default_model,
        messages,
        tools=_functions(request) if legacy else _tools(request) if tools or request.tool_choice else None,
        output_format=(
            output_format(request.response_format, "response_format", "response_format.json_schema.schema")
            if request.response_format
            else PLAIN_TEXT
        ),
        max_tokens=request.max_completion_tokens or request.max_tokens,
        stop=stop_texts(request.stop) if request.stop else (),
        options=options,
        n=request.n or 1,
        provider=hints["provider"],
        session=hints["session"],
        reset=hints["reset"],
        strict=hints["strict"],
        is_retry=hints["is_retry"],
        idempotency_key=hints["idempotency_key"],
        cache=hints["cache"],
    )


def _functions(request: ChatCompletionRequest) -> ToolUse | None:
    tools = [_tool(function, f"functions[{index}]") for index, function in enumerate(request.functions or ())]
    use = partial(tool_use, tools, parallel=False, param=lambda index: f"functions[{index}].name")
    if isinstance(request.function_call, NamedFunction):
        return use(choice="required", allowed=[request.function_call.name])
    return use(choice=request.function_call or "auto")


def _tools(request: ChatCompletionRequest) -> ToolUse | None:
    tools = [_any_tool(tool, f"tools[{index}]") for index, tool in enumerate(request.tools or ())]
    choice, parallel = request.tool_choice, request.parallel_tool_calls is not False
    if not isinstance(choice, ToolChoice):
        return tool_use(tools, choice=choice or "auto", parallel=parallel)
    allowed = choice.allowed_tools
    entries = choice.tools if allowed is None else allowed.tools
    if entries is not None:
        mode = (choice.mode if allowed is None else allowed.mode) or "auto"
        names = [name for name in map(_chosen, entries) if name is not None]
        return tool_use(tools, choice=mode, allowed=names, parallel=parallel)
    name = _chosen(choice)
    if name is None:
        raise missing_parameter("tool_choice.function.name", "tool_choice must name a tool.")
    return tool_use(tools, choice="required", allowed=[name], parallel=parallel)


def _chosen(entry: ToolChoiceEntry) -> str | None:
    named = entry.function or entry.custom
    return named.name if named is not None else entry.name


def _is_custom(tool: ToolDefinition) -> bool:
    return tool.type == "custom" or (tool.type is None and tool.custom is not None)


def _custom_names(tools: Sequence[ToolDefinition]) -> frozenset[str]:
    return frozenset([(tool.custom or tool).name or "" for tool in tools if _is_custom(tool)])


def _any_tool(tool: ToolDefinition, place: str) -> Tool:
    if _is_custom(tool):
        custom = tool.custom or tool
        if custom.name is None:
            raise missing_parameter(f"{place}.custom")
        return custom_tool(custom.name, custom.description or "", custom.format)
    # Some vendors have functions of types of their own.
    if tool.function is not None:
        return _tool(tool.function, place)
    if tool.type not in (None, "function"):
        built_in = "Built-in tools are OpenAI's own; /v1/responses passes over them."
        raise invalid_value(f"{place}.type", tool.type, "'function' and 'custom'", built_in)
    if tool.name is None:
        raise missing_parameter(f"{place}.function")
    return _tool(tool, place)


def _tool(function: FunctionDefinition | ToolDefinition, place: str) -> Tool:
    name, description = function.name or "", function.description or ""
    return Tool(name, description, function.parameters or {}, bool(function.strict), place)


def _message(message: ChatMessage, index: int) -> Message:
    role, content = message.role, message.content
    # Most messages are plain text: those need no look at their parts.
    text, parts = (content, ()) if isinstance(content, str) else _content(message, f"messages[{index}].content")
    return Message(
        role=_ROLES[role],
        text=text,
        name=message.name,
        tool_calls=_calls(message) if message.tool_calls or message.function_call else (),
        tool_call_id=_legacy_id(message.name or "") if role == "function" else message.tool_call_id,
        reasoning=message.reasoning_content or (_thoughts(message) if role == "assistant" else ""),
        parts=parts,
        extras=_extras(message.model_extra, MESSAGE_EXTRAS) if message.model_extra else None,
    )


def _thoughts(message: ChatMessage) -> str:
    """An assistant's thoughts, in whatever other field or part a client sends them."""
    thoughts = thoughts_in(message.model_extra) if message.model_extra else ""
    if thoughts or not isinstance(message.content, list):
        return thoughts
    return "".join([text_in(part.model_dump()) for part in message.content if part.type in THOUGHT_PARTS])


def _extras(given: Mapping[str, object] | None, names: Collection[str]) -> Extras | None:
    """What a provider has added, and wants back."""
    return {name: given[name] for name in names if given.get(name)} or None if given else None


def _calls(message: ChatMessage) -> tuple[ToolCall, ...]:
    function = message.function_call
    if function is not None and not message.tool_calls:
        name = function.name or ""
        return (ToolCall(_legacy_id(name), name, arguments_text(function.arguments)),)
    return tuple([_call(call) for call in message.tool_calls or ()])


def _call(call: WireToolCall) -> ToolCall:
    if call.custom is not None:
        return ToolCall(call.id or "", call.custom.name or "", custom_arguments(call.custom.input or ""))
    function: FunctionCall = call if call.function is None else call.function
    extras = _extras(call.model_extra, CALL_EXTRAS)
    return ToolCall(call.id or "", function.name or "", arguments_text(function.arguments), extras)


def _legacy_id(name: str) -> str:
    """An id for a call of the older form, which has none: its result follows at once, under the function's name."""
    return f"call_{name}"


def _content(message: ChatMessage, place: str) -> tuple[str, tuple[Part, ...]]:
    if isinstance(message.content, list):
        parts = message.content
        if message.role == "assistant":
            parts = [part for part in parts if part.type not in THOUGHT_PARTS]
        return text_and_parts(read_parts(parts, place))
    if message.content is None and message.role not in ("assistant", "tool", "function"):
        raise missing_parameter(place, f"A message of the {message.role} must have content.")
    return message.content or text_in((message.model_extra or {}).get("refusal")), ()
