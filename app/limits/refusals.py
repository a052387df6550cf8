"""What a call is told that limits don't let in."""

from collections.abc import Sequence

from app.domain.counting import counted
from app.domain.errors import LimitReached, QuotaSpent
from app.domain.limits import Headroom, Limit, amount_in_words
from app.limits.allowance import Allowance

_SOONEST = 0.001
_WHEN_NOBODY_KNOWS = 1.0


def quota_spent(owner: str, allowance: Allowance, reset: float, headroom: Sequence[Headroom]) -> QuotaSpent:
    """A period's amount is used up, or what is left doesn't suffice.

    Args:
        owner: Whose limit it is, as sentences begin.
        reset: Seconds until the next period.
        headroom: What all limits of the call leave.
    """
    limit, used = allowance.limit, allowance.used_by_now
    again = "" if limit.window == "total" else f"; it begins anew in {in_words(reset)}"
    rest = "" if used >= limit.amount else "; what is left doesn't suffice for this request, or is in use"
    return QuotaSpent(
        f"{owner} may use {limit.text}, and has used {amount_in_words(used, limit.measure)}{rest}{again}.",
        headroom=headroom,
        retry_after=None if limit.window == "total" else reset,
    )


def no_room(owner: str, allowance: Allowance, amount: int, now: float, headroom: Sequence[Headroom]) -> LimitReached:
    """A window has no room, or as many calls as may run are running.

    Args:
        owner: As above.
        amount: What the call needs.
        now: In the loop's time.
        headroom: As above.
    """
    limit = allowance.limit
    if allowance.kind == "permits":
        return LimitReached(
            f"{owner} may have {counted(limit.amount, 'call')} at once, and has; the next is possible when one has "
            "ended.",
            headroom=headroom,
            retry_after=1,
        )
    ready = allowance.ready_in(amount, now)
    # The store isn't asked before, whatever has refilled until then.
    pause = allowance.dry_until - now if allowance.is_dry(amount, now) else _SOONEST
    seconds = max(_WHEN_NOBODY_KNOWS if ready is None else ready, pause)
    of = "" if amount == 1 else f" of {amount_in_words(amount, limit.measure)}"
    return LimitReached(
        f"{owner} may use {limit.text}, and has; the next request{of} is possible in {in_words(seconds)}.",
        measure="requests" if limit.measure == "requests" else "tokens",
        headroom=headroom,
        retry_after=seconds,
    )


def too_large(owner: str, limit: Limit, prompt: int) -> LimitReached:
    """A request has more tokens than a limit ever lets in."""
    return LimitReached(
        f"This request has about {prompt} tokens, and {owner[0].lower()}{owner[1:]} may use {limit.text}: "
        "it is too large, now and later. Send a shorter one.",
        measure="tokens",
        should_retry=False,
    )


def in_words(seconds: float) -> str:
    """A time as people say it, such as `12 s`, `7 min` or `3 days`."""
    for unit, words in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {words}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{max(seconds, 0.1):.1f} s"
