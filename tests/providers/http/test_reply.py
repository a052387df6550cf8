"""What is read off an upstream's headers."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from app.providers.http import retry_after


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        (" 30 ", 30),
        ("3601", 3600),
        ("9" * 400, 3600),
        ("-5", None),
        ("1.5", None),
        ("²", None),
        ("soon", None),
        ("", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2099 07:28:00 GMT", 3600),
        ("Wed, 21 Oct 2015 07:28:00 -99999999999999999999", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_within_reason(value: str, seconds: float | None) -> None:
    """Numbers and dates are understood, an hour is the most, and nonsense is no request to wait."""
    assert retry_after({"retry-after": value}) == seconds


def test_retry_after_as_a_date_is_the_time_until_then() -> None:
    """A date in a minute means a minute."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert retry_after({"retry-after": date}) == pytest.approx(60, abs=5)
