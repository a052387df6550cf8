"""Times as people write them at the command line."""

from datetime import UTC, datetime, tzinfo

from app.domain.durations import span
from app.keys.expiry import expiry_at

_NEVER = "never"
_LONGEST_SPAN = 36_525 * 86_400


def expiry_or_span(text: str, zone: tzinfo) -> int | None:
    """When a key expires, in milliseconds since the epoch: see `expiry_at`; or a span from now (`30d`), or `never`.

    Raises:
        ValueError: It is none of these.
    """
    if text.strip().lower() == _NEVER:
        return None
    try:
        seconds = span(text)
    except ValueError:
        try:
            return expiry_at(text, zone)
        except ValueError as error:
            raise ValueError(f"{error} Or write a span from now such as 30d, or `{_NEVER}`.") from None
    if seconds > _LONGEST_SPAN:
        raise ValueError(f"{text!r} is more than a hundred years; write `{_NEVER}`.")
    return round((datetime.now(UTC).timestamp() + seconds) * 1000)
