"""What Gemini's errors are called. Pure."""

from collections.abc import Mapping

from msgspec.structs import replace

from app.providers.api_upstream.failure import UpstreamFault, fault_in
from app.providers.api_upstream.reply import Json


def gemini_fault(document: Json) -> UpstreamFault | None:
    """The error in an answer or an event; None if there is none."""
    if "candidates" in document and "error" not in document:
        return None
    fault = fault_in(document)
    if fault is not None and fault.status == 429 and _comes_back(fault.error):
        # It speaks of quota and billing, whichever limit has been reached; one by the minute is no lack of money.
        return replace(fault, words="rate limit")
    return fault


def _comes_back(error: object) -> bool:
    """Whether the error tells when to try again."""
    details = error.get("details") if isinstance(error, Mapping) else None
    return any(isinstance(row, dict) and "retryDelay" in row for row in (details if isinstance(details, list) else ()))
