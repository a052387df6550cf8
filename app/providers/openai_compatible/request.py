"""What an upstream is sent: a `CompletionRequest` as a chat completions request. Pure."""

from collections.abc import Sequence

from app.domain.chat import Image, Message, OutputFormat, Tool, ToolCall, ToolUse
from app.domain.errors import InvalidRequest
from app.domain.json import lenient_json_bytes, repaired_object_text, strict_json_bytes
from app.providers.api_upstream.upstream import Quirks
from app.providers.base import CompletionRequest

# Fields that the gateway writes itself, or that are about its own sessions and callers: never passed through.
_OURS = frozenset(
    {"messages", "model", "stream", "stream_options", "n", "stop", "max_tokens", "max_completion_tokens"}
    | {"tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "response_format", "modalities"}
    | {"user", "session_id", "conversation", "previous_response_id", "metadata", "store"}
)


def chat_body(request: CompletionRequest, quirks: Quirks, *, stream: bool) -> bytes:
    """The JSON body of a request.

    Raises:
        InvalidRequest: A field to pass on can't be written as JSON.
    """
    body: dict[str, object] = {}
    if "options" in request.model.abilities:
        body.update((name, value) for name, value in request.options.items() if name not in _OURS)
    body["model"] = request.model.upstream_id
    if request.max_tokens is not None:
        body[quirks.max_tokens_field] = request.max_tokens
    if request.n > 1:
        body["n"] = request.n
    if request.stop:
        body["stop"] = list(request.stop)
    body.update(_tools(request.tools))
    body.update(_response_format(request.output_format))
    body["stream"] = stream
    if stream and quirks.stream_usage:
        body["stream_options"] = {"include_usage": True}
    messages = request.messages
    if quirks.one_system_message:
        for message in messages[1:] or messages:
            if message.role == "system":
                messages = _system_first(messages)
                break
    return _json(body, [_message(message, quirks) for message in messages])


def one_word_body(model: str, quirks: Quirks) -> bytes:
    """The JSON body of the cheapest request: an answer of one token."""
    return _json({"model": model, quirks.max_tokens_field: 1, "stream": False}, [{"role": "user", "content": "Hi"}])


def _json(fields: dict[str, object], messages: list[dict[str, object]]) -> bytes:
    """The fields and the messages as one object.

    Messages are encoded apart: they hold no numbers, so the check for NaN, which means the slow encoder whenever there
    is a null, needn't look through a whole conversation.
    """
    try:
        head = strict_json_bytes(fields)
    except ValueError as error:
        raise InvalidRequest("The request contains a value that can't be passed on as JSON.") from error
    return b'%b,"messages":%b}' % (head[:-1], lenient_json_bytes(messages))


def _system_first(messages: Sequence[Message]) -> tuple[Message, ...]:
    """All instructions in one message, the first; where there is nothing else, the last of them as the user's."""
    instructions = [message for message in messages if message.role == "system"]
    others = [message for message in messages if message.role != "system"] or [Message("user", instructions.pop().text)]
    text = "\n\n".join(message.text for message in instructions if message.text)
    return (Message("system", text), *others) if text else tuple(others)


def _message(message: Message, quirks: Quirks) -> dict[str, object]:
    if message.role == "tool":
        return _tool_result(message)
    wire: dict[str, object] = {"role": message.role, "content": _content(message)}
    if message.name:
        wire["name"] = message.name
    if message.role == "assistant":
        if message.reasoning and quirks.reasoning_field:
            wire[quirks.reasoning_field] = message.reasoning
        if message.tool_calls:
            wire["content"] = wire["content"] or None
            wire["tool_calls"] = [_call(call, quirks) for call in message.tool_calls]
        if message.extras and quirks.takes_extras:
            wire.update(message.extras)
    return wire


def _call(call: ToolCall, quirks: Quirks) -> dict[str, object]:
    """An earlier call. Arguments that a client broke off are mended: strict upstreams would refuse the conversation."""
    function = {"name": call.name, "arguments": repaired_object_text(call.arguments)}
    wire: dict[str, object] = {"id": call.id, "type": "function", "function": function}
    if call.extras and quirks.takes_extras:
        wire.update(call.extras)
    return wire


def _tool_result(message: Message) -> dict[str, object]:
    if message.tool_call_id:
        return {"role": "tool", "tool_call_id": message.tool_call_id, "content": _content(message)}
    return {"role": "function", "name": message.name or "function", "content": _content(message)}


def _content(message: Message) -> str | list[dict[str, object]]:
    if not message.parts:
        return message.text
    return [_image(part) if isinstance(part, Image) else {"type": "text", "text": part} for part in message.parts]


def _image(image: Image) -> dict[str, object]:
    detail = {"detail": image.detail} if image.detail else {}
    return {"type": "image_url", "image_url": {"url": image.url, **detail}}


def _tools(use: ToolUse | None) -> dict[str, object]:
    """Tools and tool choice. A restricted choice means sending only those tools, which every upstream understands."""
    if use is None:
        return {}
    tools = use.callable_tools or use.tools
    fields: dict[str, object] = {"tools": [_tool(tool) for tool in tools]}
    if use.choice == "required" and use.allowed is not None and len(tools) == 1:
        fields["tool_choice"] = {"type": "function", "function": {"name": tools[0].name}}
    elif use.choice != "auto":
        fields["tool_choice"] = use.choice
    if not use.parallel:
        fields["parallel_tool_calls"] = False
    return fields


def _tool(tool: Tool) -> dict[str, object]:
    function: dict[str, object] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters:
        function["parameters"] = tool.parameters
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _response_format(wanted: OutputFormat) -> dict[str, object]:
    if wanted.kind == "text":
        return {}
    if wanted.kind == "json_object":
        return {"response_format": {"type": "json_object"}}
    described: dict[str, object] = {"name": wanted.name or "answer", "schema": wanted.schema or {}}
    if wanted.description:
        described["description"] = wanted.description
    if wanted.strict:
        described["strict"] = True
    return {"response_format": {"type": "json_schema", "json_schema": described}}
