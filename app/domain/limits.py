"""Limits as people write them: `60 requests/minute`, `5 at once`, `1M tokens/day`, `$10/month for kimi*`."""

import re
from datetime import datetime, timedelta
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Literal, get_args
from zoneinfo import ZoneInfo

from msgspec import Struct

# What is counted. Dollars are in nano-dollars wherever they are numbers.
Measure = Literal["requests", "tokens", "input tokens", "output tokens", "dollars", "at once"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
Window = Literal["second", "minute", "hour", "day", "week", "month", "total", ""]
# `bucket`: refills steadily. `quota`: what the ledger says of a calendar period. `permits`: taken and given back.
Kind = Literal["bucket", "quota", "permits"]

NANO = 1_000_000_000
_SECONDS: dict[str, int] = {"second": 1, "minute": 60, "hour": 3600}
_WINDOWS: dict[str, Window] = {
    "s": "second",
    "sec": "second",
    "second": "second",
    "m": "minute",
    "min": "minute",
    "minute": "minute",
    "h": "hour",
    "hour": "hour",
    "d": "day",
    "day": "day",
    "w": "week",
    "week": "week",
    "month": "month",
    "total": "total",
}
_FACTORS = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000, "b": 1_000_000_000}
_MOST = 10**15
_MOST_LIMITS = 16
_LONGEST_PATTERN = 100
_LIMIT = re.compile(
    r"(?P<dollar>\$\s*)?(?P<number>\d[\d,_]*(?:\.\d+)?|\.\d+)\s*(?P<factor>[kmgb](?![a-z]))?\s*"
    r"(?P<what>at\s+once|requests?|(?:(?:input|output)\s+)?tokens?)?\s*"
    r"(?:(?:/|per\s|an?\s|in\s)\s*(?P<window>[a-z]+))?\s*(?:for\s+(?P<pattern>\S+))?",
    re.IGNORECASE,
)
# Up to a comma, a semicolon or a line's end; the commas of a number such as `1,000` don't separate.
_PART = re.compile(r"(?:(?<![^\s$,;])[\d_]+(?:,\d{3})+(?!\d)|[^,;\n])+")
_EXAMPLES = (
    "write for example `60 requests/minute`, `100k tokens/hour`, `5 at once`, `$10/month` or `1M tokens/day for kimi*`"
)


class Limit(Struct, frozen=True):
    """How much of something may be used in a time.

    Args:
        amount: Requests, tokens, nano-dollars, or calls at once.
        window: `second`, `minute` and `hour` refill steadily; `day`, `week`, `month` and `total` are periods of the
            calendar; empty for calls at once.
        pattern: The models that it counts, such as `kimi*`; empty for all.
    """

    amount: int
    measure: Measure
    window: Window
    pattern: str = ""

    @property
    def kind(self) -> Kind:
        """How it is kept."""
        if self.measure == "at once":
            return "permits"
        return "bucket" if self.window in _SECONDS else "quota"

    @property
    def seconds(self) -> int:
        """The window of a bucket."""
        return _SECONDS[self.window]

    @property
    def name(self) -> str:
        """What it counts, without how much: of these a subject has at most one each."""
        window = f"/{self.window}" if self.window else ""
        return f"{self.measure}{window}{f' for {self.pattern}' if self.pattern else ''}"

    @property
    def text(self) -> str:
        """The limit as people write it."""
        if self.measure == "at once":
            words = f"{self.amount} at once"
        else:
            window = " in total" if self.window == "total" else f"/{self.window}"
            words = f"{amount_in_words(self.amount, self.measure)}{window}"
        return f"{words} for {self.pattern}" if self.pattern else words

    def counts(self, model: str) -> bool:
        """Whether it counts calls of a model: by its name, or by what follows an upstream's or a maker's name in it.

        A model that no upstream lists is called `moonshot/kimi-x`, even if it was asked for as `kimi-x`.
        """
        if not self.pattern:
            return True
        name, slash = model.lower(), "/"
        while slash:
            if fnmatchcase(name, self.pattern):
                return True
            _, slash, name = name.partition("/")
        return False


class Headroom(Struct, frozen=True):
    """How much a limit still leaves, as far as this worker knows.

    Args:
        reset: Seconds until all of it is free again; infinite if that never comes by itself.
    """

    limit: Limit
    remaining: int
    reset: float


def amount_in_words(amount: int, measure: Measure) -> str:
    """How much of something, such as `100k tokens` or `$0.25`."""
    if measure == "dollars":
        cents = f"{amount // NANO}.{amount % NANO:09}".rstrip("0")
        whole, _, rest = cents.partition(".")
        return f"${whole}.{rest:0<2}" if rest else f"${whole}"
    if measure == "at once":
        return f"{amount}"
    number = f"{amount}"
    for factor, letter in ((1_000_000, "M"), (1_000, "k")):
        if amount >= 10_000 and amount % factor == 0:
            number = f"{amount // factor}{letter}"
            break
    return f"{number} {measure.removesuffix('s') if amount == 1 else measure}"


def measured(measure: Measure, *, requests: int, tokens_in: int, tokens_out: int, cost: int) -> int:
    """What of some use a limit of this measure counts. Calls at once are counted otherwise.

    Args:
        cost: In nano-dollars.
    """
    return all_measured(requests, tokens_in, tokens_out, cost)[MEASURES.index(measure)]


def all_measured(requests: int, tokens_in: int, tokens_out: int, cost: int, at_once: int = 0) -> tuple[int, ...]:
    """The same for all measures, in their order: whoever has several limits looks into one tuple for all of them."""
    return (requests, tokens_in + tokens_out, tokens_in, tokens_out, cost, at_once)


def read_limits(text: str) -> tuple[Limit, ...]:
    """Read limits, separated by commas, semicolons or line ends; `none` or nothing for none.

    Raises:
        ValueError: It says something else.
    """
    if text.strip().lower() in ("", "none"):
        return ()
    limits = tuple([read_limit(part) for part in _PART.findall(text) if part.strip()])
    if len(limits) > _MOST_LIMITS:
        raise ValueError(f"there are {len(limits)} limits; at most {_MOST_LIMITS} are possible")
    names = [limit.name for limit in limits]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"there are two limits of {twice}; only one of each kind is possible")
    return limits


def read_limit(text: str) -> Limit:
    """Read one limit.

    Raises:
        ValueError: It says something else.
    """
    # One space at most between words: `_LIMIT` tries each way to divide a longer gap.
    text = " ".join(text.split())
    shown = text[:60]
    found = _LIMIT.fullmatch(text)
    if found is None:
        raise ValueError(f"{shown!r} is not a limit; {_EXAMPLES}")
    what = " ".join((found["what"] or "").lower().split())
    if found["dollar"]:
        if what:
            raise ValueError(f"{shown!r} counts dollars and {what} at once; {_EXAMPLES}")
        measure: Measure = "dollars"
    else:
        measure = _measure(what, shown)
    window = _window(found["window"], measure, shown)
    number = Decimal(found["number"].replace(",", "").replace("_", "")) * _FACTORS[(found["factor"] or "").lower()]
    most = _MOST * (1000 if measure == "dollars" else 1)
    # Bounded before it is rounded: a number may have any length.
    amount = round(min(number * NANO if measure == "dollars" else number, Decimal(most + 1)))
    if amount < 1:
        raise ValueError(f"{shown!r}: the number has to be at least 1 (to let nothing through, pause the key)")
    if amount > most:
        raise ValueError(f"{shown!r}: the number is too large (for no limit, leave it out)")
    pattern = (found["pattern"] or "").lower()
    if not pattern.isprintable():  # such as what comes along invisibly from a web page: no model is called so
        raise ValueError(f"{shown!r}: the name of the models has characters that can't be seen")
    if len(pattern) > _LONGEST_PATTERN:
        raise ValueError(f"{shown!r}: the name of the models is too long")
    return Limit(amount, measure, window, "" if pattern == "*" else pattern)


def texts_of(limits: tuple[Limit, ...]) -> str:
    """Limits as people write them, on one line; `none` for none."""
    return ", ".join([limit.text for limit in limits]) or "none"


class Period(Struct, frozen=True):
    """A day, a week or a month of a calendar, or all time. From `start` on, before `end`, in ms since the epoch."""

    name: str
    start: int
    end: int


_ALL_TIME = Period("total", 0, 2**62)


def period_at(window: Window, milliseconds: int, zone: ZoneInfo) -> Period:
    """The calendar's period that a time is in. Weeks begin on Monday."""
    if window == "total":
        return _ALL_TIME
    day = datetime.fromtimestamp(milliseconds / 1000, zone).date()
    if window == "month":
        first, following = day.replace(day=1), (day.replace(day=28) + timedelta(days=4)).replace(day=1)
    elif window == "week":
        first = day - timedelta(days=day.weekday())
        following = first + timedelta(days=7)
    else:
        first, following = day, day + timedelta(days=1)
    start, end = [
        # Where a change of the clock skips midnight, this is the moment of the change.
        round(datetime(date.year, date.month, date.day, tzinfo=zone).timestamp() * 1000)
        for date in (first, following)
    ]
    name = first.isoformat()
    return Period(name[:7] if window == "month" else f"{name}/7" if window == "week" else name, start, end)


def _measure(what: str, shown: str) -> Measure:
    if what == "at once":
        return "at once"
    if what.startswith("request"):
        return "requests"
    for measure in ("tokens", "input tokens", "output tokens"):
        if what in (measure, measure.removesuffix("s")):
            return measure
    raise ValueError(f"{shown!r} doesn't say of what; {_EXAMPLES}")


def _window(word: str | None, measure: Measure, shown: str) -> Window:
    if measure == "at once":
        if word:
            raise ValueError(f"{shown!r}: `at once` has no time; {_EXAMPLES}")
        return ""
    name = (word or "").lower()
    # Words may be in the plural, letters may not: `ms` isn't minutes.
    window = _WINDOWS.get(name.removesuffix("s") if len(name) > 2 else name)
    if window is None:
        raise ValueError(f"{shown!r} needs a time: second, minute, hour, day, week, month, or `in total`")
    if measure == "dollars" and window in _SECONDS:
        raise ValueError(f"{shown!r}: dollars are counted by day, week, month, or in total")
    return window
