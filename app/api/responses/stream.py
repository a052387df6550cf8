"""Writes the events of a streamed response. Pure.

Each item is opened, grows and is closed before the next one is opened; every event has the next sequence number.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from app.api.responses.errors import error_object
from app.api.responses.output import (
    Output,
    OutputItem,
    ResponseDraft,
    Status,
    refusal_part,
    status_of,
    summary_part,
    text_part,
)
from app.api.responses.toolbox import Toolbox
from app.chat.events import Ending
from app.domain.chat import Delta, Extras, NativeEvent, ToolCallDelta
from app.domain.errors import GatewayError
from app.domain.json import json_bytes


class ResponseEncoder:
    """Writes one response's events.

    Reasoning is written as its summary: that is what clients show, and what they send back.

    Args:
        draft: What is known of the response.
        toolbox: Tells which tool a call means.
        is_stored: Asked when the answer is over: is the response kept?
    """

    ping: ClassVar[bytes] = b": ping\n\n"

    def __init__(self, draft: ResponseDraft, toolbox: Toolbox, *, is_stored: Callable[[], bool]) -> None:
        self._draft = draft
        self._output = Output(draft.id, toolbox)
        self._is_stored = is_stored
        self._sequence_number = 0
        self._open: OutputItem | None = None
        self._before_delta = b""

    def opening(self) -> bytes:
        """The response before the first word."""
        response = self._draft.in_progress()
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def text(self, text: str) -> bytes:
        """A piece of what is said."""
        item = self._output.add_text(text)
        return self._turn_to(item) + self._delta(text)

    def reasoning(self, text: str) -> bytes:
        """A piece of what is thought."""
        item = self._output.add_reasoning(text)
        return self._turn_to(item) + self._delta(text)

    def refusal(self, text: str) -> bytes:
        """A piece of what is said in place of an answer."""
        item = self._output.add_refusal(text)
        return self._turn_to(item) + self._delta(text)

    def extras(self, text: str, extras: Extras) -> bytes:
        """A piece of text, and the provider's annotations to it; what it tells of each token comes with the end."""
        written = self.text(text) if text else b""
        item = self._open
        for annotation in self._output.add_extras(extras):
            if item is not None:
                index = item.extras["annotations"].index(annotation)
                written += self._part_event(
                    "response.output_text.annotation.added",
                    item,
                    content_index=0,
                    annotation_index=index,
                    annotation=annotation,
                )
        return written

    def other_choice(self, delta: Delta) -> bytes:  # noqa: ARG002 - the encoders' common form
        """Nothing: here nobody asks for several answers at a time."""
        return b""

    def native(self, events: Sequence[NativeEvent]) -> bytes:  # noqa: ARG002 - the encoders' common form
        """Nothing: requests of this dialect aren't handed on in its own form."""
        return b""

    def tool_call(self, part: ToolCallDelta) -> bytes:
        """A piece of a call. A custom tool's input is known when its arguments are complete."""
        item = self._output.add_call(part)
        opened = self._turn_to(item)
        if item.kind == "custom_tool_call" or not part.arguments:
            return opened
        return opened + self._delta(part.arguments)

    def ending(self, ending: Ending) -> bytes:
        """The end of the last item, and the whole response."""
        empty = self._output.close()
        status = status_of(ending)
        written = (self._turn_to(empty) if empty else b"") + self._close(status)
        response = self._draft.ended(self._output, ending, stored=self._is_stored())
        return written + self._event(f"response.{status}", response=response)

    def failure(self, error: GatewayError) -> bytes:
        """The failed response, for those who read it, and an error event that makes SDKs raise."""
        response = self._draft.failed(self._output, error)
        told = error_object(error)
        return self._event("response.failed", response=response) + self._event(
            "error", code=told["code"], message=told["message"], param=told["param"], error=told
        )

    def _turn_to(self, item: OutputItem) -> bytes:
        """Close the open item and open this one, if it isn't the same."""
        if item is self._open:
            return b""
        closed = self._close("completed")
        self._open = item
        opened = self._event("response.output_item.added", output_index=item.index, item=item.document("in_progress"))
        if item.kind == "message":
            opened += self._part_event("response.content_part.added", item, content_index=0, part=text_part(""))
            self._before_delta = _head("response.output_text.delta", item, b'"content_index":0,"logprobs":[],')
        elif item.kind == "refusal":
            opened += self._part_event("response.content_part.added", item, content_index=0, part=refusal_part(""))
            self._before_delta = _head("response.refusal.delta", item, b'"content_index":0,')
        elif item.kind == "reasoning":
            opened += self._part_event(
                "response.reasoning_summary_part.added", item, summary_index=0, part=summary_part("")
            )
            self._before_delta = _head("response.reasoning_summary_text.delta", item, b'"summary_index":0,')
        else:
            self._before_delta = _head("response.function_call_arguments.delta", item, b"")
        return closed + opened

    def _delta(self, piece: str) -> bytes:
        """The next piece of the open item: all but the piece and its number is written once for the whole item."""
        return self._before_delta + b'%d,"delta":%b}\n\n' % (self._next_number(), json_bytes(piece))

    def _close(self, status: Status) -> bytes:
        """The end of the open item, if there is one."""
        item, self._open = self._open, None
        if item is None:
            return b""
        return self._done_events(item) + self._event(
            "response.output_item.done", output_index=item.index, item=item.document(status)
        )

    def _done_events(self, item: OutputItem) -> bytes:
        """The events that tell an item's text once more, as a whole."""
        text = item.text
        if item.kind == "message":
            return self._part_event(
                "response.output_text.done", item, content_index=0, text=text, logprobs=item.part()["logprobs"]
            ) + self._part_event("response.content_part.done", item, content_index=0, part=item.part())
        if item.kind == "refusal":
            return self._part_event("response.refusal.done", item, content_index=0, refusal=text) + self._part_event(
                "response.content_part.done", item, content_index=0, part=item.part()
            )
        if item.kind == "reasoning":
            return self._part_event(
                "response.reasoning_summary_text.done", item, summary_index=0, text=text
            ) + self._part_event("response.reasoning_summary_part.done", item, summary_index=0, part=summary_part(text))
        if item.kind == "function_call":
            return self._part_event("response.function_call_arguments.done", item, name=item.tool.name, arguments=text)
        written = item.document("completed")["input"]
        return self._part_event("response.custom_tool_call_input.delta", item, delta=written) + self._part_event(
            "response.custom_tool_call_input.done", item, input=written
        )

    def _part_event(self, kind: str, item: OutputItem, **fields: Any) -> bytes:
        return self._event(kind, item_id=item.id, output_index=item.index, **fields)

    def _event(self, kind: str, **fields: Any) -> bytes:
        document = {"type": kind, "sequence_number": self._next_number(), **fields}
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), json_bytes(document))

    def _next_number(self) -> int:
        number = self._sequence_number
        self._sequence_number += 1
        return number


def _head(kind: str, item: OutputItem, more: bytes) -> bytes:
    """A delta event up to its sequence number."""
    place = b'"item_id":"%b","output_index":%d,' % (item.id.encode(), item.index)
    return b'event: %b\ndata: {"type":"%b",%b%b"sequence_number":' % (kind.encode(), kind.encode(), place, more)
