"""Spans of time as people write them, and the years that times may lie in."""

import re

# Later times may have no year that can be written, in another time zone.
FIRST_YEAR, LAST_YEAR = 1971, 9998
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SPAN = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)([smhdw])")


def span(text: str) -> float:
    """The seconds of a span such as `90s`, `15m`, `24h`, `30d` or `2w`.

    Raises:
        ValueError: It is none.
    """
    match = _SPAN.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is not a span of time such as 15m, 24h or 30d")
    return float(match[1]) * _SECONDS[match[2]]
