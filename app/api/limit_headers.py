"""Response headers that tell a client how it stands with its limits, as OpenAI and Anthropic write them."""

import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from app.api.request import RawHeaders
from app.domain.limits import Headroom, Measure
from app.limits.limiter import Tightest

LimitHeaders = Callable[[Tightest], RawHeaders]

_REQUESTS: frozenset[Measure] = frozenset({"requests"})
_TOKENS: frozenset[Measure] = frozenset({"tokens", "input tokens", "output tokens"})
_OPENAI = (
    (_REQUESTS, b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests"),
    (_TOKENS, b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens"),
)
_ANTHROPIC: tuple[tuple[bytes, frozenset[Measure]], ...] = (
    (b"requests", _REQUESTS),
    (b"tokens", _TOKENS),
    (b"input-tokens", frozenset({"input tokens"})),
    (b"output-tokens", frozenset({"output tokens"})),
)


def openai_limit_headers(tightest: Tightest) -> RawHeaders:
    """`x-ratelimit-*` for the tightest limit of requests, and for the tightest of tokens."""
    headers: RawHeaders = []
    for measures, limit, remaining, reset in _OPENAI:
        found = tightest(measures)
        if found is not None:
            headers.append((limit, b"%d" % found.limit.amount))
            headers.append((remaining, b"%d" % found.remaining))
            if math.isfinite(found.reset):
                headers.append((reset, _duration(found.reset)))
    return headers


def anthropic_limit_headers(tightest: Tightest) -> RawHeaders:
    """`anthropic-ratelimit-*` for the tightest limit of each kind."""
    headers: RawHeaders = []
    for name, measures in _ANTHROPIC:
        found = tightest(measures)
        if found is not None:
            headers += (
                (b"anthropic-ratelimit-%s-limit" % name, b"%d" % found.limit.amount),
                (b"anthropic-ratelimit-%s-remaining" % name, b"%d" % found.remaining),
            )
            if math.isfinite(found.reset):
                # To the millisecond: a moment later than midnight would be told as a second later.
                reset = datetime.fromtimestamp(math.ceil(round(time.time() + found.reset, 3)), UTC)
                headers.append((b"anthropic-ratelimit-%s-reset" % name, reset.strftime("%Y-%m-%dT%H:%M:%SZ").encode()))
    return headers


def tightest_of(headroom: Sequence[Headroom]) -> Tightest:
    """Find it among these."""

    def tightest(measures: frozenset[Measure]) -> Headroom | None:
        of_these = [one for one in headroom if one.limit.measure in measures]
        return min(of_these, key=lambda one: one.remaining, default=None)

    return tightest


def _duration(seconds: float) -> bytes:
    """A duration as OpenAI writes it: `12ms`, `7.2s`, `1m30s`, `6h0m0s`."""
    if seconds < 1:
        return b"%dms" % math.ceil(seconds * 1000)
    if seconds < 60:
        return f"{math.ceil(seconds * 1000) / 1000:g}s".encode()
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return b"%dh%dm%ds" % (hours, minutes, rest) if hours else b"%dm%ds" % (minutes, rest)
