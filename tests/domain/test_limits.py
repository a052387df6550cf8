"""Limits as people write them, and the periods of the calendar that they count."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.limits import NANO, Limit, Window, period_at, read_limit, read_limits, texts_of

_MEASURES = st.sampled_from(["requests", "tokens", "input tokens", "output tokens", "dollars", "at once"])
_ZONES = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "America/Santiago", "Africa/Cairo",
     "Australia/Lord_Howe", "Pacific/Chatham", "America/St_Johns", "Asia/Beirut"]
)  # fmt: skip


_FROM = 1_577_836_800
# In Berlin, New York, Santiago and Beirut, both ways.
_CHANGES = [1_774_746_000, 1_792_890_000, 1_772_953_200, 1_793_512_800, 1_775_358_000, 1_788_667_200, 1_774_735_200]


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("60 requests/minute", Limit(60, "requests", "minute")),
        ("1 request per second", Limit(1, "requests", "second")),
        ("100k tokens an hour", Limit(100_000, "tokens", "hour")),
        ("1.5M input tokens / day", Limit(1_500_000, "input tokens", "day")),
        ("2_000 output tokens/week", Limit(2000, "output tokens", "week")),
        ("$10/month", Limit(10 * NANO, "dollars", "month")),
        ("$ .25 in total", Limit(NANO // 4, "dollars", "total")),
        ("5 at once", Limit(5, "at once", "")),
        ("1 AT  ONCE for Kimi*", Limit(1, "at once", "", "kimi*")),
        ("60 requests per mins", Limit(60, "requests", "minute")),
        ("60\u3000requests \t /\tminute", Limit(60, "requests", "minute")),
        ("10 requests/minute for *", Limit(10, "requests", "minute")),
    ],
)
def test_a_limit_is_read(text: str, limit: Limit) -> None:
    """In the ways in which people write it."""
    assert read_limit(text) == limit


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("60", "doesn't say of what"),
        ("60 requests", "needs a time"),
        ("60 requests/year", "needs a time"),
        ("0 requests/minute", "at least 1"),
        ("9999999999999999 tokens/day", "too large"),
        ("$5/minute", "by day, week, month"),
        ("$5 tokens/day", "counts dollars and tokens"),
        ("5 at once/minute", "has no time"),
        ("-5 requests/minute", "is not a limit"),
        ("many requests/minute", "is not a limit"),
        ("5 requests/minute for " + "k" * 101, "too long"),
        ("60 requests/ms", "needs a time"),
        ("5 at once for kimi\u200b", "can't be seen"),
        ("5 at once for \0", "can't be seen"),
    ],
)
def test_what_is_no_limit_is_refused_in_words(text: str, words: str) -> None:
    """The message says what is wrong with it."""
    with pytest.raises(ValueError, match=words):
        read_limit(text)


def test_a_long_gap_takes_no_longer_than_a_short_one() -> None:
    """Whoever may set limits can't hold up a worker for minutes with 4,000 spaces, which once was for ever."""
    with pytest.raises(ValueError, match="is not a limit"):
        read_limit("5" + 4000 * " " + "x")


def test_a_models_name_may_end_with_a_digit() -> None:
    """The comma after it separates, also where three digits follow."""
    assert texts_of(read_limits("10 requests/day for gpt-4,500 requests/day for k*")) == (
        "10 requests/day for gpt-4, 500 requests/day for k*"
    )


@pytest.mark.parametrize(
    ("pattern", "model", "counts"),
    [
        ("kimi*", "Kimi-K2", True),
        ("kimi*", "moonshot/kimi-k9", True),
        ("kimi*", "openrouter/moonshotai/kimi-k9", True),
        ("moonshotai/*", "openrouter/moonshotai/kimi-k9", True),
        ("kimi*", "my-kimi", False),
        ("kimi*", "moonshot/gpt/", False),
        ("moonshot/*", "kimi-k9", False),
    ],
)
def test_a_models_name_counts_with_and_without_its_upstreams(pattern: str, model: str, counts: bool) -> None:
    """Who asks an upstream for a model that it doesn't list is limited by that model's own name, too."""
    assert read_limit(f"1 request/day for {pattern}").counts(model) == counts


def test_large_sums_are_kept_to_the_last_digit() -> None:
    """A limit that is read and written and read again is the same."""
    (limit,) = read_limits("$244380566.181038/month")
    assert (limit.amount, limit.text) == (244_380_566_181_038_000, "$244380566.181038/month")


def test_limits_are_separated_by_commas_that_are_not_in_numbers() -> None:
    """Or by semicolons, or line ends; each kind once, for each pattern."""
    limits = read_limits("1,000 requests/minute, 5 at once;7 requests/day\n2 tokens/hour")
    assert [limit.amount for limit in limits] == [1000, 5, 7, 2]
    assert read_limits(" none ") == read_limits("") == ()
    assert len(read_limits("1 at once, 2 at once for kimi*")) == 2
    with pytest.raises(ValueError, match="two limits of requests/minute"):
        read_limits("1 request/minute, 2 requests/minute")
    with pytest.raises(ValueError, match="at most 16"):
        read_limits(",".join(f"1 at once for m{number}" for number in range(17)))


@given(
    st.lists(
        st.builds(
            Limit,
            st.integers(1, 10**15),
            _MEASURES,
            st.sampled_from(["second", "minute", "hour", "day", "week", "month", "total"]),
            st.sampled_from(["", "kimi*", "gpt-4o"]),
        ),
        max_size=8,
        unique_by=lambda limit: (limit.measure, limit.window if limit.measure != "at once" else "", limit.pattern),
    )
)
def test_what_is_written_is_read_again(limits: list[Limit]) -> None:
    """Limits come back from their words as they were."""
    valid = tuple(
        [
            Limit(limit.amount, limit.measure, "" if limit.measure == "at once" else limit.window, limit.pattern)
            for limit in limits
            if not (limit.measure == "dollars" and limit.window in ("second", "minute", "hour"))
        ]
    )
    assert read_limits(texts_of(valid)) == valid


def _span(window: Window, zone: str, *when: int) -> tuple[str, float]:
    """A period's name and its length in hours."""
    moment = datetime(*when, tzinfo=ZoneInfo(zone))  # type: ignore[misc, arg-type]  # a date and a time
    period = period_at(window, round(moment.timestamp() * 1000), ZoneInfo(zone))
    return period.name, (period.end - period.start) / 3_600_000


@pytest.mark.parametrize(
    ("zone", "when", "hours"),
    [
        ("Europe/Berlin", (2026, 3, 29, 12), 23),
        ("Europe/Berlin", (2026, 10, 25, 12), 25),
        ("Asia/Kolkata", (2026, 3, 29, 0), 24),
        ("Asia/Kathmandu", (2026, 3, 29, 23, 59), 24),
        ("Australia/Lord_Howe", (2026, 4, 5, 12), 24.5),
        # Midnight is skipped: the day begins at one.
        ("America/Santiago", (2026, 9, 6, 12), 23),
        ("Asia/Beirut", (2026, 3, 29, 12), 23),
        # The hour before midnight comes twice.
        ("America/Santiago", (2026, 4, 4, 12), 25),
    ],
)
def test_a_day_is_as_long_as_the_clock_makes_it(zone: str, when: tuple[int, ...], hours: float) -> None:
    """When clocks change, days have other lengths, and begin where their zone says."""
    assert _span("day", zone, *when) == (f"{when[0]}-{when[1]:02}-{when[2]:02}", hours)


def test_weeks_begin_on_monday_and_months_on_the_first() -> None:
    """Also over the end of a year; and a total never ends."""
    assert _span("week", "UTC", 2027, 1, 3, 23) == ("2026-12-28/7", 168)
    assert _span("month", "UTC", 2028, 2, 29) == ("2028-02", 29 * 24)
    assert _span("month", "Europe/Berlin", 2026, 3, 31) == ("2026-03", 31 * 24 - 1)
    assert period_at("total", 5, ZoneInfo("UTC")).end > 10**18


@given(
    _ZONES,
    # Within a few hours of the changes of clocks, too, which most random times are not.
    st.one_of(st.integers(_FROM, _FROM + 15 * 365 * 86_400), st.sampled_from(_CHANGES)),
    st.integers(-3 * 3600, 3 * 3600),
    st.sampled_from(["day", "week", "month"]),
)
def test_periods_follow_each_other_without_gaps(zone: str, moment: int, more: int, window: Window) -> None:
    """Each time is in the period that it names; where one ends the next one begins."""
    place = ZoneInfo(zone)
    at = (moment + more) * 1000
    period = period_at(window, at, place)
    assert period.start <= at < period.end
    assert period_at(window, period.end, place).start == period.end
    assert period_at(window, period.start, place) == period == period_at(window, period.end - 1, place)
    assert timedelta(milliseconds=period.end - period.start) <= timedelta(days=32)
