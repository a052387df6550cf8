"""Reads chat completions: from the wire to the call that is meant. Every fault is named by its `param`."""

from collections.abc import Mapping
from functools import partial
from itertools import count

from app.api.dialect import DialectServices, Exchange
from app.api.openai.schemas import (
    ChatCompletionRequest,
    ChatMessage,
    ContentPart,
    FunctionDefinition,
    NamedFunction,
    ResponseFormat,
    ToolChoice,
)
from app.api.openai.stream import ChunkEncoder
from app.api.openai.write import write_completion
from app.api.request import RequestContext, SessionHints, session_hints
from app.api.wire.body import given_fields, nameable, parse_body
from app.api.wire.content import Part, text_and_parts
from app.api.wire.openai import stop_texts
from app.api.wire.tools import tool_use
from app.domain.chat import PLAIN_TEXT, ChatCall, Image, Message, OutputFormat, Role, Tool, ToolCall, ToolUse
from app.domain.errors import InvalidRequest

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
# What is looked at here; the rest is for upstreams that know it.
_HONOURED = frozenset(
    {"messages", "model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "stop", "n", "user"}
    | {"tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "response_format", "modalities"}
)
# Of no consequence for the answer: nothing is lost when they are not looked at.
_INCONSEQUENTIAL = frozenset(
    {"metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}
)


async def read(body: bytes, context: RequestContext, services: DialectServices) -> Exchange:
    """Read a chat completion request."""
    request = parse_body(ChatCompletionRequest, body)
    options = given_fields(request, _HONOURED)
    hints = session_hints(context.headers, request.user if services.session_from_user else None)
    # The older form of tools, which clients want their answer in as well.
    legacy = bool(request.functions) and not request.tools
    include_usage = request.stream_options is not None and bool(request.stream_options.include_usage)
    return Exchange(
        calls=(to_call(request, hints, services, options, legacy=legacy),),
        stream=bool(request.stream),
        write=partial(write_completion, legacy=legacy),
        encoder=partial(ChunkEncoder, include_usage=include_usage, legacy=legacy),
        ignored=nameable(options.keys() - _INCONSEQUENTIAL) if options else (),
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
    if len(request.messages) > services.max_messages:
        raise InvalidRequest(
            f"messages must not have more than {services.max_messages} entries (MAX_MESSAGES).", param="messages"
        )
    if request.n not in (None, 1):
        raise InvalidRequest("n must be 1: this model gives one answer at a time.", param="n")
    if set(request.modalities or ()) - {"text"}:
        raise InvalidRequest("This model answers in text only.", param="modalities")
    return ChatCall(
        model=request.model or services.registry.default_model,
        messages=tuple(map(_message, request.messages, count())),
        tools=_functions(request) if legacy else _tools(request) if request.tools or request.tool_choice else None,
        output_format=_output_format(request.response_format) if request.response_format else PLAIN_TEXT,
        max_tokens=request.max_completion_tokens or request.max_tokens,
        stop=stop_texts(request.stop) if request.stop else (),
        options=options,
        **hints,
    )


def _functions(request: ChatCompletionRequest) -> ToolUse | None:
    tools = [_tool(function, f"functions[{index}]") for index, function in enumerate(request.functions or ())]
    use = partial(tool_use, tools, parallel=False, param=lambda index: f"functions[{index}].name")
    if isinstance(request.function_call, NamedFunction):
        return use(choice="required", allowed=[request.function_call.name])
    return use(choice=request.function_call or "auto")


def _tools(request: ChatCompletionRequest) -> ToolUse | None:
    tools = []
    for index, tool in enumerate(request.tools or ()):
        if tool.function is None:
            what = "must have a function" if tool.type == "function" else f"of type {tool.type[:40]!r} is not supported"
            raise InvalidRequest(f"A tool {what}.", param=f"tools[{index}]")
        tools.append(_tool(tool.function, f"tools[{index}]"))
    choice, parallel = request.tool_choice, request.parallel_tool_calls is not False
    if not isinstance(choice, ToolChoice):
        return tool_use(tools, choice=choice or "auto", parallel=parallel)
    if choice.allowed_tools is not None:
        names = [tool.function.name for tool in choice.allowed_tools.tools if tool.function is not None]
        return tool_use(tools, choice=choice.allowed_tools.mode, allowed=names, parallel=parallel)
    if choice.function is None:
        raise InvalidRequest("tool_choice must name a function.", param="tool_choice")
    return tool_use(tools, choice="required", allowed=[choice.function.name], parallel=parallel)


def _tool(function: FunctionDefinition, place: str) -> Tool:
    return Tool(function.name, function.description or "", function.parameters or {}, bool(function.strict), place)


def _output_format(wanted: ResponseFormat) -> OutputFormat:
    if wanted.type == "text":
        return PLAIN_TEXT
    if wanted.type == "json_object":
        return OutputFormat("json_object")
    given = wanted.json_schema
    if given is None or given.schema_ is None:
        raise InvalidRequest("A json_schema format must have a schema.", param="response_format.json_schema.schema")
    return OutputFormat("json_schema", given.schema_, given.name, given.description or "", bool(given.strict))


def _message(message: ChatMessage, index: int) -> Message:
    content = message.content
    # Most messages are plain text: those need no look at their parts.
    text, parts = (content, ()) if isinstance(content, str) else _content(message, f"messages[{index}].content")
    return Message(
        role=_ROLES[message.role],
        text=text,
        name=message.name,
        tool_calls=_calls(message) if message.tool_calls or message.function_call else (),
        tool_call_id=_legacy_id(message.name or "") if message.role == "function" else message.tool_call_id,
        reasoning=message.reasoning_content or "",
        parts=parts,
    )


def _calls(message: ChatMessage) -> tuple[ToolCall, ...]:
    function = message.function_call
    if function is not None and not message.tool_calls:
        return (ToolCall(_legacy_id(function.name), function.name, function.arguments),)
    return tuple(ToolCall(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ())


def _legacy_id(name: str) -> str:
    """An id for a call of the older form, which has none: its result follows at once, under the function's name."""
    return f"call_{name}"


def _content(message: ChatMessage, place: str) -> tuple[str, tuple[Part, ...]]:
    if isinstance(message.content, list):
        return text_and_parts([_part(part, f"{place}[{index}]") for index, part in enumerate(message.content)])
    if message.content is None and message.role not in ("assistant", "tool", "function"):
        raise InvalidRequest(f"A {message.role} message must have content.", param=place)
    return message.content or "", ()


def _part(part: ContentPart, place: str) -> Part:
    if part.type == "refusal":
        return str((part.model_extra or {}).get("refusal") or "")
    if part.type == "image_url" and part.image_url is not None:
        return Image(part.image_url.url, place, part.image_url.detail)
    if part.type != "text":
        raise InvalidRequest(f"Content of type {part.type[:40]!r} is not supported.", param=place)
    if part.text is None:
        raise InvalidRequest("A text part must have a text.", param=f"{place}.text")
    return part.text
