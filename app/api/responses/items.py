"""The items of a conversation: what they mean, and the form in which they are kept. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct
from pydantic import TypeAdapter

from app.api.responses.ids import input_item_id
from app.api.responses.schemas import (
    CallOutputItem,
    CustomCallItem,
    FunctionCallItem,
    Item,
    ItemReference,
    MessageItem,
    OtherItem,
    ReasoningItem,
)
from app.api.responses.sealed import unsealed
from app.api.responses.toolbox import ClientTool
from app.api.wire.calls import arguments_text, with_call_ids
from app.api.wire.content import ContentPart, Part, read_parts, text_and_parts
from app.api.wire.custom import custom_arguments
from app.api.wire.faults import missing_parameter
from app.domain.chat import Extras, Message, Role, ToolCall
from app.domain.message_shapes import CALL_EXTRAS

_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "custom_tool_call": "ctc",
    "function_call_output": "fco",
    "custom_tool_call_output": "cto",
    "reasoning": "rs",
}
_items: TypeAdapter[list[Item]] = TypeAdapter(list[Item])


class Placed(Struct, frozen=True):
    """An item, and the field of the request that brought it."""

    item: Item
    place: str


def items_of_input(given: str | Sequence[Item] | None) -> list[Placed]:
    """The items of a request's own input."""
    if given is None:
        return []
    if isinstance(given, str):
        return [Placed(MessageItem(role="user", content=given), "input")]
    return [Placed(item, f"input[{index}]") for index, item in enumerate(given)]


def items_of_kept(kept: Sequence[dict[str, Any]], place: str) -> list[Placed]:
    """Items that were kept."""
    return [Placed(item, place) for item in _items.validate_python(list(kept))]


def passed_over(items: Sequence[Placed]) -> set[str]:
    """The types of the items that mean nothing here."""
    return {placed.item.type for placed in items if isinstance(placed.item, OtherItem)}


def to_messages(items: Sequence[Placed]) -> list[Message]:
    """The conversation that the items are. All that an assistant says and calls in one go is one message.

    Raises:
        InvalidRequest: An item holds what can't be read.
    """
    messages: list[Message] = []
    draft = _Turn()
    for placed in items:
        item = placed.item
        if isinstance(item, OtherItem | ItemReference):
            continue
        if isinstance(item, CallOutputItem) or (isinstance(item, MessageItem) and item.role != "assistant"):
            messages += draft.take()
            messages.append(_message(item, placed.place))
            continue
        if draft.is_said and isinstance(item, MessageItem | ReasoningItem):
            messages += draft.take()
        _add(draft, item, placed.place)
    return list(with_call_ids(messages + draft.take()))


def kept_items(items: Sequence[Placed], response_id: str) -> list[dict[str, Any]]:
    """The items as they are kept and listed: each with an id, messages with their parts."""
    return [
        _kept(placed.item, response_id, index)
        for index, placed in enumerate(items)
        if not isinstance(placed.item, OtherItem | ItemReference)
    ]


@dataclass(slots=True)
class _Turn:
    """What an assistant does in one go."""

    text: str = ""
    reasoning: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    details: list[object] = field(default_factory=list)
    """What a vendor has added to its thoughts."""

    @property
    def is_said(self) -> bool:
        return bool(self.text or self.calls)

    def take(self) -> list[Message]:
        """The message, if there is one, and begin anew."""
        extras: Extras | None = {"reasoning_details": self.details} if self.details else None
        calls = tuple(self.calls)
        taken = [Message("assistant", self.text, tool_calls=calls, reasoning=self.reasoning, extras=extras)]
        is_said = self.is_said
        self.text, self.reasoning, self.calls, self.details = "", "", [], []
        return taken if is_said else []


def _add(draft: _Turn, item: MessageItem | FunctionCallItem | CustomCallItem | ReasoningItem, place: str) -> None:
    if isinstance(item, MessageItem):
        draft.text, _ = text_and_parts(_parts(item.content, f"{place}.content"))
    elif isinstance(item, ReasoningItem):
        thought, _ = text_and_parts(_parts(item.content or item.summary or [], place))
        draft.reasoning = "\n".join(filter(None, [draft.reasoning, thought]))
        draft.details += unsealed((item.model_extra or {}).get("encrypted_content"))
    elif isinstance(item, CustomCallItem):
        named = ClientTool(item.name, item.namespace, is_custom=True)
        draft.calls.append(ToolCall(item.call_id or "", named.function_name, custom_arguments(item.input or "")))
    else:
        named = ClientTool(item.name, item.namespace)
        arguments = arguments_text(item.arguments)
        draft.calls.append(ToolCall(item.call_id or "", named.function_name, arguments, _extras(item)))


def _extras(item: FunctionCallItem) -> Extras | None:
    """What a provider has added, and wants back."""
    given = item.model_extra or {}
    return {name: given[name] for name in CALL_EXTRAS & given.keys() if given[name]} or None


def _message(item: MessageItem | CallOutputItem, place: str) -> Message:
    if isinstance(item, CallOutputItem):
        text, parts = text_and_parts(_parts(item.output, f"{place}.output"))
        return Message("tool", text, tool_call_id=item.call_id, parts=parts)
    if item.content is None:
        raise missing_parameter(f"{place}.content")
    text, parts = text_and_parts(_parts(item.content, f"{place}.content"))
    return Message(_ROLES[item.role], text, parts=parts)


def _parts(content: str | Sequence[ContentPart] | None, place: str) -> list[Part]:
    if content is None or isinstance(content, str):
        return [content or ""]
    return read_parts(content, place)


def _kept(item: Item, response_id: str, index: int) -> dict[str, Any]:
    fields = item.model_dump(exclude_none=True)
    kind = fields.setdefault("type", "message")
    fields.setdefault("id", input_item_id(_PREFIXES[kind], response_id, index))
    fields.setdefault("status", "completed")
    if isinstance(item, MessageItem) and isinstance(item.content, str):
        if item.role == "assistant":
            fields["content"] = [{"type": "output_text", "text": item.content, "annotations": []}]
        else:
            fields["content"] = [{"type": "input_text", "text": item.content}]
    if isinstance(item, FunctionCallItem):
        fields["arguments"] = arguments_text(item.arguments)
    if isinstance(item, ReasoningItem):
        fields.setdefault("summary", [])
    return fields
