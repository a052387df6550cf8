"""The parts of tool calls, however an upstream numbers and names them, as calls that come one after the other. Pure."""

import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from app.domain.chat import ToolCallDelta

_MOST_CALLS = 128


@dataclass(slots=True)
class _Call:
    index: int
    wire_index: int | None
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    told: int = 0
    """How many pieces of the arguments have been passed on; the head goes with the first."""
    begun: bool = False
    complete_at: tuple[int, bool] = (-1, False)
    """With how many pieces it was last looked whether the arguments are complete, and what was found."""

    def parts(self) -> Iterator[ToolCallDelta]:
        """What is known and has not been passed on."""
        if not self.begun:
            if not self.name:
                return
            self.begun = True
            self.id = self.id or f"call_{secrets.token_hex(12)}"
            first = "".join(self.arguments)
            self.told = len(self.arguments)
            yield ToolCallDelta(self.index, self.id, self.name, first)
        elif self.told < len(self.arguments):
            piece = "".join(self.arguments[self.told :])
            self.told = len(self.arguments)
            yield ToolCallDelta(self.index, arguments=piece)

    def looks_complete(self) -> bool:
        """Are the arguments whole as JSON?"""
        if self.complete_at[0] != len(self.arguments):
            try:
                json.loads("".join(self.arguments))
                self.complete_at = (len(self.arguments), True)
            except (ValueError, RecursionError):
                self.complete_at = (len(self.arguments), False)
        return self.complete_at[1]


class ToolCallReader:
    """Puts the parts together.

    A part belongs to the call of its `index`; where there is none, or all parts have the same, a new id or a name after
    complete arguments begins a new call. While a call isn't complete the following ones are held back.
    """

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._current = 0

    def feed(self, wire: Mapping[str, object]) -> Iterator[ToolCallDelta]:
        """What may be passed on, now that this part has come."""
        function = wire.get("function")
        function = function if isinstance(function, dict) else wire
        name, arguments = _word(function.get("name")), _arguments(function.get("arguments"))
        call = self._call_of(wire, name)
        if call is None:
            return
        call.id = call.id or _word(wire.get("id"))
        call.name = call.name or name
        if arguments:
            call.arguments.append(arguments)
        yield from self._ready()

    def flush(self) -> Iterator[ToolCallDelta]:
        """Everything that was held back; a call that never got a name is dropped."""
        for call in self._calls[self._current :]:
            yield from call.parts()

    def _ready(self) -> Iterator[ToolCallDelta]:
        while True:
            call = self._calls[self._current]
            yield from call.parts()
            if self._current + 1 == len(self._calls) or not call.looks_complete():
                return
            self._current += 1

    def _call_of(self, wire: Mapping[str, object], name: str) -> _Call | None:
        index, call_id = wire.get("index"), _word(wire.get("id"))
        index = index if isinstance(index, int) and not isinstance(index, bool) else None
        found = self._known(index, call_id, name)
        if found is not None or len(self._calls) == _MOST_CALLS:
            return found
        call = _Call(len(self._calls), index)
        self._calls.append(call)
        return call

    def _known(self, index: int | None, call_id: str, name: str) -> _Call | None:
        """The call that a part continues; None for the first part of another."""
        candidates = [call for call in self._calls if index is None or call.wire_index == index]
        if call_id:
            same = [call for call in candidates if call.id == call_id]
            if same:
                return same[-1]
            # An id that comes late belongs to the call that has none yet; some upstreams give each part another one.
            late = bool(candidates) and not candidates[-1].id
            return candidates[-1] if late or (candidates and index is not None and not name) else None
        if not candidates:
            # Arguments without a name continue what there is; a new index or a name begins something.
            return self._calls[-1] if self._calls and index is None and not name else None
        last = candidates[-1]
        begins = bool(name) and bool(last.name) and index is None and last.looks_complete()
        return None if begins else last


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""


def _arguments(value: object) -> str:
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return _word(value)
