"""Reads an upstream's answers, whole or in chunks. Tolerant of every deviation that has been seen."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from msgspec.structs import replace

from app.domain.chat import Completion, Delta, Usage
from app.domain.errors import EmptyReply, MessageRefused, UnexpectedReply
from app.domain.message_shapes import MESSAGE_EXTRAS, THOUGHT_FIELDS, THOUGHT_PARTS, text_in, thoughts_in
from app.providers.api_upstream.reply import Json, Reader, gathered
from app.providers.api_upstream.vendor_words import usage_of
from app.providers.openai_compatible.tool_calls import ToolCallReader

_Kind = Literal["text", "reasoning", "refusal"]

# What vendors add to an answer, and clients want to see or to send back.
_EXTRAS = MESSAGE_EXTRAS | {"images", "audio"}
_THOUGHTS = frozenset(THOUGHT_FIELDS)
# Where tokens are counted, beside `usage`.
_COUNTS = frozenset({"usageMetadata", "usage_metadata", "x_groq", "token_usage"})
_FIELDS: Mapping[_Kind, str] = {"reasoning": "reasoning_content", "text": "content", "refusal": "refusal"}
# A shorter text may well come twice.
_REPEATABLE = 16
# A sum may be shorter by spaces, but by no more than this factor.
_SPACED = 2


@dataclass(slots=True)
class _Seen:
    """How much of an answer has arrived."""

    tool_calls: bool = False
    said: dict[_Kind, list[str]] = field(default_factory=lambda: {"text": [], "reasoning": [], "refusal": []})
    in_deltas: bool = False
    """Something came in a `delta`, so that a `message` sums up."""
    _counted: dict[_Kind, tuple[int, int]] = field(default_factory=dict)

    def size(self, kind: _Kind) -> int:
        """The characters of one kind. Counted when somebody asks, and each part once."""
        parts = self.said[kind]
        counted, size = self._counted.get(kind, (0, 0))
        size += sum([len(part) for part in parts[counted:]])
        self._counted[kind] = (len(parts), size)
        return size


class ReplyReader(Reader):
    """Turns the chunks of one answer into deltas.

    Args:
        name: The upstream, for error messages.
        max_characters: Longer answers are refused.
    """

    def __init__(self, name: str, max_characters: int) -> None:
        super().__init__(name, max_characters)
        self._calls = ToolCallReader(name)
        self._within_call = False
        self._behind_call: list[Delta] = []
        self._seen = _Seen()

    def feed(self, document: Json) -> list[Delta]:
        """The deltas of a chunk, or of a whole completion.

        Raises:
            UpstreamUnavailable: The upstream has aborted its answer.
            UnexpectedReply: The answer is too long, or its tool calls make no sense.
        """
        deltas: list[Delta] = []
        usage = document.get("usage")
        choice = _first_choice(document)
        if choice is not None:
            reason = choice.get("finish_reason") if "finish_reason" in choice else _reason_elsewhere(choice)
            usage = usage or choice.get("usage")
            delta, message = choice.get("delta"), choice.get("message")
            if isinstance(delta, dict) and (delta or choice.get("logprobs")):
                at_end = bool(reason) or self._finish_reason is not None
                deltas = [] if at_end and self._repeats(delta) else self._deltas(delta, choice)
            if message and isinstance(message, dict):
                deltas += self._summary(message, choice)
                reason = reason or (None if self._seen.in_deltas else "stop")
            if deltas and self._finish_reason is not None:
                self._went_on = True
            if reason:
                self._finish(reason)
        if usage or not _COUNTS.isdisjoint(document):
            self.usage = usage_of(usage) or _usage_elsewhere(document) or self.usage
        return self._in_order(deltas) if self._seen.tool_calls else deltas

    def _in_order(self, deltas: list[Delta]) -> list[Delta]:
        """What comes within a call, behind it: most dialects can't go on with a call after something else."""
        if self._within_call and (len(deltas) != 1 or deltas[0].tool_call is None):
            self._behind_call += [delta for delta in deltas if delta.tool_call is None]
            deltas = [delta for delta in deltas if delta.tool_call is not None]
        self._within_call = self._calls.within_call
        if not self._within_call and self._behind_call:
            deltas += self._behind_call
            self._behind_call = []
        return deltas

    def end(self) -> Iterator[Delta]:
        """The deltas after the last chunk; the very last one ends the answer.

        Raises:
            EmptyReply: The answer is empty.
            MessageRefused: The answer is empty because of a content filter.
            UnexpectedReply: Its tool calls make no sense.
        """
        reason = self._finish_reason or "stop"
        for part in self._calls.flush(cut=reason in ("length", "content_filter")):
            yield Delta(tool_call=part)
        yield from self._behind_call
        calls = self._seen.tool_calls and self._calls.has_named
        if calls and reason == "stop":
            reason = "tool_calls"
        if not self._characters and not calls:
            if reason == "content_filter":
                raise MessageRefused(f"{self._name}'s content filter removed the whole answer.", param="messages")
            if reason != "length":
                raise EmptyReply(f"{self._name} sent an empty answer.")
        yield Delta(finish_reason=reason, usage=self.usage)

    def _deltas(self, said: Json, choice: Json, *, whole: bool = False) -> list[Delta]:
        self._seen.in_deltas = self._seen.in_deltas or not whole
        deltas = [delta for kind, text in _texts(said) if text and (delta := self._part(kind, text))]
        if not _EXTRAS.isdisjoint(said) or choice.get("logprobs"):
            _add_extras(deltas, said, choice)
        calls = _tool_calls(said)
        if calls:
            self._seen.tool_calls = True
            before = self._calls.size
            parts = self._calls.feed_whole(calls) if whole else self._calls.feed(calls)
            deltas += [Delta(tool_call=part) for part in parts]
            # Those that are held back count, too.
            self._bound(self._calls.size - before)
        return deltas

    def _summary(self, message: Json, choice: Json) -> list[Delta]:
        """What is new in a whole message: after deltas it sums them up."""
        if not self._characters and not self._seen.tool_calls:
            return self._deltas(message, choice, whole=True)
        news: dict[str, object] = {"tool_calls": message.get("tool_calls")}
        texts = _texts(message)
        for kind, key in _FIELDS.items():
            whole = "".join([text for of_kind, text in texts if of_kind == kind])
            if whole:
                news[key] = self._new_in(kind, whole)
        if not self._seen.in_deltas:
            news |= {name: message[name] for name in _EXTRAS & message.keys()}
        return self._deltas(news, {}, whole=True)

    def _new_in(self, kind: _Kind, whole: str) -> str:
        # What is much shorter doesn't sum up what was said, and looking at all of that each time would take too long.
        if len(whole) * _SPACED < self._seen.size(kind):
            return self._differing(kind, whole)
        said = "".join(self._seen.said[kind])
        if whole.startswith(said):
            return whole[len(said) :]
        signs = len("".join(said.split()))
        if "".join(whole.split()).startswith("".join(said.split())):
            # The same but for spaces.
            places = [place for place, character in enumerate(whole) if not character.isspace()]
            return whole[places[signs] :] if signs < len(places) else ""
        return self._differing(kind, whole)

    def _differing(self, kind: _Kind, whole: str) -> str:
        if not self._seen.in_deltas:
            return whole  # an upstream that says `message` for `delta`
        self._warn("upstream.summary_differs", of=kind)
        return ""

    def _repeats(self, delta: Json) -> bool:
        """Whether a delta at the end is the whole text once more."""
        said, content = self._seen.said["text"], delta.get("content")
        return (
            isinstance(content, str)
            and len(content) >= _REPEATABLE
            and len(said) > 1
            and len(content) == self._seen.size("text")
            and content == "".join(said)
            and not delta.get("tool_calls")
        )

    def _part(self, kind: _Kind, text: str) -> Delta | None:
        # Nearly all is ASCII, or at least free of halves: those that aren't cost a call more.
        if self._halves or not text.isascii():
            text = self._whole_pairs(kind, text)
            if not text:
                return None
        self._bound(len(text))
        self._seen.said[kind].append(text)
        if kind == "text":
            return Delta(text)
        return Delta(reasoning=text) if kind == "reasoning" else Delta(refusal=text)


class ChoicesReader(ReplyReader):
    """Turns the chunks of several answers at a time into deltas, each with its choice; for the rest as `ReplyReader`.

    Args:
        wanted: How many answers there may be.
    """

    def __init__(self, name: str, max_characters: int, wanted: int) -> None:
        super().__init__(name, max_characters)
        self._others = {index: ReplyReader(name, max_characters) for index in range(1, wanted)}
        self._begun: set[int] = set()

    @property
    def size(self) -> int:
        """The characters of all answers so far."""
        return super().size + sum([other.size for other in self._others.values()])

    def feed(self, document: Json) -> list[Delta]:
        """The deltas of a chunk, or of whole completions."""
        deltas = super().feed(document)
        choices = document.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            index = choice.get("index") if isinstance(choice, dict) else None
            if isinstance(index, int) and index in self._others:
                self._begun.add(index)
                parts = self._others[index].feed({"choices": [{**choice, "index": 0}]})
                deltas += [replace(part, choice=index) for part in parts]
        return deltas

    def end(self) -> Iterator[Delta]:
        """The deltas after the last chunk; an answer but the first may be empty."""
        for index in sorted(self._begun):
            try:
                yield from [replace(part, choice=index, usage=None) for part in self._others[index].end()]
            except (EmptyReply, MessageRefused):
                yield Delta(finish_reason=self._others[index].finish_reason or "stop", choice=index)
        yield from super().end()


def read_completion(document: Json, name: str, max_characters: int, wanted: int = 1) -> Completion:
    """The completion that a whole answer contains.

    Raises:
        UnexpectedReply: It has no choice, or is too long.
        GatewayError: As `ReplyReader`.
    """
    if _first_choice(document) is None:
        raise UnexpectedReply(f"The answer from {name} is not a chat completion.")
    reader = reader_for(name, max_characters, wanted)
    return gathered([*reader.feed(document), *reader.end()])


def reader_for(name: str, max_characters: int, wanted: int) -> ReplyReader:
    """A reader of so many answers at a time."""
    return ReplyReader(name, max_characters) if wanted == 1 else ChoicesReader(name, max_characters, wanted)


def _first_choice(document: Json) -> Json | None:
    choices = document.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("index", 0) in (0, None, "0"):
            return choice
    return None


def _reason_elsewhere(choice: Json) -> object:
    """The finish reason of an upstream that has another name for it."""
    return choice.get("finishReason") or choice.get("stop_reason")


def _texts(said: Json) -> list[tuple[_Kind, str]]:
    """What is thought, said and refused, in this order, or in that of the content's parts."""
    texts: list[tuple[_Kind, str]] = []
    thought = said.get("reasoning_content") or said.get("reasoning")
    if thought and isinstance(thought, str):
        texts.append(("reasoning", thought))
    elif not _THOUGHTS.isdisjoint(said):
        texts.append(("reasoning", thoughts_in(said)))
    content = said.get("content")
    if isinstance(content, str):
        texts.append(("text", content))
    elif isinstance(content, list):
        texts += [_of_part(part) for part in content]
    elif content:
        texts.append(_of_part(content))
    if refusal := said.get("refusal"):
        texts.append(("refusal", text_in(refusal)))
    return texts


def _of_part(part: object) -> tuple[_Kind, str]:
    kind = part.get("type") if isinstance(part, dict) else None
    if (isinstance(kind, str) and kind in THOUGHT_PARTS) or (isinstance(part, dict) and part.get("thought") is True):
        return "reasoning", text_in(part)
    return ("refusal" if kind == "refusal" else "text"), text_in(part)


def _add_extras(deltas: list[Delta], said: Json, choice: Json) -> None:
    """Add what the vendor added to the last of the deltas, whose text it may be about."""
    extras = {name: said[name] for name in _EXTRAS & said.keys() if said[name]}
    logprobs = choice.get("logprobs")
    if isinstance(logprobs, dict) and any(logprobs.values()):
        extras["logprobs"] = logprobs
    if extras:
        last = deltas.pop() if deltas else Delta()
        deltas.append(replace(last, extras=extras))


def _tool_calls(delta: Json) -> list[Json]:
    calls = delta.get("tool_calls")
    if isinstance(calls, dict):
        calls = [calls]
    if isinstance(calls, list) and calls:
        return [call for call in calls if isinstance(call, dict)]
    legacy = delta.get("function_call")
    return [{"index": 0, "function": legacy}] if isinstance(legacy, dict) else []


def _usage_elsewhere(document: Json) -> Usage | None:
    places = [document.get(name) for name in _COUNTS]
    places += [place.get("usage") for place in places if isinstance(place, dict)]
    return next((usage for place in places if (usage := usage_of(place))), None)
