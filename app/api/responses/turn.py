"""One response on its way: answered, and kept before its end is told."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from app.api.bodies import naming_fields
from app.api.responses.convert import FIELD_NAMES
from app.api.responses.items import Placed, kept_items
from app.api.responses.kept import KeptResponses
from app.api.responses.output import Output, ResponseDraft
from app.api.responses.sse import ResponseEncoder
from app.api.responses.tools import Toolbox
from app.chat.events import Answer, Ending, Event
from app.domain.chat import Delta


class ResponseTurn:
    """Makes a response of an answer.

    Args:
        draft: What is known of the response.
        items: The conversation that it answers.
        toolbox: What the request says about tools.
        kept: Where responses are kept.
        caller_id: For whom.
    """

    def __init__(
        self, draft: ResponseDraft, *, items: Sequence[Placed], toolbox: Toolbox, kept: KeptResponses, caller_id: str
    ) -> None:
        self._draft = draft
        self._items = items
        self._toolbox = toolbox
        self._kept = kept
        self._caller_id = caller_id
        self._is_stored = False

    async def whole(self, answer: Answer) -> dict[str, Any]:
        """The response to a call that wasn't streamed."""
        output = Output(self._draft.id, self._toolbox)
        output.add_answer(answer)
        response = await self._end(output, answer.ending)
        return response | {"store": self._is_stored}

    async def streamed(self, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        """The events of a call. When the ending is told, the response has been kept: so a reader who is slower than the
        call, or leaves while its text is typed out, loses nothing."""
        output = Output(self._draft.id, self._toolbox)
        with naming_fields(FIELD_NAMES):
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, Delta):
                        output.add(event)
                    elif isinstance(event, Ending):
                        await self._end(output, event)
                    yield event

    def encoder(self) -> ResponseEncoder:
        """Writes the events."""
        return ResponseEncoder(self._draft, self._toolbox, is_stored=lambda: self._is_stored)

    async def _end(self, output: Output, ending: Ending) -> dict[str, Any]:
        output.close()
        response = self._draft.ended(output, ending, stored=True)
        if self._draft.store:
            items = kept_items(self._items, self._draft.id)
            self._is_stored = await self._kept.keep(self._caller_id, response, items)
        return response
