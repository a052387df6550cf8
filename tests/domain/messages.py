"""Messages, written shortly."""

from app.domain.chat import Message, ToolCall


def system(text: str) -> Message:
    """An instruction."""
    return Message("system", text)


def user(text: str, name: str | None = None) -> Message:
    """A turn of the user."""
    return Message("user", text, name=name)


def assistant(text: str, *calls: ToolCall) -> Message:
    """A turn of the assistant, perhaps with tool calls."""
    return Message("assistant", text, tool_calls=calls)


def tool(text: str, call_id: str | None = None) -> Message:
    """The result of a tool call."""
    return Message("tool", text, tool_call_id=call_id)
