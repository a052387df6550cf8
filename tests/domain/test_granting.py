"""How a store decides on a claim."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from app.domain.granting import Claim, Grant, Standing, grant

_MINUTE = Claim("b", "bucket", 60, held=0, seconds=60)


def _granted(claim: Claim, standing: Standing | None = None, **said: int) -> tuple[Grant, Standing]:
    return grant(claim, standing, **{"own": 0, "others": 0, "used": 0, "now": 10_000, **said})


def test_a_new_bucket_is_full() -> None:
    """And gives what is wanted, but never more than it has."""
    given_, standing = _granted(replace(_MINUTE, need=1, want=10))
    assert (given_.granted, given_.left, standing.held) == (10, 50, 10)
    assert _granted(replace(_MINUTE, want=100))[0].granted == 60


def test_a_bucket_refills_as_time_passes() -> None:
    """One a second, at most to the brim."""
    empty = Standing(60, 0.0, 10_000)
    assert _granted(replace(_MINUTE, want=60), empty, now=15_500)[0].granted == 5
    assert _granted(replace(_MINUTE, want=99), empty, now=900_000)[0].granted == 60


def test_what_is_held_is_not_refilled() -> None:
    """What a worker has used just now wasn't missing before, so nothing can have been refilled for it."""
    held = Standing(60, 40.0, 10_000, held=20)
    given_, _ = _granted(replace(_MINUTE, held=0, want=60), held, own=20, now=70_000)
    assert given_.granted == 40


def test_what_has_lapsed_refills_from_then_on() -> None:
    """From the time on at which a silent worker lost it."""
    held = Standing(60, 40.0, 10_000, held=20)
    assert _granted(replace(_MINUTE, want=60), held, now=70_000, unchanged_since=65_000)[0].granted == 45
    assert _granted(replace(_MINUTE, want=60), held, now=70_000)[0].granted == 40


def test_debts_are_paid_first() -> None:
    """A bucket that somebody has overdrawn gives nothing until it has refilled."""
    given_, standing = _granted(replace(_MINUTE, need=1, want=1, back=-90))
    assert (given_.granted, given_.left, given_.wanted) == (0, -30, True)
    assert _granted(replace(_MINUTE, want=1), standing, now=40_500)[0].granted == 0
    assert _granted(replace(_MINUTE, want=1), standing, now=41_000)[0].granted == 1


def test_what_was_used_of_a_larger_limit_is_not_owed_for_hours() -> None:
    """A bucket that is made smaller lets nothing through for as long as the larger one would have taken to refill."""
    spent = Standing(1000, 0.0, 10_000)
    lowered = replace(_MINUTE, amount=10, need=1, want=10)
    given_, standing = _granted(lowered, spent)
    assert (given_.granted, given_.left, given_.wanted) == (0, -9.9, True)
    assert _granted(lowered, standing, now=69_000)[0].granted == 0
    given_, standing = _granted(lowered, standing, now=70_000)
    assert (given_.granted, standing.amount) == (10, 10)


def test_making_a_limit_smaller_and_larger_again_frees_nothing() -> None:
    """What is missing was used, whatever the limit was in between."""
    _, lowered = _granted(replace(_MINUTE, amount=10), Standing(60, 5.0, 10_000))
    assert _granted(replace(_MINUTE, want=60), lowered)[0].granted == 5


def test_what_is_given_back_never_overflows() -> None:
    """Neither the bucket, nor what others hold besides."""
    assert _granted(replace(_MINUTE, want=99, returned=50), Standing(60, 50.0, 10_000))[0].granted == 60
    with_others = Standing(60, 50.0, 10_000, held=10)
    assert _granted(replace(_MINUTE, want=99, returned=50), with_others, others=10)[0].granted == 50


def test_part_of_a_large_call_is_kept_from_nobody() -> None:
    """Less than what is of any use isn't given."""
    some = Standing(60, 30.0, 10_000)
    assert _granted(replace(_MINUTE, need=40, want=40, least=40), some)[0].granted == 0
    assert _granted(replace(_MINUTE, need=40, want=40, least=20), some)[0].granted == 30


def test_a_changed_limit_counts_what_was_used() -> None:
    """Ten used are ten used, before and after; time passed counts by the lower of both."""
    used = Standing(60, 50.0, 10_000)
    assert _granted(replace(_MINUTE, amount=100, want=999), used)[0].granted == 90
    assert _granted(replace(_MINUTE, amount=12, want=999), used)[0].granted == 2
    assert _granted(replace(_MINUTE, amount=6000, want=9999), replace(used, tokens=0.0), now=11_000)[0].granted == 5941


def test_a_clock_that_goes_back_refills_nothing() -> None:
    """A little later than now is a message that was faster; much later is a clock that was set anew."""
    _, standing = _granted(replace(_MINUTE, want=1), Standing(60, 0.0, 12_000), now=10_000)
    assert (standing.tokens, standing.at) == (0, 12_000)
    _, standing = _granted(replace(_MINUTE, want=1), Standing(60, 0.0, 3_600_000), now=10_000)
    assert (standing.tokens, standing.at) == (0, 10_000)


def test_permits_and_quotas_are_what_nobody_holds() -> None:
    """And what the ledger doesn't say is used."""
    permits = Claim("p", "permits", 5, held=1, need=3, want=3)
    assert _granted(permits, others=2)[0].granted == 2
    assert _granted(permits, others=9)[0].left == -5
    assert _granted(Claim("q", "quota", 100, held=0, want=50), used=70, others=10)[0].granted == 20


def test_somebody_who_goes_without_is_noticed_for_a_while() -> None:
    """So that nobody keeps anything in reserve."""
    _, standing = _granted(replace(_MINUTE, need=61, want=61))
    assert _granted(_MINUTE, standing, now=12_900)[0].wanted
    assert not _granted(_MINUTE, standing, now=13_100)[0].wanted


@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30_000), st.integers(0, 60), st.integers(0, 9)), max_size=40),
)
def test_what_is_held_and_left_is_never_more_than_the_limit(
    amount: int, turns: list[tuple[int, int, int, int]]
) -> None:
    """Whoever claims, uses and gives back in whatever order: and so what is used never exceeds capacity and refill."""
    held = [0, 0, 0, 0]
    standing, now, level, at = None, 10_000, float(amount), 10_000
    for worker, pause, want, use in turns:
        now += pause
        used = min(use, held[worker])
        level = min(level + (now - at) * amount / 60_000, amount) - used
        at = now
        assert level > -1e-6
        others = sum(held) - held[worker]
        claim = Claim("b", "bucket", amount, held=held[worker] - used, want=want, seconds=60)
        given_, standing = grant(claim, standing, own=held[worker], others=others, used=0, now=now)
        held[worker] += given_.granted - used
        assert given_.left + sum(held) <= amount + 1e-9
