"""What Anthropic's errors are called. Pure."""

from collections.abc import Mapping
from types import MappingProxyType

from msgspec.structs import replace

from app.providers.api_upstream.failure import UpstreamFault, fault_in
from app.providers.api_upstream.reply import Json

# Within a stream an error has no status but that of its type.
_STATUSES: Mapping[str, int] = MappingProxyType(
    {
        "invalid_request_error": 400,
        "authentication_error": 401,
        "billing_error": 402,
        "permission_error": 403,
        "not_found_error": 404,
        "request_too_large": 413,
        "rate_limit_error": 429,
        "api_error": 500,
        "timeout_error": 504,
        "overloaded_error": 529,
    }
)


def anthropic_fault(document: Json) -> UpstreamFault | None:
    """The error in an answer or an event; None if there is none."""
    kind = document.get("type")
    if "error" not in document and isinstance(kind, str) and kind in _ANSWERS:
        return None
    fault = fault_in(document)
    if fault is None or fault.status is not None or not isinstance(fault.error, dict):
        return fault
    return replace(fault, status=_STATUSES.get(str(fault.error.get("type"))))


# What is certainly none, for speed: nearly all events.
_ANSWERS = frozenset({"content_block_delta", "content_block_start", "content_block_stop", "message", "message_start"})
