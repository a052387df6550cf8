"""Writes a streamed answer for the playground: what clients of the API get, and what they can't see."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import ClassVar

from app.api.console.markdown import Node, tree_of
from app.api.console.sent_prompt import SentPrompt
from app.api.error_responses import openai_error_object
from app.api.openai.stream import ChunkEncoder
from app.api.wire.openai import usage_object
from app.chat.events import Ending, Event
from app.domain.chat import Completion, Delta, Extras, NativeEvent, ToolCallDelta
from app.domain.errors import GatewayError
from app.domain.json import json_bytes

# Longer answers stay plain: what is meant to be hard to read takes a second even so.
_LONGEST_RENDERED = 40_000


class MarkdownReading:
    """Reads the Markdown of a streamed answer, once it is whole.

    Attributes:
        tree: The answer's elements; None as long as they aren't known, or if it is too long.
    """

    def __init__(self) -> None:
        self.tree: Sequence[Node] | None = None

    async def follow(self, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        """Hand the events on. The tree is there before the ending is."""
        said: list[str] = []
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Delta) and not event.choice:
                    said.append(event.text + event.refusal)
                elif isinstance(event, Ending):
                    self.tree = await rendered("".join(said))
                yield event


class PlaygroundEncoder:
    """Writes one answer's events: `opening`, any number of `delta`, then `ending` or `failure`.

    Args:
        plain: Writes the same as clients get it; each event has that as its `raw`.
        sent: What the upstream got.
        snippets: The same request in other forms.
        reading: Has the answer's elements when it ends.
    """

    ping: ClassVar[bytes] = ChunkEncoder.ping

    def __init__(
        self, plain: ChunkEncoder, sent: SentPrompt, snippets: Mapping[str, str], reading: MarkdownReading
    ) -> None:
        self._plain = plain
        self._sent = sent
        self._snippets = snippets
        self._reading = reading

    def opening(self) -> bytes:
        """What the upstream got."""
        return _event("opening", self._plain.opening(), sent=self._sent, snippets=self._snippets)

    def text(self, text: str) -> bytes:
        """A piece of text."""
        return _event("delta", self._plain.text(text), text=text)

    def reasoning(self, text: str) -> bytes:
        """A piece of what is thought before the answer."""
        return _event("delta", self._plain.reasoning(text), thought=text)

    def refusal(self, text: str) -> bytes:
        """A piece of what is said in place of an answer."""
        return _event("delta", self._plain.refusal(text), text=text)

    def extras(self, text: str, extras: Extras) -> bytes:
        """A piece of text, and what the provider added to it."""
        return _event("delta", self._plain.extras(text, extras), text=text)

    def other_choice(self, delta: Delta) -> bytes:
        """A part of another answer: the playground asks for one only."""
        return _event("delta", self._plain.other_choice(delta))

    def native(self, events: Sequence[NativeEvent]) -> bytes:
        """A part in the dialect's own form: the playground hands no request on in it."""
        return _event("delta", self._plain.native(events))

    def tool_call(self, part: ToolCallDelta) -> bytes:
        """A part of a tool call; the ending has them whole."""
        return _event("delta", self._plain.tool_call(part))

    def ending(self, ending: Ending) -> bytes:
        """The answer once more, with its form."""
        completion = ending.completion
        return _event(
            "ending",
            self._plain.ending(ending),
            tree=self._reading.tree,
            calls=told_calls(completion),
            usage=usage_object(ending.usage),
            finish_reason=completion.finish_reason,
        )

    def failure(self, error: GatewayError) -> bytes:
        """What comes instead of the rest."""
        return _event("failure", self._plain.failure(error), error=openai_error_object(error))


async def rendered(text: str) -> Sequence[Node] | None:
    """An answer as a tree of elements; None if it is too long for that. On a thread: everybody else goes on."""
    return await asyncio.to_thread(tree_of, text) if len(text) <= _LONGEST_RENDERED else None


def told_calls(completion: Completion) -> list[dict[str, str]]:
    """The tools that an answer calls."""
    return [{"name": call.name, "arguments": call.arguments} for call in completion.tool_calls]


def _event(kind: str, raw: bytes, **fields: object) -> bytes:
    return b"data: " + json_bytes({"kind": kind, "raw": raw.decode(), **fields}) + b"\n\n"
