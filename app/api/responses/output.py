"""What a response consists of: its items while they grow, and the object around them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from msgspec import Struct

from app.api.responses.ids import output_item_id
from app.api.responses.schemas import ResponsesRequest
from app.api.responses.sealed import sealed
from app.api.responses.toolbox import ClientTool, Toolbox
from app.api.wire.custom import custom_input
from app.chat.deltas import as_deltas
from app.chat.events import Ending
from app.domain.chat import Completion, Delta, Extras, ToolCallDelta, Usage
from app.domain.errors import GatewayError, InvalidRequest

Status = Literal["in_progress", "completed", "incomplete"]
Kind = Literal["reasoning", "message", "refusal", "function_call", "custom_tool_call"]

_PREFIXES: Mapping[Kind, str] = {
    "reasoning": "rs",
    "message": "msg",
    "refusal": "msg",
    "function_call": "fc",
    "custom_tool_call": "ctc",
}
_NO_TOOL = ClientTool("")
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
# Fields of the request that come back with the response, and what they are if they weren't given.
_ECHOED: Mapping[str, object] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "top_logprobs": 0,
    "truncation": "auto",
    "user": None,
}


@dataclass(slots=True)
class OutputItem:
    """An item that grows.

    Args:
        pieces: Of its text: what is said or thought, or a call's arguments.
        tool: Of a call: which.
        call_id: Likewise.
        extras: What the provider added.
    """

    kind: Kind
    id: str
    index: int
    pieces: list[str] = field(default_factory=list)
    tool: ClientTool = _NO_TOOL
    call_id: str = ""
    call_index: int = -1
    extras: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """All pieces so far."""
        return "".join(self.pieces)

    def document(self, status: Status) -> dict[str, Any]:
        """The item as JSON."""
        if self.kind in ("message", "refusal"):
            content = [] if status == "in_progress" else [self.part()]
            return {"id": self.id, "type": "message", "status": status, "role": "assistant", "content": content}
        if self.kind == "reasoning":
            summary = [] if status == "in_progress" else [summary_part(self.text)]
            details = self.extras.get("reasoning_details")
            added = {"encrypted_content": sealed(details)} if details else {}
            return {"id": self.id, "type": "reasoning", "summary": summary, "status": status, **added}
        call = {"call_id": self.call_id, **self._call(status), **self.extras}
        return {"id": self.id, "type": self.kind, "status": status, **call}

    def part(self) -> dict[str, Any]:
        """The one part of a message that is complete."""
        if self.kind == "refusal":
            return refusal_part(self.text)
        return text_part(self.text) | self.extras

    def _call(self, status: Status) -> dict[str, Any]:
        name: dict[str, Any] = {"name": self.tool.name}
        if self.tool.namespace:
            name["namespace"] = self.tool.namespace
        text = "" if status == "in_progress" else self.text
        if self.kind == "custom_tool_call":
            return {**name, "input": custom_input(text)}
        return {**name, "arguments": text}


class Output:
    """Collects an answer's parts as items. Each method returns the item that the part belongs to; it is new if it has
    one piece only.

    Args:
        response_id: Of which the items' ids are made.
        toolbox: Tells which tool a call means.
    """

    def __init__(self, response_id: str, toolbox: Toolbox) -> None:
        self._response_id = response_id
        self._toolbox = toolbox
        self.items: list[OutputItem] = []

    def add(self, delta: Delta) -> None:
        """Any part of an answer."""
        if delta.reasoning:
            self.add_reasoning(delta.reasoning)
        if delta.tool_call is not None:
            self.add_call(delta.tool_call)
        if delta.text:
            self.add_text(delta.text)
        if delta.refusal:
            self.add_refusal(delta.refusal)
        if delta.extras:
            self.add_extras(delta.extras)

    def add_all(self, completion: Completion) -> None:
        """A whole answer."""
        for delta in as_deltas(completion):
            self.add(delta)
        self.close()

    def close(self) -> OutputItem | None:
        """The answer is over: one without any part is an empty message, which is returned."""
        return None if self.items else self.add_text("")

    def add_text(self, piece: str) -> OutputItem:
        """A piece of what is said."""
        return self._grown("message", piece)

    def add_refusal(self, piece: str) -> OutputItem:
        """A piece of what is said in place of an answer."""
        return self._grown("refusal", piece)

    def add_extras(self, extras: Extras) -> list[dict[str, Any]]:
        """What the provider added to a thought, or to the message that grows; the new annotations, as this dialect
        writes them."""
        self._add_details(extras.get("reasoning_details"))
        item = self.items[-1] if self.items and self.items[-1].kind == "message" else None
        if item is None:
            return []
        annotations, logprobs = extras.get("annotations"), extras.get("logprobs")
        tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
        if isinstance(tokens, list):
            item.extras["logprobs"] = [*item.extras.get("logprobs", ()), *tokens]
        added = (
            [_annotation(entry) for entry in annotations or () if isinstance(entry, dict)]
            if isinstance(annotations, list)
            else []
        )
        if added:
            item.extras["annotations"] = [*item.extras.get("annotations", ()), *added]
        return added

    def _add_details(self, details: object) -> None:
        thoughts = [item for item in self.items if item.kind == "reasoning"]
        if thoughts and isinstance(details, list):
            item = thoughts[-1]
            item.extras["reasoning_details"] = [*item.extras.get("reasoning_details", ()), *details]

    def add_reasoning(self, piece: str) -> OutputItem:
        """A piece of what is thought."""
        return self._grown("reasoning", piece)

    def add_call(self, delta: ToolCallDelta) -> OutputItem:
        """A piece of a call."""
        last = self.items[-1] if self.items else None
        if last is None or last.call_index != delta.index:
            tool = self._toolbox.find(delta.name or "")
            last = self._begin("custom_tool_call" if tool.is_custom else "function_call")
            last.tool, last.call_id, last.call_index = tool, delta.id or "", delta.index
        last.pieces.append(delta.arguments)
        if delta.extras:
            last.extras |= delta.extras
        return last

    def documents(self, status: Status) -> list[dict[str, Any]]:
        """All items as JSON; only the last one may be incomplete."""
        last = len(self.items) - 1
        return [item.document(status if item.index == last else "completed") for item in self.items]

    def _grown(self, kind: Kind, piece: str) -> OutputItem:
        if not self.items or self.items[-1].kind != kind:
            self._begin(kind)
        self.items[-1].pieces.append(piece)
        return self.items[-1]

    def _begin(self, kind: Kind) -> OutputItem:
        index = len(self.items)
        self.items.append(OutputItem(kind, output_item_id(_PREFIXES[kind], self._response_id, index), index))
        return self.items[-1]


class ResponseDraft(Struct, frozen=True):
    """All of a response that is known before it is answered.

    Args:
        id: Its own.
        created_at: In seconds since the epoch.
        model: The model that answers.
        echo: Fields that come back as the request had them.
        store: Is it to be kept?
    """

    id: str
    created_at: int
    model: str
    echo: Mapping[str, object]
    store: bool

    def in_progress(self) -> dict[str, Any]:
        """The object before the first word."""
        return self._document("in_progress", [], None, self.store)

    def ended(self, output: Output, ending: Ending, *, stored: bool) -> dict[str, Any]:
        """The object of an answer that is over.

        Args:
            stored: Is it kept?
        """
        document = self._document(
            status_of(ending), output.documents(status_of(ending)), usage_object(ending.usage), stored
        )
        reason = _INCOMPLETE.get(ending.completion.finish_reason)
        return document | {"incomplete_details": {"reason": reason} if reason else None}

    def failed(self, output: Output, error: GatewayError) -> dict[str, Any]:
        """The object of an answer that was broken off; it is not kept."""
        document = self._document("failed", output.documents("incomplete"), None, stored=False)
        return document | {"error": {"code": _error_code(error), "message": error.message}}

    def _document(
        self, status: str, output: list[dict[str, Any]], usage: dict[str, Any] | None, stored: bool
    ) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "model": self.model,
            "output": output,
            "store": stored,
            "usage": usage,
            **self.echo,
        }


def echo_of(request: ResponsesRequest) -> dict[str, object]:
    """The fields of a request that come back with the response."""
    given = request.model_dump(by_alias=True, exclude_none=True)
    return {name: given.get(name, default) for name, default in _ECHOED.items()}


def status_of(ending: Ending) -> Literal["completed", "incomplete"]:
    """Was everything said?"""
    return "incomplete" if ending.completion.finish_reason in _INCOMPLETE else "completed"


def text_part(text: str) -> dict[str, Any]:
    """The one part of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def refusal_part(text: str) -> dict[str, Any]:
    """The one part of a refusal."""
    return {"type": "refusal", "refusal": text}


def _annotation(entry: dict[str, Any]) -> dict[str, Any]:
    """An annotation of chat completions, whose fields are an object of their own there."""
    kind = entry.get("type")
    inner = entry.get(kind) if isinstance(kind, str) else None
    return {"type": kind, **inner} if isinstance(inner, dict) else entry


def summary_part(text: str) -> dict[str, Any]:
    """The one part of reasoning."""
    return {"type": "summary_text", "text": text}


def usage_object(usage: Usage) -> dict[str, Any]:
    """The `usage` of a response."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


def _error_code(error: GatewayError) -> str:
    """One of the few codes that a failed response may have; Codex looks for the first two."""
    if error.code == "context_length_exceeded":
        return error.code
    if error.status == 429:
        return "rate_limit_exceeded"
    return "invalid_prompt" if isinstance(error, InvalidRequest) else "server_error"
