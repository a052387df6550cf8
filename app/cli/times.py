"""Times and spans as people write them."""

import re
from datetime import UTC, datetime

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SPAN = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)([smhdw])")


def span(text: str) -> float:
    """The seconds of a span such as `90s`, `15m`, `24h`, `30d` or `2w`.

    Raises:
        ValueError: It is none.
    """
    match = _SPAN.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is not a span of time such as 15m, 24h or 30d")
    return float(match[1]) * _SECONDS[match[2]]


def moment(text: str) -> int:
    """A time in milliseconds since the epoch: `2027-01-31`, `2027-01-31T12:00Z`, or a span from now (`30d`).

    Raises:
        ValueError: It is none.
    """
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        try:
            return round((datetime.now(UTC).timestamp() + span(text)) * 1000)
        except ValueError:
            raise ValueError(f"{text!r} is neither a date such as 2027-01-31 nor a span such as 30d") from None
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)
