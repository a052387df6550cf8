"""How often somebody may try something, within this worker: sign-ins, which have to be few."""

import time
from collections.abc import Callable

from cachetools import TTLCache

_MOST_ADDRESSES = 10_000


class Tries:
    """Counts tries in windows of time.

    Args:
        together: How many there may be in all.
        each: How many from one address.
        seconds: The window.
        clock: Seconds that pass.
    """

    def __init__(
        self, *, together: int, each: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._together = together
        self._each = each
        # Lists of one number, because another assignment would begin the window anew.
        self._counts: TTLCache[str, list[int]] = TTLCache(_MOST_ADDRESSES, seconds, clock)

    def take(self, address: str) -> bool:
        """Count a try, if it may be; whether it may."""
        bounds = (("", self._together), (f"@{address}", self._each))
        counts = [(self._counts.setdefault(name, [0]), most) for name, most in bounds]
        if any(count[0] >= most for count, most in counts):
            return False
        for count, _ in counts:
            count[0] += 1
        return True
