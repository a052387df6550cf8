"""Reads messages requests: from the wire to the call that is meant. Every fault is named by its place."""

from collections.abc import Mapping
from functools import partial
from typing import Literal

from msgspec.structs import replace

from app.api.anthropic.blocks import domain_messages, read_conversation
from app.api.anthropic.errors import anthropic_fault
from app.api.anthropic.native import native_request
from app.api.anthropic.schemas import CountTokensRequest, MessagesRequest, Prompted, WireTool
from app.api.anthropic.stream import MessageEncoder
from app.api.anthropic.write import write_message
from app.api.dialects import DialectServices, Exchange
from app.api.request import RequestContext, SessionHints, session_hints
from app.api.wire.body import nameable, parse_body
from app.api.wire.conversation import tokens_of
from app.api.wire.tools import tool_use
from app.domain.chat import PLAIN_TEXT, ChatCall, Message, OutputFormat, Tool, ToolUse
from app.domain.errors import InvalidRequest

_CHOICES: dict[str, Literal["none", "auto", "required"]] = {"any": "required", "auto": "auto", "none": "none"}

# What upstreams know under the same name.
_OPTIONS = ("temperature", "top_p", "top_k")
# Of no consequence for the answer: nothing is lost when they are not looked at.
_INCONSEQUENTIAL = frozenset(
    {"cache_control", "diagnostics", "inference_geo", "metadata", "service_tier", "speed", "user_profile_id"}
)
_MAX_STOPS = 64
# By this code the SDKs' tool runners know that they are to send the whole conversation each time.
_NO_THREADS_CODE = "thread_unsupported_request"
_NO_THREADS = "Threads are not supported: send the whole conversation, without `thread`."


class UnsupportedTool(InvalidRequest):
    """A tool that only an upstream of Anthropic's form may have."""


async def read(body: bytes, context: RequestContext, services: DialectServices) -> Exchange:
    """Read a messages request.

    Claude Code sends a constant `metadata.user_id` with every conversation, each with its whole history, and asks for
    titles and summaries on the side: only the header opens a session.
    """
    request = parse_body(MessagesRequest, body, fault=anthropic_fault)
    show_reasoning = shows_reasoning(request)
    hints = session_hints(context.headers, None)
    if services.registry.has_kind("anthropic", request.model, hints["provider"], context.caller):
        call = native_call(request, hints, body, context.headers, max_messages=services.max_messages)
    else:
        call = to_call(request, hints, max_messages=services.max_messages)
    return Exchange(
        calls=(call,),
        stream=bool(request.stream),
        write=partial(write_message, show_reasoning=show_reasoning),
        encoder=partial(MessageEncoder, show_reasoning=show_reasoning, request_id=context.request_id),
        ignored=ignored_options(request),
        unserved=unserved(request),
    )


def to_call(request: MessagesRequest, hints: SessionHints, *, max_messages: int) -> ChatCall:
    """The call that a request means.

    Args:
        request: The request as it came.
        hints: What its headers say of its session.
        max_messages: Messages that may come.

    Raises:
        InvalidRequest: It asks for something that can't be done.
    """
    _refuse_at_once(request, max_messages)
    return _call(request, hints, domain_messages(request.system, request.messages), _tools(request))


def native_call(
    request: MessagesRequest, hints: SessionHints, body: bytes, headers: Mapping[bytes, bytes], *, max_messages: int
) -> ChatCall:
    """The call that a request means, with the request as it came, for an upstream of Anthropic's form.

    Args:
        request: The request as it came.
        hints: What its headers say of its session.
        body: Its body.
        headers: Its headers.
        max_messages: Messages that may come.

    Raises:
        InvalidRequest: It is malformed. What only such an upstream can do is no error.
    """
    _refuse_at_once(request, max_messages)
    conversation = read_conversation(request.system, request.messages)
    refusal: InvalidRequest | None = conversation.refusal
    try:
        tools = _tools(request)
    except UnsupportedTool as unsupported:
        tools, refusal = None, refusal or unsupported
    call = _call(request, hints, conversation.messages, tools)
    return replace(call, native=native_request(body, headers, conversation, call.messages, refusal))


def _refuse_at_once(request: MessagesRequest, max_messages: int) -> None:
    _refuse_too_many(request, max_messages)
    if request.thread is not None:
        raise InvalidRequest(_NO_THREADS, param="thread", code=_NO_THREADS_CODE)


def _call(
    request: MessagesRequest, hints: SessionHints, messages: tuple[Message, ...], tools: ToolUse | None
) -> ChatCall:
    stops = request.stop_sequences or ()
    if len(stops) > _MAX_STOPS:
        raise InvalidRequest(f"stop_sequences must not have more than {_MAX_STOPS} texts.", param="stop_sequences")
    options = {name: getattr(request, name) for name in _OPTIONS}
    return ChatCall(
        model=request.model,
        messages=messages,
        tools=tools,
        output_format=_output_format(request),
        max_tokens=request.max_tokens,
        stop=tuple(text for text in stops if text),
        options={name: value for name, value in options.items() if value is not None},
        **hints,
    )


def ignored_options(request: MessagesRequest) -> list[str]:
    """The fields that count only if the upstream takes options."""
    return [name for name in _OPTIONS if getattr(request, name) is not None]


def unserved(request: MessagesRequest) -> list[str]:
    """What the answer takes no account of, whoever answers, as far as its names can stand in a header."""
    names = [name for name, value in (request.model_extra or {}).items() if value is not None]
    names = [name for name in names if name not in _INCONSEQUENTIAL]
    names += [f"tools.{tool.name or tool.type}" for tool in request.tools or () if not _is_custom(tool)]
    return nameable(set(names))


def shows_reasoning(request: MessagesRequest) -> bool:
    """Whether the client expects thinking blocks. Many clients take the first block for the answer's text."""
    thinking = request.thinking
    return thinking is not None and thinking.type in ("enabled", "adaptive") and thinking.display != "omitted"


def count_tokens(request: CountTokensRequest, *, max_messages: int, is_native: bool = False) -> int:
    """Tokens of everything that was sent: system prompt, messages and tools; images and files count nothing.

    Args:
        is_native: An upstream of Anthropic's form may answer, which can read what can't be read here.

    Raises:
        InvalidRequest: Something in it can't be read.
    """
    _refuse_too_many(request, max_messages)
    conversation = read_conversation(request.system, request.messages)
    if conversation.refusal is not None and not is_native:
        raise conversation.refusal
    try:
        tools = _tools(request)
    except UnsupportedTool:
        if not is_native:
            raise
        tools = None
    return tokens_of(conversation.messages, tools)


def _refuse_too_many(request: Prompted, max_messages: int) -> None:
    if len(request.messages) > max_messages:
        raise InvalidRequest(
            f"messages must not have more than {max_messages} entries (MAX_MESSAGES).", param="messages"
        )


def _is_custom(tool: WireTool) -> bool:
    return tool.type in (None, "custom")


def _tools(request: Prompted) -> ToolUse | None:
    """The client's own tools.

    Anthropic's (web search, code execution, the ones whose schema only its models know) can't be served. Among others
    they are left out; a request that has nothing else is about them, and had better be refused than answered from
    thin air.
    """
    given = request.tools or []
    places = [index for index, tool in enumerate(given) if _is_custom(tool)]
    if given and not places:
        raise UnsupportedTool(f"Tools of type {(given[0].type or '')[:40]!r} are not supported.", param="tools.0")
    tools = [_tool(given[index], f"tools.{index}") for index in places]

    def name_of(index: int) -> str:
        return f"tools.{places[index]}.name"

    choice = request.tool_choice
    if choice is None:
        return tool_use(tools, param=name_of)
    parallel = not choice.disable_parallel_tool_use
    if choice.type == "tool":
        if any(tool.name == choice.name for tool in given if not _is_custom(tool)):
            raise UnsupportedTool("tool_choice names a tool that is not supported.", param="tool_choice")
        return tool_use(tools, choice="required", allowed=[choice.name or ""], parallel=parallel, param=name_of)
    return tool_use(tools, choice=_CHOICES[choice.type], parallel=parallel, param=name_of)


def _tool(tool: WireTool, place: str) -> Tool:
    if tool.input_schema is None:
        raise InvalidRequest("Field required.", param=f"{place}.input_schema")
    return Tool(tool.name or "", tool.description or "", tool.input_schema, bool(tool.strict), f"{place}.input_schema")


def _output_format(request: MessagesRequest) -> OutputFormat:
    wanted = request.output_config.format if request.output_config else None
    place = "output_format" if wanted is None else "output_config.format"
    wanted = wanted or request.output_format
    return PLAIN_TEXT if wanted is None else OutputFormat("json_schema", wanted.schema_, strict=True, place=place)
