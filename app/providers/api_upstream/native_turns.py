"""The turns of a request that is sent on in the form in which it came. Pure."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import is_

from msgspec import Raw

from app.domain.chat import Message, NativeRequest, NativeTurn
from app.domain.json import lenient_json_bytes

# Writes messages that the gateway has added or changed.
Write = Callable[[Sequence[Message]], Iterable[object]]


def own_messages(native: NativeRequest) -> set[int]:
    """The client's own messages, by identity: an equal one that was remembered is another."""
    return {id(message) for turn in native.turns for message in turn.messages}


def turns_as_they_came(messages: Sequence[Message], native: NativeRequest, write: Write) -> Iterator[Raw]:
    """The messages: the client's own as they came, others between them."""
    places = {id(turn.messages[0]): place for place, turn in enumerate(native.turns) if turn.messages}
    others: list[Message] = []
    at = 0
    while at < len(messages):
        place = places.get(id(messages[at]))
        if place is None or not _is_at(native.turns[place], messages, at):
            others.append(messages[at])
            at += 1
            continue
        yield from _written(others, write)
        others = []
        at += len(native.turns[place].messages)
        yield native.turns[place].wire
        # What nobody here could make anything of stays where it was.
        for turn in native.turns[place + 1 :]:
            if turn.messages:
                break
            yield turn.wire
    yield from _written(others, write)


def _is_at(turn: NativeTurn, messages: Sequence[Message], at: int) -> bool:
    found = messages[at : at + len(turn.messages)]
    return len(found) == len(turn.messages) and all(map(is_, turn.messages, found))


def _written(messages: list[Message], write: Write) -> Iterator[Raw]:
    yield from [Raw(lenient_json_bytes(turn)) for turn in write(messages)]
