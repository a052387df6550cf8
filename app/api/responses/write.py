"""One response on its way: made of the answer, kept before its end is told, and written."""

from collections.abc import Sequence
from typing import Any

from app.api.responses.items import Placed, kept_items
from app.api.responses.kept import KeptResponses
from app.api.responses.output import Output, ResponseDraft
from app.api.responses.stream import ResponseEncoder
from app.api.responses.toolbox import Toolbox
from app.chat.events import Answer, Ending, Opening
from app.domain.json import json_bytes


class PendingResponse:
    """A response that waits for its answer.

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
        self._response: dict[str, Any] = {}
        self._is_stored = False

    async def keep(self, ending: Ending) -> None:
        """Make the response of the answer, and keep it if the request wants that."""
        self._response = self._document(ending)
        if self._draft.store:
            items = kept_items(self._items, self._draft.id)
            self._is_stored = await self._kept.keep(self._caller_id, self._response, items)

    def write(self, answers: Sequence[Answer]) -> bytes:
        """Write the response that `keep` has made, or the answer as it is shown if there is a notice below it."""
        ending = answers[-1].ending
        response = self._document(ending) if ending.notice else self._response
        return json_bytes(response | {"store": self._is_stored})

    def encoder(self, _: Opening) -> ResponseEncoder:
        """The encoder of a streamed response."""
        return ResponseEncoder(self._draft, self._toolbox, is_stored=lambda: self._is_stored)

    def _document(self, ending: Ending) -> dict[str, Any]:
        output = Output(self._draft.id, self._toolbox)
        output.add_all(ending.completion)
        return self._draft.ended(output, ending, stored=True)
