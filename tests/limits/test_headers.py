"""What headers say of limits: exact for small ones, for large ones nearly so."""

import asyncio
import time

import pytest

from app.api.limit_headers import anthropic_limit_headers, openai_limit_headers
from app.domain.limits import Headroom, read_limit
from app.limits.limiter import Admission
from tests.limits.test_limiter import Gateway, leaping

_REMAINING = b"x-ratelimit-remaining-requests"


def _remaining(admission: Admission) -> int:
    return int(dict(admission.headers(openai_limit_headers))[_REMAINING])


def test_a_small_limit_is_told_to_the_last_call() -> None:
    """Each answer's headers count the calls before it, and its own."""

    async def work() -> None:
        gateway = Gateway("60 requests/minute, 100k tokens/minute")
        assert [_remaining(await gateway.admit()) for _ in range(5)] == [59, 58, 57, 56, 55]

    leaping(work())


def test_a_large_limit_is_told_to_a_ten_thousandth() -> None:
    """However many calls come in a moment, headers are no further behind; a tenth of a second later they are exact."""

    async def work() -> None:
        gateway, amount = Gateway("10M requests/day"), 10_000_000
        behind = [_remaining(await gateway.admit()) - (amount - call) for call in range(1, 3001)]
        assert min(behind) == 0
        assert max(behind) <= amount // 10_000
        await asyncio.sleep(0.1)
        assert _remaining(await gateway.admit()) == amount - 3001

    leaping(work())


def test_each_dialect_has_headers_of_its_own() -> None:
    """What was written for clients of one dialect is not given to those of another."""

    async def work() -> None:
        gateway = Gateway("10M requests/day")
        for write, name in (
            (openai_limit_headers, _REMAINING),
            (anthropic_limit_headers, b"anthropic-ratelimit-requests-remaining"),
            (openai_limit_headers, _REMAINING),
        ):
            assert name in dict((await gateway.admit()).headers(write))

    leaping(work())


def test_midnight_is_told_as_midnight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A day that ends within a millisecond of a whole second is not told to end a second later."""
    monkeypatch.setattr(time, "time", lambda: 86_390.0002)
    headroom = Headroom(read_limit("10 requests/day"), 4, 10.0)
    assert dict(anthropic_limit_headers(lambda measures: headroom if "requests" in measures else None)) == {
        b"anthropic-ratelimit-requests-limit": b"10",
        b"anthropic-ratelimit-requests-remaining": b"4",
        b"anthropic-ratelimit-requests-reset": b"1970-01-02T00:00:00Z",
    }
