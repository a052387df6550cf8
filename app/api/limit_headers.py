"""Response headers that tell a client how it stands with its limits, as OpenAI and Anthropic write them."""

import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from app.api.request import RawHeaders
from app.domain.limits import Headroom, Measure

LimitHeaders = Callable[[Sequence[Headroom]], RawHeaders]

_REQUESTS: tuple[Measure, ...] = ("requests",)
_TOKENS: tuple[Measure, ...] = ("tokens", "input tokens", "output tokens")


def openai_limit_headers(headroom: Sequence[Headroom]) -> RawHeaders:
    """`x-ratelimit-*` for the tightest limit of requests, and for the tightest of tokens."""
    headers: RawHeaders = []
    for name, measures in ((b"requests", _REQUESTS), (b"tokens", _TOKENS)):
        tightest = _tightest(headroom, measures)
        if tightest is not None:
            headers += (
                (b"x-ratelimit-limit-" + name, b"%d" % tightest.limit.amount),
                (b"x-ratelimit-remaining-" + name, b"%d" % tightest.remaining),
            )
            if math.isfinite(tightest.reset):
                headers.append((b"x-ratelimit-reset-" + name, _duration(tightest.reset)))
    return headers


def anthropic_limit_headers(headroom: Sequence[Headroom]) -> RawHeaders:
    """`anthropic-ratelimit-*` for the tightest limit of each kind."""
    headers: RawHeaders = []
    for name, measures in (
        (b"requests", _REQUESTS),
        (b"tokens", _TOKENS),
        (b"input-tokens", ("input tokens",)),
        (b"output-tokens", ("output tokens",)),
    ):
        tightest = _tightest(headroom, measures)
        if tightest is not None:
            headers += (
                (b"anthropic-ratelimit-%s-limit" % name, b"%d" % tightest.limit.amount),
                (b"anthropic-ratelimit-%s-remaining" % name, b"%d" % tightest.remaining),
            )
            if math.isfinite(tightest.reset):
                reset = datetime.fromtimestamp(math.ceil(time.time() + tightest.reset), UTC)
                headers.append((b"anthropic-ratelimit-%s-reset" % name, reset.strftime("%Y-%m-%dT%H:%M:%SZ").encode()))
    return headers


def _tightest(headroom: Sequence[Headroom], measures: Sequence[Measure]) -> Headroom | None:
    of_these = [one for one in headroom if one.limit.measure in measures]
    return min(of_these, key=lambda one: one.remaining, default=None)


def _duration(seconds: float) -> bytes:
    """A duration as OpenAI writes it: `12ms`, `7.2s`, `1m30s`, `6h0m0s`."""
    if seconds < 1:
        return b"%dms" % math.ceil(seconds * 1000)
    if seconds < 60:
        return f"{math.ceil(seconds * 1000) / 1000:g}s".encode()
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return b"%dh%dm%ds" % (hours, minutes, rest) if hours else b"%dm%ds" % (minutes, rest)
