"""Reads Anthropic's content blocks into messages. Pure.

A place in a request is named as Anthropic names it: `messages.0.content.2`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from app.api.anthropic.schemas import ContentBlock, ContentSource, WireMessage
from app.api.wire.content import text_and_parts
from app.api.wire.conversation import Conversation
from app.domain.chat import Image, Message, ToolCall
from app.domain.errors import InvalidRequest
from app.domain.message_shapes import CALL_EXTRAS

# Claude Code's note to Anthropic's billing; the API itself takes it out. It differs from request to request.
_BILLING_NOTE = "x-anthropic-billing-header:"
_OF_OTHERS = frozenset({"redacted_thinking", "container_upload"})


class Unreadable(InvalidRequest):
    """A block that only an upstream of Anthropic's form may know what to do with."""


def domain_messages(system: str | list[ContentBlock] | None, messages: Sequence[WireMessage]) -> tuple[Message, ...]:
    """A whole conversation, its system prompt first.

    Raises:
        InvalidRequest: Something in it can't be read.
    """
    conversation = read_conversation(system, messages)
    if conversation.refusal is not None:
        raise conversation.refusal
    return conversation.messages


def read_conversation(system: str | list[ContentBlock] | None, messages: Sequence[WireMessage]) -> Conversation:
    """A conversation, as far as it can be read.

    Raises:
        InvalidRequest: It is malformed.
    """
    refusals: list[Unreadable] = []
    instructions = Message("system", _system_text(system, "system")) if system else None
    turns = []
    for index, message in enumerate(messages):
        found = _messages(message, f"messages.{index}.content", refusals)
        turns.append(tuple([each for each in found if each.role != "system" or each.text]))
    if not refusals and not any(message.role != "system" for turn in turns for message in turn):
        raise InvalidRequest("messages must contain at least one message with content.", param="messages")
    said = instructions if instructions is not None and instructions.text else None
    return Conversation(said, tuple(turns), refusals[0] if refusals else None)


def _messages(message: WireMessage, place: str, refusals: list[Unreadable]) -> Iterator[Message]:
    if message.content is None:
        return
    if message.role == "system":
        yield Message("system", _system_text(message.content, place))
    elif isinstance(message.content, str):
        yield Message(message.role, message.content)
    elif message.role == "assistant":
        answer = _assistant(message.content, place, refusals)
        if answer.text or answer.tool_calls or answer.reasoning or not message.content:
            yield answer
    else:
        yield from _user(message.content, place, refusals)


def _system_text(content: str | list[ContentBlock], place: str) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for index, block in enumerate(content):
        if block.type != "text":
            raise _unreadable(block, f"{place}.{index}")
        text = _needed(block.text, f"{place}.{index}.text")
        if not text.startswith(_BILLING_NOTE):
            texts.append(text)
    return "\n\n".join(texts)


def _assistant(blocks: Sequence[ContentBlock], place: str, refusals: list[Unreadable]) -> Message:
    texts: list[str] = []
    calls: list[ToolCall] = []
    thoughts: list[str] = []
    for index, block in enumerate(blocks):
        if block.type == "text":
            texts.append(_needed(block.text, f"{place}.{index}.text"))
        elif block.type == "tool_use":
            calls.append(_call(block, f"{place}.{index}"))
        elif block.type == "thinking":
            thoughts.append(block.thinking or "")
        elif not _is_of_others(block):
            refusals.append(_unreadable(block, f"{place}.{index}"))
    return Message("assistant", "\n".join(texts), tool_calls=tuple(calls), reasoning="\n".join(thoughts))


def _call(block: ContentBlock, place: str) -> ToolCall:
    arguments = json.dumps(block.input or {}, ensure_ascii=False, separators=(",", ":"))
    given = block.model_extra or {}
    extras = {name: given[name] for name in CALL_EXTRAS & given.keys()} or None
    return ToolCall(_needed(block.id, f"{place}.id"), _needed(block.name, f"{place}.name"), arguments, extras)


@dataclass(slots=True)
class _UserMessage:
    """Neighbouring blocks that make one message of the user's."""

    parts: list[str | Image] = field(default_factory=list)

    def message(self) -> Iterator[Message]:
        if self.parts:
            text, parts = text_and_parts(self.parts)
            yield Message("user", text, parts=parts)
        self.parts = []


def _user(blocks: Sequence[ContentBlock], place: str, refusals: list[Unreadable]) -> Iterator[Message]:
    """Tool results become messages of their own, in the order in which they stand among the other blocks."""
    user = _UserMessage()
    for index, block in enumerate(blocks):
        where = f"{place}.{index}"
        if _is_of_others(block):
            continue
        if block.type != "tool_result":
            user.parts += _readable(block, where, refusals)
            continue
        yield from user.message()
        yield _result(block, where, refusals)
    yield from user.message()


def _result(block: ContentBlock, place: str, refusals: list[Unreadable]) -> Message:
    parts: list[str | Image] = []
    if isinstance(block.content, str):
        parts.append(block.content)
    elif isinstance(block.content, list):
        for index, inner in enumerate(block.content):
            parts += _readable(inner, f"{place}.content.{index}", refusals)
    elif block.content is not None:
        raise InvalidRequest("A tool result must be text or a list of blocks.", param=f"{place}.content")
    text, with_images = text_and_parts(parts)
    if block.is_error and not text.lower().startswith("error"):
        text = f"Error: {text}"
    return Message("tool", text, tool_call_id=_needed(block.tool_use_id, f"{place}.tool_use_id"), parts=with_images)


def _readable(block: ContentBlock, place: str, refusals: list[Unreadable]) -> list[str | Image]:
    """What a block says, or what it is, if that can't be read."""
    try:
        return list(_parts(block, place))
    except Unreadable as refusal:
        # Without its traceback, which leads back to here.
        refusals.append(refusal.with_traceback(None))
        return [f"[{block.type[:40]}]"]


def _parts(block: ContentBlock, place: str) -> Iterator[str | Image]:
    """What a block says: texts, mostly one."""
    if block.type == "text":
        yield _needed(block.text, f"{place}.text")
    elif block.type == "image":
        yield _image(block.source, place)
    elif block.type == "document":
        yield from _titled(block)
        yield from _document(block.source, f"{place}.source")
    elif block.type == "search_result":
        yield from _titled(block)
        yield from _texts(block.content, f"{place}.content")
    elif block.type == "tool_reference":
        yield f"(the tool {_needed(block.tool_name, f'{place}.tool_name')})"
    else:
        raise _unreadable(block, place)


def _image(source: ContentSource | str | None, place: str) -> Image:
    if isinstance(source, ContentSource) and source.type == "base64":
        kind = _needed(source.media_type, f"{place}.source.media_type")
        return Image(f"data:{kind};base64,{_needed(source.data, f'{place}.source.data')}", place)
    if isinstance(source, ContentSource) and source.type == "url":
        return Image(_needed(source.url, f"{place}.source.url"), place)
    raise Unreadable("An image must have a base64 or url source.", param=f"{place}.source")


def _titled(block: ContentBlock) -> Iterator[str]:
    address = block.source if isinstance(block.source, str) else None
    yield from (text for text in (block.title, address, block.context) if text)


def _document(source: ContentSource | str | None, place: str) -> Iterator[str | Image]:
    if isinstance(source, ContentSource) and source.type == "text":
        yield _needed(source.data, f"{place}.data")
    elif isinstance(source, ContentSource) and source.type == "content":
        yield from _texts(source.content, f"{place}.content")
    else:
        raise Unreadable("A document must have a text or content source; files are not supported.", param=place)


def _texts(content: object, place: str) -> Iterator[str | Image]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for index, block in enumerate(content):
            yield from _parts(block, f"{place}.{index}")
    else:
        raise InvalidRequest("Content is required.", param=place)


def _is_of_others(block: ContentBlock) -> bool:
    """Whether nobody here can make anything of a block: tools that ran at Anthropic's, and sealed thoughts."""
    kind = block.type
    return kind in _OF_OTHERS or (
        kind.endswith(("_tool_use", "_tool_result")) and kind not in ("tool_use", "tool_result")
    )


def _needed(value: str | None, place: str) -> str:
    if value is None:
        raise InvalidRequest("Field required.", param=place)
    return value


def _unreadable(block: ContentBlock, place: str) -> Unreadable:
    return Unreadable(f"A block of type {block.type[:40]!r} is not supported here.", param=place)
