"""Puts the events of a message in order: one block after the other, each with its beginning and its end. Pure."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from app.domain.errors import UnexpectedReply
from app.domain.json import json_bytes, object_text, read_json_object
from app.providers.api_upstream.call_ids import CallIds
from app.providers.api_upstream.reply import Json

# What a piece is a piece of, where its block has no beginning.
_KINDS: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "text_delta": {"type": "text", "text": ""},
        "citations_delta": {"type": "text", "text": ""},
        "thinking_delta": {"type": "thinking", "thinking": "", "signature": ""},
        "signature_delta": {"type": "thinking", "thinking": "", "signature": ""},
    }
)
# Blocks that may be broken off for another one, and go on behind it as a block more.
_GIVE_WAY = frozenset({"text", "thinking", "redacted_thinking"})
# They are all taken in one go, during which nobody else has a turn.
_MOST_WAITING = 10_000
_NOWHERE = object()


class BlockOrder:
    """Gives the events of one message the order that Anthropic's have, and that clients rely on.

    Upstreams that imitate the API leave out beginnings and ends, number their blocks as they like, write several at a
    time, tell a call's input with its beginning, or give two calls one id. A call is passed on without anything in
    between: what comes of other blocks meanwhile waits for its end.

    Args:
        name: The upstream, for error messages.

    Attributes:
        here: The index of pieces that need no change.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.here: object = _NOWHERE
        self._is_open = False
        # The open block: what the upstream calls it, its kind, and the input that came with its beginning.
        self._index: object = None
        self._kind = ""
        self._input = ""
        self._begun = 0
        self._ids = CallIds("toolu_")
        self._held = 0
        self._waiting: OrderedDict[object, list[Json]] = OrderedDict()

    def ordered(self, kind: object, document: Json) -> Iterator[Json]:
        """The events to take for one that has come.

        Raises:
            UnexpectedReply: A call has no name, or a piece belongs to none.
        """
        if kind in ("message_delta", "message_stop"):
            yield from self.rest()
        yield from self._one(kind, document)
        while self._waiting and not self._is_open:
            yield from self._next_waiting()

    def rest(self) -> Iterator[Json]:
        """The end of the open block, and everything that waits."""
        yield from self._end()
        while self._waiting:
            yield from self._next_waiting()
            yield from self._end()

    def _next_waiting(self) -> Iterator[Json]:
        documents = self._waiting.popitem(last=False)[1]
        self._held -= len(documents)
        for document in documents:
            yield from self._one(document.get("type"), document)

    def _one(self, kind: object, document: Json) -> Iterator[Json]:
        if kind not in ("content_block_start", "content_block_delta", "content_block_stop"):
            yield document
            return
        index = document.get("index")
        index = index if isinstance(index, int | str) else None
        is_elsewhere = self._is_open and index is not None and index != self._index
        if is_elsewhere and self._kind not in _GIVE_WAY:
            self._wait(index, document)
        elif kind == "content_block_start":
            block = document.get("content_block")
            if isinstance(block, dict) and isinstance(block.get("type"), str):
                yield from self._begin(index, block, document)
        elif kind == "content_block_delta":
            delta = document.get("delta")
            if isinstance(delta, dict) and isinstance(delta.get("type"), str):
                yield from self._piece(index, delta, document, is_elsewhere=is_elsewhere)
        elif not is_elsewhere:
            yield from self._end(document)

    def _wait(self, index: object, document: Json) -> None:
        self._held += 1
        if self._held > _MOST_WAITING:
            raise UnexpectedReply(f"{self._name} sent too many content blocks at a time.")
        self._waiting.setdefault(index, []).append(document)

    def _begin(self, index: object, block: dict[str, object], document: Json) -> Iterator[Json]:
        yield from self._end()
        self._is_open, self._index, self._kind, self._input = True, index, str(block.get("type")), ""
        if self._kind == "tool_use":
            name, given, call_id = block.get("name"), block.get("input"), block.get("id")
            if not isinstance(name, str) or not name:
                raise UnexpectedReply(f"{self._name} sent a tool call without a name.")
            if given:
                self._input = input_text(given)
            unique = self._ids.unique(call_id)
            if given != {} or unique != call_id:
                document = {**document, "content_block": {**block, "id": unique, "input": {}}}
        elif self._kind in ("text", "thinking") and not isinstance(block.get(self._kind), str):
            document = {**document, "content_block": {**block, self._kind: ""}}
        number, self._begun = self._begun, self._begun + 1
        if index == number and not self._input:
            self.here = index
        yield _numbered(document, number)

    def _piece(self, index: object, delta: dict[str, object], document: Json, *, is_elsewhere: bool) -> Iterator[Json]:
        if not self._is_open or is_elsewhere:
            kind = str(delta["type"])
            if kind == "input_json_delta" and delta.get("partial_json") not in (None, "", "{}"):
                raise UnexpectedReply(f"{self._name} sent a part of a tool call that belongs to none.")
            block = _KINDS.get(kind)
            if block is None:
                return
            yield from self._begin(index, dict(block), {"type": "content_block_start", "content_block": block})
        if delta.get("partial_json"):
            self._input = ""
        yield _numbered(document, self._begun - 1)

    def _end(self, document: Json | None = None) -> Iterator[Json]:
        if not self._is_open:
            return
        number = self._begun - 1
        if self._input:
            whole = {"type": "input_json_delta", "partial_json": self._input}
            yield {"type": "content_block_delta", "index": number, "delta": whole}
        self._is_open, self.here = False, _NOWHERE
        yield _numbered(document or {"type": "content_block_stop"}, number)


def well_formed(message: Json) -> Json:
    """A whole message with blocks that clients can read: the same message, if they are."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    ids = CallIds("toolu_")
    blocks = [_well_formed(block, ids) for block in content if _is_block(block)]
    if len(blocks) == len(content) and all(map(_is_same, blocks, content)):
        return message
    return {**message, "content": blocks}


def _is_same(one: object, other: object) -> bool:
    return one is other


def _is_block(block: object) -> bool:
    if not isinstance(block, dict) or not isinstance(block.get("type"), str):
        return False
    return block["type"] != "text" or isinstance(block.get("text"), str)


def _well_formed(block: dict[str, object], ids: CallIds) -> dict[str, object]:
    if block["type"] != "tool_use":
        return block
    given, call_id = block.get("input"), ids.unique(block.get("id"))
    if isinstance(given, dict) and call_id == block.get("id"):
        return block
    if given is None or isinstance(given, str):
        text = object_text(given or "")
        given = given if text is None else read_json_object(text.encode("utf-8", "replace"))
    return {**block, "id": call_id, "input": given}


def input_text(given: object) -> str:
    """A call's input as the text of a JSON object, if it is one: some upstreams send it as a text."""
    text = given if isinstance(given, str) else json_bytes(given or {}).decode()
    return object_text(text) or text


def _numbered(document: Json, number: int) -> Json:
    return document if document.get("index") == number else {**document, "index": number}
