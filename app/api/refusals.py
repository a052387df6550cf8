"""What is told to the ledger of requests that never became calls."""

from collections.abc import Callable, Mapping, Sequence

from cachetools import TTLCache

from app.api.request import RequestContext
from app.domain.errors import ClientClosedRequest
from app.domain.usage import CallRecord, Origin, refused

_MOST_KEYS = 10_000
_SHUT_OUT_SECONDS = 60.0


class Refusals:
    """Takes requests for an answer that were refused before they became calls, where it is known whose they are.

    A request without a key, or with one that the gateway never gave out, leaves no trace but in the metrics: nobody can
    fill the ledger from outside. One with a key that doesn't open any more is told of, but once a minute for each key
    at most.

    Args:
        dialects: The dialects' names, by the addresses at which they answer calls.
        on_refusal: Take the record of each such request. They must return at once.
    """

    def __init__(self, dialects: Mapping[str, str], on_refusal: Sequence[Callable[[CallRecord], None]]) -> None:
        self._dialects = dialects
        self._on_refusal = on_refusal
        self._shut_out: TTLCache[str, None] = TTLCache(_MOST_KEYS, _SHUT_OUT_SECONDS)

    def note(self, path: str, context: RequestContext) -> None:
        """Tell of a request that was answered by an error, unless its client left before it was complete."""
        caller = getattr(context, "caller", None)
        if caller is None and (shut_out := context.shut_out) is not None and shut_out.id not in self._shut_out:
            self._shut_out[shut_out.id] = None
            caller = shut_out
        if caller is None or context.error is None or context.status in (None, ClientClosedRequest.status):
            return
        origin = Origin(context.request_id, self._dialects[path], context.wants_stream)
        record = refused(caller, origin, context.error, context.status, model=context.model, seconds=context.seconds)
        for take in self._on_refusal:
            take(record)
