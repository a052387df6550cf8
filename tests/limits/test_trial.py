"""The dry run: what limits would have refused of calls that were made."""

from collections.abc import Iterable
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from app.domain.limits import read_limits
from app.limits.trial import STRETCH, Trial, TrialCall

BERLIN = ZoneInfo("Europe/Berlin")
NOON = round(datetime(2026, 3, 28, 12, tzinfo=BERLIN).timestamp() * 1000)
DOLLAR = 1_000_000_000


def call(
    seconds: float, *, takes: float = 1.0, tokens: tuple[int, int] = (10, 10), model: str = "kimi", cost: int = 0
) -> TrialCall:
    """A call so many seconds after noon."""
    return TrialCall(NOON + round(seconds * 1000), round(takes * 1000), model, *tokens, cost)


def put(limits: str, calls: Iterable[TrialCall], *, wait: float = 0.0) -> list[bool]:
    """Which of the calls are let in."""
    trial = Trial(read_limits(limits), BERLIN, begin=NOON, wait=wait)
    return [trial.put(one) for one in calls]


def test_a_bucket_is_full_at_first_and_refills_steadily() -> None:
    """Sixty at once pass a limit of 60 a minute, the next not; a second later one more does."""
    let_in = put("60 requests/minute", [*(call(0) for _ in range(61)), call(1), call(1.5), call(2)])
    assert let_in == [*[True] * 60, False, True, False, True]


def test_a_refused_call_takes_nothing() -> None:
    """Neither of the limit that had no room nor of the others."""
    calls = [call(0, tokens=(50, 0)), call(1, tokens=(60, 0)), call(1, tokens=(40, 0)), call(2)]
    assert put("3 requests/hour, 100 tokens/hour", calls) == [True, False, True, False]
    assert put("3 requests/hour, 1000 tokens/hour", calls) == [True, True, True, False]


def test_a_call_waits_a_moment_for_room() -> None:
    """As the gateway lets it; then it is in the way of the next."""
    calls = [call(0), call(0), call(0), call(10)]
    assert put("1 requests/second", calls, wait=1.0) == [True, True, False, True]
    assert put("1 requests/second", calls) == [True, False, False, True]


def test_tokens_are_counted_as_they_were_used() -> None:
    """Both ways, or one; a prompt above the limit never passes, an answer above it leaves a debt."""
    calls = [call(0, tokens=(60, 30)), call(0, tokens=(20, 0)), call(60, tokens=(200, 0)), call(120, tokens=(10, 500))]
    assert put("100 tokens/minute", calls) == [True, False, False, True]
    assert put("60 input tokens/minute", calls) == [True, False, False, True]
    assert put("30 output tokens/minute", calls) == [True, True, True, True]
    assert put("30 output tokens/minute", [*calls, call(180)]) == [True, True, True, True, False]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ("2 requests/day", [True, True, False, True]),
        ("2 requests/week", [True, True, False, False]),
        ("2 requests/month", [True, True, False, False]),
        ("$2/day", [True, True, False, True]),
        ("3 requests in total", [True, True, True, False]),
    ],
)
def test_quotas_follow_the_calendar(limits: str, expected: list[bool]) -> None:
    """Midnight in TIME_ZONE begins a new day: here twelve hours after noon, before the clocks change."""
    hour = 3600
    calls = [call(hours * hour, cost=DOLLAR) for hours in (0, 1, 11.9, 12.1)]
    assert put(limits, calls) == expected


def test_what_a_quota_had_used_before_counts_until_its_period_ends() -> None:
    """Not in the next one, even if no call comes before that."""
    (limit,) = read_limits("3 requests/day")
    for first, expected in ((0, [True, False]), (13 * 3600, [True, True])):
        trial = Trial([limit], BERLIN, begin=NOON, used={limit: 2})
        assert [trial.put(call(first)), trial.put(call(first))] == expected


def test_a_call_that_got_no_word_counts_for_no_quota_but_for_requests_a_minute() -> None:
    """As in the ledger."""
    calls = [call(0, tokens=(0, 0)), call(0, tokens=(0, 0)), call(0)]
    assert put("1 requests/day", calls) == [True, True, True]
    assert put("1 requests/minute", calls) == [True, False, False]


def test_at_once_goes_by_when_calls_began_and_how_long_they_took() -> None:
    """A third is refused while two run, or waits for the first that ends."""
    calls = [call(0, takes=10), call(0, takes=5), call(4.5, takes=1), call(4.6, takes=1), call(10)]
    assert put("2 at once", calls) == [True, True, False, False, True]
    assert put("2 at once", calls, wait=1.0) == [True, True, True, False, True]


def test_only_the_models_of_a_limit_are_counted() -> None:
    """All others pass."""
    calls = [call(0, model="Kimi-k2"), call(0, model="gpt-4o"), call(0, model="kimi-k2")]
    assert put("1 requests/minute for kimi*", calls) == [True, True, False]


def test_the_trial_says_how_many_when_and_why() -> None:
    """By limit, and by stretches of time; what came before the time that was asked about isn't counted."""
    minute, day = read_limits("2 requests/minute, 5 requests/day")
    trial = Trial([minute, day], BERLIN, begin=NOON)
    trial.put(call(0), counted=False)
    for seconds in (1, 2, 3, 400, 401, 800, 801):
        trial.put(call(seconds))
    assert (trial.calls, trial.refused) == (7, 3)
    assert trial.by_limit == {minute: 2, day: 1}
    begin = NOON - NOON % STRETCH
    assert trial.by_time == {begin: 2, begin + 2 * STRETCH: 1}
