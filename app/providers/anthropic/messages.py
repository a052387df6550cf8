"""A conversation as Anthropic's messages: content blocks, and roles that take turns. Pure."""

import re
from collections.abc import Iterator, Sequence

from app.domain.chat import Image, Message
from app.domain.errors import InvalidRequest
from app.providers.anthropic.thoughts import thinking_blocks
from app.providers.api_upstream.parts import BEFORE_AN_ANSWER, NOTHING, arguments_of, image_data, is_web_address

Blocks = list[dict[str, object]]

_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9_-]")


def system_text(messages: Sequence[Message]) -> str:
    """All instructions, which have a place of their own. Where there is nothing else, the last are the user's words."""
    texts = [message.text for message in messages if message.role == "system" and message.text]
    return "\n\n".join(texts[:-1] if _is_all_system(messages) else texts)


def wire_messages(messages: Sequence[Message]) -> list[dict[str, object]]:
    """A whole conversation: its turns, of which the first must be the user's.

    Raises:
        InvalidRequest: An image is in a form that the API doesn't take.
    """
    turns = wire_turns((Message("user", messages[-1].text),) if _is_all_system(messages) else messages)
    if not turns or turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": [_text(BEFORE_AN_ANSWER)]})
    return turns


def wire_turns(messages: Sequence[Message]) -> list[dict[str, object]]:
    """A part of a conversation without its instructions, neighbours of one role joined. Raises as `wire_messages`."""
    turns: list[tuple[str, Blocks]] = []
    for message in messages:
        if message.role == "system":
            continue
        role = "assistant" if message.role == "assistant" else "user"
        blocks = list(_assistant(message) if role == "assistant" else _user(message))
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(blocks)
        elif blocks or role == "user":
            turns.append((role, blocks or [_text(NOTHING)]))
    if turns and turns[-1][0] == "assistant":
        _trim_last(turns[-1][1])
    return [{"role": role, "content": _results_first(blocks)} for role, blocks in turns]


def called_tools(messages: Sequence[Message]) -> list[str]:
    """The names of all tools that have been called."""
    return list(dict.fromkeys(call.name for message in messages for call in message.tool_calls))


def _is_all_system(messages: Sequence[Message]) -> bool:
    return all(message.role == "system" for message in messages)


def _assistant(message: Message) -> Iterator[dict[str, object]]:
    yield from thinking_blocks(message)
    if message.text.strip():
        yield _text(message.text)
    for call in message.tool_calls:
        yield {"type": "tool_use", "id": _id(call.id), "name": call.name, "input": arguments_of(call)}


def _user(message: Message) -> Iterator[dict[str, object]]:
    if message.role == "tool":
        content: object = list(_content(message)) if message.parts else message.text
        yield {
            "type": "tool_result",
            "tool_use_id": _id(message.tool_call_id or message.name or ""),
            "content": content,
        }
    else:
        yield from _content(message)


def _content(message: Message) -> Iterator[dict[str, object]]:
    for part in message.parts or (message.text,):
        if isinstance(part, Image):
            yield {"type": "image", "source": _source(part)}
        elif part.strip():
            yield _text(part)


def _source(image: Image) -> dict[str, object]:
    if is_web_address(image):
        return {"type": "url", "url": image.url}
    data = image_data(image)
    if data is None:
        raise InvalidRequest("An image must have an http address, or be a data: URL in base64.", param=image.place)
    return {"type": "base64", "media_type": data[0], "data": data[1]}


def _text(text: str) -> dict[str, object]:
    return {"type": "text", "text": text}


def _id(given: str) -> str:
    """An id as the API takes it. Other vendors' have dots and colons in them."""
    return _NOT_IN_AN_ID.sub("_", given) or "call"


def _results_first(blocks: Blocks) -> Blocks:
    """The API wants the results of tools before anything else that the user says."""
    results = [block for block in blocks if block["type"] == "tool_result"]
    return [*results, *(block for block in blocks if block["type"] != "tool_result")] if results else blocks


def _trim_last(blocks: Blocks) -> None:
    """An answer that is to be continued must not end with a blank."""
    if blocks and blocks[-1]["type"] == "text":
        blocks[-1] = _text(str(blocks[-1]["text"]).rstrip())
