"""Times as people write them."""

from datetime import UTC, datetime

from app.domain.durations import span


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
