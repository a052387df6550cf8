"""When keys expire, as people write it: the same for the console, the admin API and the command line."""

from datetime import UTC, date, datetime, time, timedelta, tzinfo

from app.domain.durations import FIRST_YEAR, LAST_YEAR

_DATE_LENGTH = len("2027-01-31")


def expiry_at(text: str, zone: tzinfo) -> int:
    """The time that is meant, in milliseconds since the epoch.

    Args:
        text: A date, of which the end is meant, or a time with its offset from UTC.
        zone: Whose day it is.

    Raises:
        ValueError: It is neither; says so in a sentence.
    """
    text = text.strip()
    given = _date_in(text) or _time_in(text)
    if given is None:
        raise ValueError(
            f"{text[:40]!r} is not a date such as 2027-01-31 (the end of that day), nor a time with its offset such as "
            "2027-01-31T12:00+01:00."
        )
    if not FIRST_YEAR <= given.year <= LAST_YEAR:
        raise ValueError(f"{text[:40]!r} does not lie between {FIRST_YEAR} and {LAST_YEAR}.")
    if not isinstance(given, datetime):
        given = datetime.combine(given + timedelta(days=1), time(), zone)
    return round(given.timestamp() * 1000)


def last_day(milliseconds: int, zone: tzinfo) -> date:
    """The last day on which a key opens that expires then."""
    return datetime.fromtimestamp((milliseconds - 1) / 1000, UTC).astimezone(zone).date()


def _date_in(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if len(text) == _DATE_LENGTH else None
    except ValueError:
        return None


def _time_in(text: str) -> datetime | None:
    try:
        given = datetime.fromisoformat(text.upper())
    except ValueError:
        return None
    # One without its offset could be anybody's.
    return None if given.tzinfo is None else given
