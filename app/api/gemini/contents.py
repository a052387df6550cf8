"""Reads Gemini's contents into messages. Pure.

A place in a request is named as Google names it: `contents[0].parts[2]`.
"""

import base64
import binascii
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from app.api.gemini.schemas import GeminiBlob, GeminiContent, GeminiFunctionResponse, GeminiInstruction, GeminiPart
from app.api.wire.calls import arguments_text, with_call_ids
from app.api.wire.content import Part, text_and_parts
from app.api.wire.conversation import Conversation
from app.domain.chat import Image, Message, ToolCall
from app.domain.errors import InvalidRequest
from app.providers.gemini.signatures import signed

_STANDARD = str.maketrans("-_", "+/")
_NO_FILES = "Files are not kept here: send the data itself, as inlineData."


class Unreadable(InvalidRequest):
    """Something that only an upstream of Gemini's form may know what to do with."""


def read_conversation(system: GeminiInstruction | None, contents: Sequence[GeminiContent]) -> Conversation:
    """A conversation, as far as it can be read.

    Raises:
        InvalidRequest: It is malformed.
    """
    refusals: list[Unreadable] = []
    places: list[int] = []
    neighbours: list[list[Message]] = []
    for index, content in enumerate(contents):
        for message in _messages(content, f"contents[{index}].parts", refusals):
            if message.role == "assistant" and neighbours and neighbours[-1][0].role == "assistant":
                # Google's SDKs keep each part of a streamed answer as a content of its own.
                neighbours[-1].append(message)
            else:
                places.append(index)
                neighbours.append([message])
    messages = [_joined(parts) for parts in neighbours]
    if not messages and not refusals:
        raise InvalidRequest("contents must have at least one part that says something.", param="contents")
    turns: list[list[Message]] = [[] for _ in contents]
    for place, message in zip(places, with_call_ids(messages), strict=True):
        turns[place].append(message)
    instruction = _instruction(system, refusals) if system is not None else ""
    return Conversation(
        Message("system", instruction) if instruction else None,
        tuple(map(tuple, turns)),
        refusals[0] if refusals else None,
    )


def _instruction(content: GeminiInstruction, refusals: list[Unreadable]) -> str:
    texts = []
    for index, part in enumerate(content.parts or ()):
        if part.text is None:
            place = f"systemInstruction.parts[{index}]"
            refusals.append(Unreadable("The system instruction must be text.", param=place))
        texts.append(part.text or "")
    return "\n\n".join(text for text in texts if text)


def _messages(content: GeminiContent, place: str, refusals: list[Unreadable]) -> Iterator[Message]:
    parts = content.parts or ()
    if content.role == "model":
        answer = _answer(parts, place, refusals)
        if answer.text or answer.tool_calls or answer.reasoning or answer.extras:
            yield answer
        return
    user = _UserMessage()
    for index, part in enumerate(parts):
        where = f"{place}[{index}]"
        if part.function_response is not None:
            # They come right behind their calls.
            yield _result(part.function_response, f"{where}.functionResponse", refusals)
        else:
            user.read(part, where, refusals)
    yield from user.message()


def _answer(parts: Sequence[GeminiPart], place: str, refusals: list[Unreadable]) -> Message:
    said: list[str] = []
    thought: list[str] = []
    calls: list[ToolCall] = []
    extras = None
    for index, part in enumerate(parts):
        signature = signed(part.thought_signature)
        if part.function_call is not None:
            call = part.function_call
            calls.append(ToolCall(call.id or "", call.name, arguments_text(call.args), signature))
        elif part.text is not None or signature is not None:
            (thought if part.thought else said).append(part.text or "")
            extras = signature or extras
        elif part.model_extra or part.inline_data is not None or part.function_response is not None:
            refusals.append(_unreadable(part, f"{place}[{index}]"))
    return Message("assistant", "".join(said), tool_calls=tuple(calls), reasoning="".join(thought), extras=extras)


def _joined(parts: Sequence[Message]) -> Message:
    """One message of parts of an answer. All at once: there may be thousands."""
    if len(parts) == 1:
        return parts[0]
    return replace(
        parts[0],
        text="".join([part.text for part in parts]),
        reasoning="".join([part.reasoning for part in parts]),
        tool_calls=tuple([call for part in parts for call in part.tool_calls]),
        extras=next((part.extras for part in reversed(parts) if part.extras), None),
    )


@dataclass(slots=True)
class _UserMessage:
    """What a user says in one content."""

    parts: list[Part] = field(default_factory=list)

    def read(self, part: GeminiPart, place: str, refusals: list[Unreadable]) -> None:
        """Add a part."""
        if part.text is not None:
            self.parts.append(part.text)
        elif part.inline_data is not None:
            self.parts += _readable(part.inline_data, f"{place}.inlineData", refusals)
        elif part.model_extra or part.function_call is not None:
            refusals.append(_unreadable(part, place))

    def message(self) -> Iterator[Message]:
        """The message, if anything is said."""
        text, parts = text_and_parts(self.parts)
        if text:
            yield Message("user", text, parts=parts)


def _result(given: GeminiFunctionResponse, place: str, refusals: list[Unreadable]) -> Message:
    parts: list[Part] = [_result_text(given)]
    for index, part in enumerate(given.parts or ()):
        if part.inline_data is not None:
            parts += _readable(part.inline_data, f"{place}.parts[{index}].inlineData", refusals)
        elif part.model_extra:
            refusals.append(Unreadable(_NO_FILES, param=f"{place}.parts[{index}]"))
    text, with_images = text_and_parts(parts)
    return Message("tool", text, name=given.name, tool_call_id=given.id or None, parts=with_images)


def _result_text(given: GeminiFunctionResponse) -> str:
    """What a function returned. A bare text is wrapped for Google, which takes nothing but objects."""
    response = given.response or {}
    if response.keys() == {"result"} and isinstance(response["result"], str):
        return response["result"]
    return json.dumps(response, ensure_ascii=False, separators=(",", ":"))


def _readable(blob: GeminiBlob, place: str, refusals: list[Unreadable]) -> list[Part]:
    """An image, or a text; nothing if it is neither."""
    # Google's SDKs send the form of base64 that is for addresses, others the usual one.
    data = blob.data.translate(_STANDARD)
    data += "=" * (-len(data) % 4)  # which they may leave out
    kind = blob.mime_type.lower()
    if kind.startswith("image/"):
        return [Image(f"data:{blob.mime_type};base64,{data}", place)]
    if kind.startswith("text/"):
        try:
            return [base64.b64decode(data, validate=True).decode("utf-8", "replace")]
        except (binascii.Error, ValueError):
            raise InvalidRequest(f"{place}.data is not base64.", param=f"{place}.data") from None
    told = f"Data of type {blob.mime_type[:40]!r} is not supported here: only images and texts are."
    refusals.append(Unreadable(told, param=f"{place}.mimeType"))
    return []


def _unreadable(part: GeminiPart, place: str) -> Unreadable:
    extra = part.model_extra or {}
    if "fileData" in extra or "file_data" in extra:
        return Unreadable(_NO_FILES, param=f"{place}.fileData")
    if part.function_response is not None:
        return Unreadable("Only the user answers functions: the role of this content is not 'user'.", param=place)
    if part.function_call is not None:
        return Unreadable("Only the model calls functions: the role of this content is not 'model'.", param=place)
    kind = next(iter(extra), "inlineData")
    return Unreadable(f"A part with {kind[:40]!r} is not supported here.", param=place)
