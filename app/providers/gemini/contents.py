"""A conversation as Gemini's contents: parts, and roles that take turns. Pure."""

import mimetypes
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from app.domain.chat import Image, Message, ToolCall
from app.domain.errors import InvalidRequest
from app.domain.json import read_json_object
from app.providers.api_upstream.parts import BEFORE_AN_ANSWER, NOTHING, arguments_of, image_data, is_web_address
from app.providers.gemini.signatures import signature_in

Parts = list[dict[str, object]]

# They refuse earlier calls without a signature. Google's word for calls that another model has made.
_WANTS_SIGNATURES = "gemini-[3-9]*"
_BEFORE_AN_ANSWER: dict[str, object] = {"role": "user", "parts": [{"text": BEFORE_AN_ANSWER}]}
_UNSIGNED = "skip_thought_signature_validator"


def system_parts(messages: Sequence[Message]) -> Parts:
    """All instructions, which have a place of their own. Where there is nothing else, the last are the user's words."""
    texts = [message.text for message in messages if message.role == "system" and message.text]
    return [{"text": text} for text in (texts[:-1] if _is_all_system(messages) else texts)]


def wire_contents(messages: Sequence[Message], model: str) -> list[dict[str, object]]:
    """The turns of a conversation, neighbours of one role joined.

    Raises:
        InvalidRequest: An image is in a form that the API doesn't take.
    """
    if _is_all_system(messages):
        messages = (Message("user", messages[-1].text),)
    turns = wire_turns(messages, model)
    return turns if turns and turns[0]["role"] == "user" else [_BEFORE_AN_ANSWER, *turns]


def wire_turns(messages: Sequence[Message], model: str) -> list[dict[str, object]]:
    """Some turns of a conversation; see `wire_contents`."""
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    is_signed = fnmatchcase(model.removeprefix("models/"), _WANTS_SIGNATURES)
    turns: list[tuple[str, Parts]] = []
    for message in messages:
        if message.role == "system":
            continue
        role = "model" if message.role == "assistant" else "user"
        parts = list(_said(message, is_signed=is_signed) if role == "model" else _asked(message, names))
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(parts)
        elif parts or role == "user":
            turns.append((role, parts or [{"text": NOTHING}]))
    return [{"role": role, "parts": _results_first(parts)} for role, parts in turns]


def _is_all_system(messages: Sequence[Message]) -> bool:
    return all(message.role == "system" for message in messages)


def _said(message: Message, *, is_signed: bool) -> Iterator[dict[str, object]]:
    """An answer of the model's. Thoughts are not sent back: their signatures stand for them."""
    signature = signature_in(message.extras)
    if message.text:
        yield {"text": message.text, **({"thoughtSignature": signature} if signature else {})}
    for index, call in enumerate(message.tool_calls):
        yield _call(call, _UNSIGNED if is_signed and not index else None)


def _call(call: ToolCall, otherwise: str | None) -> dict[str, object]:
    signature = signature_in(call.extras) or otherwise
    part: dict[str, object] = {"functionCall": {"name": call.name, "args": arguments_of(call)}}
    return {**part, "thoughtSignature": signature} if signature else part


def _asked(message: Message, names: Mapping[str, str]) -> Iterator[dict[str, object]]:
    if message.role != "tool":
        yield from _content(message)
        return
    name = message.name or names.get(message.tool_call_id or "") or "function"
    yield {"functionResponse": {"name": name, "response": _result(message.text)}}
    # There is no place for images within.
    yield from [_image(part) for part in message.parts if isinstance(part, Image)]


def _result(text: str) -> dict[str, object]:
    """A tool's result, which must be an object."""
    return read_json_object(text.encode("utf-8", "replace")) or {"result": text}


def _content(message: Message) -> Iterator[dict[str, object]]:
    for part in message.parts or (message.text,):
        if isinstance(part, Image):
            yield _image(part)
        elif part:
            yield {"text": part}


def _image(image: Image) -> dict[str, object]:
    data = image_data(image)
    if data is not None:
        return {"inlineData": {"mimeType": data[0], "data": data[1]}}
    if not is_web_address(image):
        raise InvalidRequest("An image must have an http address, or be a data: URL in base64.", param=image.place)
    kind, _ = mimetypes.guess_type(image.url.partition("?")[0])
    return {"fileData": {"fileUri": image.url, **({"mimeType": kind} if kind else {})}}


def _results_first(parts: Parts) -> Parts:
    """The results of functions come right behind their calls."""
    results = [part for part in parts if "functionResponse" in part]
    return [*results, *(part for part in parts if "functionResponse" not in part)] if results else parts
