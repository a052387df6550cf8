"""How long an upstream says to wait, in whatever form it says so. Pure, but for the time of day."""

import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from app.providers.http import retry_after

_LONGEST_WAIT = 3600.0
# A larger number is a moment, in seconds since the epoch; an even larger one is one in milliseconds.
_MOMENT = 10**9
_MOMENT_MS = 10**11
_LOOKED_AT = 2000

_NUMBER = r"\d{1,15}(?:\.\d{1,9})?"
# By the beginning of its name; `ms` before `m`.
_UNITS: Mapping[str, float] = {
    "ms": 0.001, "milli": 0.001, "毫秒": 0.001, "s": 1, "秒": 1, "m": 60, "分": 60, "h": 3600, "小时": 3600,
    "d": 86_400, "天": 86_400,
}  # fmt: skip
_UNIT = (
    r"(?:milliseconds?|millis|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)(?![a-z])|"
    r"毫秒|秒钟?|分钟?|小时|天"
)
_AMOUNT = re.compile(rf"({_NUMBER})[\s-]?({_UNIT})", re.IGNORECASE)
_AMOUNTS = rf"(?:{_NUMBER}[\s-]?(?:{_UNIT})[\s,]{{0,2}}(?:and\s)?){{1,5}}"
_ONLY_AMOUNTS = re.compile(_AMOUNTS, re.IGNORECASE)
_ONLY_NUMBER = re.compile(_NUMBER)
# "Please try again in 1m30s", "Retry after 30 seconds", "wait 2 minutes before …", "请在 20 秒后重试".
_TOLD = re.compile(
    rf"(?:(?:try|retry|again|wait|available|resets?|reset_at|back)\b[^.\d]{{0,40}}?)({_AMOUNTS})|"
    rf"({_AMOUNTS})\s?(?:later|before (?:re)?try|后|之后|以后)",
    re.IGNORECASE,
)
_TOLD_BARE = re.compile(rf"retry[-_ ]after\W{{0,4}}({_NUMBER})(?![\w.])", re.IGNORECASE)

_IN_SECONDS = ("retry_after", "retryAfter", "retry-after", "retry_after_seconds", "retryDelay", "retry_delay")
_IN_MILLISECONDS = ("retry_after_ms", "retryAfterMs", "retry-after-ms")
_RESETS = re.compile(r"(?:x-)?(?:[a-z]+-)?rate-?limit-(?:(.{0,40})-)?reset(?:-(.{1,40}))?")


def told_wait(headers: Mapping[str, str], words: str, error: object = None, *, limited: bool) -> float | None:
    """Seconds to wait, at most an hour; None if the upstream tells none.

    Of several waits the longest counts; a `Retry-After` in milliseconds is the same one told more exactly.

    Args:
        headers: The answer's, in lower case.
        words: The error's message.
        error: The error as it came, with its details.
        limited: It is about a limit, so it matters when limits are reset.
    """
    waits = [wait for wait in (_header(headers), _in_words(words), *_in_details(error)) if wait is not None]
    if not waits and limited:
        waits += _resets(headers)
        waits += _resets(_quoted_headers(error))
    return min(max(waits), _LONGEST_WAIT) if waits else None


def _header(headers: Mapping[str, str]) -> float | None:
    milliseconds = headers.get("retry-after-ms", "").strip()
    if _ONLY_NUMBER.fullmatch(milliseconds):
        return float(milliseconds) / 1000
    wait = retry_after(headers)
    return _duration(headers.get("retry-after", "")) if wait is None else wait


def _in_words(words: str) -> float | None:
    found = _TOLD.search(words[:_LOOKED_AT])
    if found:
        return _duration(found[1] or found[2])
    found = _TOLD_BARE.search(words[:_LOOKED_AT])
    return float(found[1]) if found else None


def _in_details(error: object, depth: int = 3) -> Iterator[float | None]:
    """The waits in an error's fields, as in Google's `RetryInfo`."""
    if isinstance(error, list) and depth:
        for entry in error[:20]:
            yield from _in_details(entry, depth - 1)
    if not isinstance(error, dict):
        return
    for name in _IN_SECONDS:
        yield _duration(error.get(name))
    for name in _IN_MILLISECONDS:
        wait = _duration(error.get(name))
        yield None if wait is None else wait / 1000
    if depth:
        for name in ("details", "metadata", "error", "data"):
            yield from _in_details(error.get(name), depth - 1)


def _quoted_headers(error: object) -> Mapping[str, str]:
    """The headers of an upstream's upstream, which OpenRouter quotes."""
    metadata = error.get("metadata") if isinstance(error, dict) else None
    headers = metadata.get("headers") if isinstance(metadata, dict) else None
    return {str(name).lower(): str(value) for name, value in headers.items()} if isinstance(headers, dict) else {}


def _resets(headers: Mapping[str, str]) -> list[float]:
    """When the limits that are used up are reset; all that are told of, if none is said to be used up."""
    waits: list[tuple[float, bool]] = []
    for name, value in headers.items():
        if "reset" not in name or not _RESETS.fullmatch(name):
            continue
        wait = _duration(value)
        if wait:
            left = headers.get(name.replace("reset", "remaining"), "").strip()
            waits.append((wait, left in ("0", "0.0")))
    used_up = [wait for wait, is_used_up in waits if is_used_up]
    return used_up or [wait for wait, _ in waits]


def _duration(value: object) -> float | None:
    """Seconds from now: of a number of seconds, a moment, or a text such as `1m30s`."""
    if isinstance(value, dict):
        value = value.get("seconds")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = str(value).strip()[:100]
    if _ONLY_NUMBER.fullmatch(text):
        number = float(text)
        if number > _MOMENT:
            number = (number / 1000 if number > _MOMENT_MS else number) - time.time()
        return max(0.0, number)
    if _ONLY_AMOUNTS.fullmatch(text):
        return sum([float(number) * _unit(unit.lower()) for number, unit in _AMOUNT.findall(text)])
    return _until(text)


def _unit(name: str) -> float:
    return next(seconds for beginning, seconds in _UNITS.items() if name.startswith(beginning))


def _until(text: str) -> float | None:
    """Seconds until a moment in ISO 8601."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
