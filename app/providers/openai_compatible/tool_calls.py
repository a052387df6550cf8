"""Tool calls from their parts, however an upstream numbers them, passed on one call after the other. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from app.domain.chat import ToolCallDelta
from app.domain.errors import UnexpectedReply
from app.domain.json import object_text
from app.domain.message_shapes import CALL_EXTRAS
from app.domain.surrogates import whole_pairs
from app.providers.api_upstream.call_ids import CallIds
from app.providers.api_upstream.object_end import ObjectEnd

Wire = Mapping[str, object]

_MOST_CALLS = 128
# Spaces around an empty object included.
_LONGEST_BARE = 1000
_LONGEST_INDEX = 9


@dataclass(slots=True)
class _Call:
    index: int
    wire_index: int | None
    wire_id: str = ""
    id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)
    size: int = 0
    """Of all pieces together."""
    extras: dict[str, object] | None = None
    """Not passed on yet."""
    told: int = 0
    """How many pieces of the arguments have been passed on."""
    begun: bool = False
    half: str = ""
    """Of a character whose other half is to come with the next piece."""
    end: ObjectEnd = field(default_factory=ObjectEnd)
    whole: str | None = None
    """The arguments, joined when they were complete, if they could be read then."""
    complete_at: int = -1
    """How many pieces there were when `whole` was read."""
    value: object = None
    """What `whole` means, once somebody has asked."""

    @property
    def arguments(self) -> str:
        """All pieces together. Not to be asked for after each of them: that would take a time that grows with their
        square."""
        return "".join(self.pieces)

    @property
    def is_complete(self) -> bool:
        """Whether the arguments so far are a whole object."""
        if not self.end.is_over:
            return False
        if self.complete_at < 0:
            self.complete_at = len(self.pieces)
            text = self.arguments
            self.whole = text if object_text(text) is not None else None
        return self.whole is not None

    @property
    def is_bare(self) -> bool:
        """Whether the arguments are an empty object that nobody has been told of: some begin with one."""
        if self.told or not self.is_complete or self.whole is None:
            return False
        return len(self.whole) <= _LONGEST_BARE and self.whole.strip() == "{}"

    def add(self, arguments: str) -> None:
        """Add a piece to the arguments."""
        if self.half or not arguments.isascii():
            arguments, self.half = whole_pairs(self.half + arguments)
        arguments = self.end.feed(arguments)
        self.pieces.append(arguments)
        self.size += len(arguments)

    def begin_anew(self) -> None:
        """Forget the arguments."""
        self.pieces.clear()
        self.size = 0
        self.end, self.whole, self.complete_at, self.value, self.half = ObjectEnd(), None, -1, None, ""

    def repeats(self, arguments: str) -> bool:
        """Whether these are the whole arguments once more."""
        return _begins(arguments) and self.is_complete and self.means(arguments)

    def means(self, arguments: str) -> bool:
        """Whether the complete arguments are the same object as these."""
        if self.whole is None or arguments == self.whole:
            return self.whole is not None
        other = object_text(arguments)
        if other is None:
            return False
        if self.value is None:
            self.value = json.loads(object_text(self.whole) or "{}")
        return bool(json.loads(other) == self.value)

    def could_be(self, arguments: str) -> bool:
        """Whether the incomplete arguments are nothing yet, or the same text as these."""
        return not self.size or (self.size == len(arguments) and self.arguments == arguments)

    def goes_on_as(self, arguments: str) -> bool:
        """Whether these begin with the arguments so far."""
        return self.size <= len(arguments) and arguments.startswith(self.arguments)

    def parts(self, *, ended: bool) -> Iterator[ToolCallDelta]:
        """What has arrived and not been passed on. Nothing before the name is known."""
        if not self.name:
            return
        news = self._news(ended=ended)
        extras, self.extras = self.extras, None
        if not self.begun:
            self.begun = True
            yield ToolCallDelta(self.index, self.id, self.name, news, extras)
        elif news or extras:
            yield ToolCallDelta(self.index, arguments=news, extras=extras)

    def _news(self, *, ended: bool) -> str:
        """The next piece of the arguments; what doesn't look like an object is put right when it is all there."""
        if self.told:
            news = "".join(self.pieces[self.told :])
        else:
            if not ended and (not self.end.begins or self.is_bare):
                return ""
            news = self.arguments.lstrip()
            if news[:1] != "{":
                news = object_text(news) or "{}"
        self.told = len(self.pieces) or 1
        return news


class ToolCallReader:
    """Assembles calls from their parts.

    Which part belongs to which call is told by index, id and name together: a part with neither id nor name continues a
    call; an id that isn't known begins one, unless it comes in the middle of the arguments; a name begins one after
    complete arguments, or if it is another name. While a call is incomplete, later ones are held back. No two calls
    have the same id: the first one keeps it.

    Args:
        upstream: Its name, for error messages.

    Attributes:
        size: The characters of all arguments so far, passed on or not.
    """

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._calls: list[_Call] = []
        self._ids = CallIds("call_")
        self.size = 0
        self._current = 0

    @property
    def has_named(self) -> bool:
        """Whether any call has a name: one without is no call."""
        return any(call.name for call in self._calls)

    @property
    def within_call(self) -> bool:
        """Whether a call has begun whose arguments are still to come."""
        call = self._calls[self._current] if self._current < len(self._calls) else None
        return call is not None and call.begun and not call.is_complete

    def feed(self, parts: Sequence[Wire]) -> Iterator[ToolCallDelta]:
        """What can be passed on after these parts, which came together and belong to different calls.

        Raises:
            UnexpectedReply: There are too many calls.
        """
        touched: list[_Call] = []
        for wire in parts:
            call_id, name, arguments = _read(wire)
            index = _index(wire.get("index"))
            call = self._continued(index, call_id, name, arguments, touched) or self._begin(index)
            touched.append(call)
            self._add(call, wire)
        yield from self._ready()

    def feed_whole(self, calls: Sequence[Wire]) -> Iterator[ToolCallDelta]:
        """What is new in whole calls: those that came in parts before are not passed on again.

        Raises:
            UnexpectedReply: There are too many calls.
        """
        known = list(self._calls)
        for wire in calls:
            call = _find(known, *_read(wire))
            if call is None:
                self._add(self._begin(None), wire)
                continue
            known.remove(call)
            arguments = _read(wire)[2]
            if not call.is_complete and call.goes_on_as(arguments):
                self._add_arguments(call, arguments[call.size :])
        yield from self._ready()

    def flush(self, *, cut: bool) -> Iterator[ToolCallDelta]:
        """Everything that was held back.

        Args:
            cut: The answer was cut off, so its last call may well be incomplete.

        Raises:
            UnexpectedReply: Something belongs to no call, or the arguments of one are no object.
        """
        for call in self._calls:
            arguments = call.arguments
            if not call.name and arguments.strip():
                raise UnexpectedReply(f"{self._upstream} sent a part of a tool call that belongs to none.")
            if call.index >= self._current:
                self._name(call)
                yield from call.parts(ended=True)
            if not cut and object_text(arguments) is None:
                raise UnexpectedReply(f"{self._upstream} sent a tool call whose arguments are not a JSON object.")

    def _add(self, call: _Call, wire: Wire) -> None:
        call_id, name, arguments = _read(wire)
        call.wire_id = call.wire_id or call_id
        call.name = call.name or name
        if (arguments.strip() or not call.is_complete) and arguments and not call.repeats(arguments):
            if call.is_bare and _begins(arguments):
                call.begin_anew()
            self._add_arguments(call, arguments)
        if not CALL_EXTRAS.isdisjoint(wire):
            added = {key: wire[key] for key in CALL_EXTRAS & wire.keys() if wire[key] is not None}
            call.extras = {**(call.extras or {}), **added} or None

    def _add_arguments(self, call: _Call, arguments: str) -> None:
        call.add(arguments)
        self.size += len(arguments)

    def _ready(self) -> Iterator[ToolCallDelta]:
        while self._current < len(self._calls):
            call = self._calls[self._current]
            is_last = self._current + 1 == len(self._calls)
            is_done = not is_last and call.is_complete
            self._name(call)
            yield from call.parts(ended=is_done)
            if not is_done:
                return
            self._current += 1

    def _name(self, call: _Call) -> None:
        """Give the call its id, which is told with its name."""
        if call.name and not call.id:
            call.id = self._ids.unique(call.wire_id)

    def _begin(self, index: int | None) -> _Call:
        if len(self._calls) == _MOST_CALLS:
            raise UnexpectedReply(f"{self._upstream} sent more than {_MOST_CALLS} tool calls.")
        call = _Call(len(self._calls), index)
        self._calls.append(call)
        return call

    def _continued(
        self, index: int | None, call_id: str, name: str, arguments: str, touched: Sequence[_Call]
    ) -> _Call | None:
        """The call that a part continues; None if it begins a new one."""
        here = [call for call in self._calls if index is None or call.wire_index == index]
        last = here[-1] if here else None
        if call_id:
            same = [call for call in here if call.wire_id == call_id]
            if same:
                return None if name and _is_another(same[-1], name, arguments, touched) else same[-1]
            return self._by_id(last, call_id, name, arguments, at_index=index is not None)
        if name:
            return None if last is None or _is_another(last, name, arguments, touched) else last
        return self._nameless(last, arguments)

    def _by_id(self, last: _Call | None, call_id: str, name: str, arguments: str, *, at_index: bool) -> _Call | None:
        """The call that a part continues whose id isn't known at its index."""
        goes_on = bool(arguments) and not _begins(arguments)
        elsewhere = next((call for call in reversed(self._calls) if call.wire_id == call_id), None)
        if elsewhere is not None:
            # Under a wrong index. With a name it is a call that has the same id.
            return elsewhere if not name or (goes_on and not elsewhere.is_complete) else None
        if last is None or last.is_complete:
            return None
        if not last.wire_id and (not name or name == last.name or not last.name):
            return last  # a late id
        # Some upstreams give each part of a call a different id.
        return last if (not name and at_index) or (goes_on and bool(last.pieces)) else None

    def _nameless(self, last: _Call | None, arguments: str) -> _Call | None:
        """The call that a part continues which has neither id nor name."""
        if last is not None and (not last.is_complete or last.is_bare or last.repeats(arguments)):
            return last
        if not arguments.strip():
            return last or (self._calls[-1] if self._calls else None)
        unfinished = [call for call in self._calls if not call.is_complete]
        if unfinished and not (_begins(arguments) and unfinished[-1].pieces):
            return unfinished[-1]
        return None


def _is_another(call: _Call, name: str, arguments: str, touched: Sequence[_Call]) -> bool:
    """Whether a part with a name is about another call than this one, which has its index or its id."""
    if not call.name:
        return False
    if name != call.name or any(call is other for other in touched):
        return True
    return call.is_complete and _begins(arguments) and not call.repeats(arguments)


def _find(known: Sequence[_Call], call_id: str, name: str, arguments: str) -> _Call | None:
    """The call that a whole one repeats."""
    for call in known:
        if name not in (call.name, ""):
            continue
        if call.means(arguments) if call.is_complete else call.could_be(arguments):
            return call
    return next((call for call in known if call_id and call.wire_id == call_id and call.goes_on_as(arguments)), None)


def _read(wire: Wire) -> tuple[str, str, str]:
    """The id, the name and the arguments of a part."""
    function = wire.get("function")
    function = function if isinstance(function, dict) else wire
    call_id = wire.get("id")
    call_id = str(call_id) if isinstance(call_id, int) else _word(call_id)
    return call_id, _word(function.get("name")), _arguments(function.get("arguments"))


def _index(value: object) -> int | None:
    if isinstance(value, str) and len(value) <= _LONGEST_INDEX and value.isascii() and value.isdigit():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _begins(arguments: str) -> bool:
    return arguments.lstrip()[:1] == "{"


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""


def _arguments(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)
