"""When keys expire, as people write it."""

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import pytest

from app.keys.expiry import expiry_at, last_day

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2027-01-31", UTC, "2027-02-01T00:00+00:00"),
        (" 2027-01-31 ", BERLIN, "2027-02-01T00:00+01:00"),
        ("2027-03-27", BERLIN, "2027-03-28T00:00+01:00"),
        ("2027-03-28", BERLIN, "2027-03-29T00:00+02:00"),  # this day has 23 hours
        ("2027-01-31T12:00:00Z", BERLIN, "2027-01-31T12:00+00:00"),
        ("2027-01-31t12:00z", BERLIN, "2027-01-31T12:00+00:00"),
        ("2027-01-31 12:00-05:30", UTC, "2027-01-31T12:00-05:30"),
    ],
)
def test_a_day_counts_to_its_end_and_a_time_has_its_offset(text: str, zone: tzinfo, expected: str) -> None:
    """Whoever is told a date expects the key to open on that day, where the gateway's days are."""
    assert expiry_at(text, zone) == datetime.fromisoformat(expected).timestamp() * 1000


@pytest.mark.parametrize(
    "text", ["", "tomorrow", "31.01.2027", "2027-02-30", "1893456000", "2027-01-31T25:00Z", "2027-01-31T12:00"]
)
def test_anything_else_is_told_both_forms(text: str) -> None:
    """In one sentence. A time without its offset could be anybody's, and is refused rather than guessed."""
    with pytest.raises(
        ValueError, match=r"is not a date such as 2027-01-31 \(.*\), nor a time with its offset such as"
    ):
        expiry_at(text, UTC)


@pytest.mark.parametrize("text", ["1970-12-31", "9999-12-31", "9999-12-31T23:00:00-12:00", "0001-01-01T00:00+14:00"])
def test_a_time_that_could_not_be_shown_is_refused(text: str) -> None:
    """Some clocks and databases end sooner than others."""
    with pytest.raises(ValueError, match="does not lie between 1971 and 9998"):
        expiry_at(text, UTC)


@pytest.mark.parametrize("zone", [UTC, BERLIN, ZoneInfo("Pacific/Kiritimati")])
def test_the_last_day_is_the_one_that_was_given(zone: tzinfo) -> None:
    """A form that is sent unchanged changes nothing."""
    assert last_day(expiry_at("2027-03-28", zone), zone).isoformat() == "2027-03-28"
