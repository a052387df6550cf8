"""Ends an answer at a stop text or a token limit, for upstreams that can't do that.

It works on whole answers and on answers in parts.
"""

from collections.abc import Sequence

from app.domain.chat import FinishReason
from app.domain.chunking import boundary_before
from app.domain.tokens import BYTES_PER_TOKEN, utf8_size


class OutputLimiter:
    """Passes an answer on, part by part, up to the first stop text or the token limit.

    Args:
        stop: Texts that end the answer. Empty ones are ignored.
        max_tokens: The token limit, as counted by `tokens.estimate`; None for no limit.

    Attributes:
        finish_reason: Why the answer was cut; None if it wasn't.
        stopped_by: The stop text that ended it.
    """

    def __init__(self, stop: Sequence[str] = (), max_tokens: int | None = None) -> None:
        self._stop = tuple(text for text in stop if text)
        self._bytes_left = None if max_tokens is None else max_tokens * BYTES_PER_TOKEN
        self._held = ""
        self.finish_reason: FinishReason | None = None
        self.stopped_by: str | None = None

    def feed(self, text: str) -> str:
        """Take the next part, and return what may be shown by now. Once `finish_reason` is set, nothing more is."""
        if self.finish_reason is not None:
            return ""
        if not self._stop:
            return self._within_tokens(text)
        text = self._held + text
        found = self._stop_place(text)
        if found is None:
            ready = self._before_possible_stop(text)
            self._held = text[ready:]
            return self._within_tokens(text[:ready])
        self._held = ""
        place, self.stopped_by = found
        self.finish_reason = "stop"
        return self._within_tokens(text[:place])

    def finish(self) -> str:
        """End the answer, and return what was held back because a stop text might have begun there."""
        if self.finish_reason is not None:
            return ""
        held, self._held = self._held, ""
        return self._within_tokens(held)

    def _stop_place(self, text: str) -> tuple[int, str] | None:
        """The stop text that is complete first, where a model would have ended, with its place."""
        found = [(place + len(stop), place, stop) for stop in self._stop if (place := text.find(stop)) >= 0]
        return min(found)[1:] if found else None

    def _before_possible_stop(self, text: str) -> int:
        """The place from which on the text could be the beginning of a stop text."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for start in range(max(0, len(text) - longest), len(text)):
            if any(stop.startswith(text[start:]) for stop in self._stop):
                return boundary_before(text, start)
        return len(text)

    def _within_tokens(self, text: str) -> str:
        if self._bytes_left is None:
            return text
        size = utf8_size(text)
        if size <= self._bytes_left:
            self._bytes_left -= size
            return text
        fitting = text.encode("utf-8", "surrogatepass")[: self._bytes_left].decode("utf-8", "ignore")
        self.finish_reason = "length"
        self.stopped_by = None
        return text[: boundary_before(text, len(fitting))]
