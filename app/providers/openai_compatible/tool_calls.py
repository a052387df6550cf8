"""Tool calls from their parts, however an upstream numbers them, passed on one call after the other. Pure."""

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
    """How many pieces of the arguments have been passed on."""
    begun: bool = False
    complete_at: tuple[int, bool] = (-1, False)
    """The result of the last `looks_complete`, and how many pieces there were then."""

    def parts(self) -> Iterator[ToolCallDelta]:
        """What has arrived and not been passed on. Nothing before the name is known."""
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
        """Whether the arguments so far are complete JSON."""
        if self.complete_at[0] != len(self.arguments):
            try:
                json.loads("".join(self.arguments))
                self.complete_at = (len(self.arguments), True)
            except (ValueError, RecursionError):
                self.complete_at = (len(self.arguments), False)
        return self.complete_at[1]


class ToolCallReader:
    """Assembles calls from their parts.

    A part belongs to the call with its `index`. Without an index, or if all parts have the same, a new id begins a new
    call, and so does a name after complete arguments. While a call is incomplete, later ones are held back.
    """

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._current = 0

    def feed(self, wire: Mapping[str, object]) -> Iterator[ToolCallDelta]:
        """What can be passed on after this part."""
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
        """Everything that was held back. A call that never got a name is dropped."""
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
        """The call that a part continues; None if it begins a new one."""
        candidates = [call for call in self._calls if index is None or call.wire_index == index]
        if call_id:
            same = [call for call in candidates if call.id == call_id]
            if same:
                return same[-1]
            # A late id belongs to the call that has none yet. Some upstreams give each part of a call a different id.
            late = bool(candidates) and not candidates[-1].id
            return candidates[-1] if late or (candidates and index is not None and not name) else None
        if not candidates:
            # Arguments without a name continue the last call; a new index or a name begins one.
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
