"""The ids that the gateway gives requests: `req_`, and 64 bits in hex that tell when the request came.

They are kept in eight bytes, and a request is found by its id without an index of all ids.
"""

import random
import re
import time
from itertools import count

_COUNT_BITS = 22
_COUNT_MASK = (1 << _COUNT_BITS) - 1
_OWN = re.compile(r"req_([0-7][0-9a-f]{15})")


class RequestIds:
    """Makes ids: 41 bits of milliseconds, and 22 of a counter that begins anywhere.

    Two processes make the same one only if their counters meet within a millisecond. It grants nothing, so it may be
    predictable.
    """

    __slots__ = ("_count",)

    def __init__(self) -> None:
        self._count = count(random.getrandbits(_COUNT_BITS))

    def new(self) -> str:
        """Another id."""
        milliseconds = time.time_ns() // 1_000_000
        return written(milliseconds << _COUNT_BITS | next(self._count) & _COUNT_MASK)


def number_of(request_id: str) -> int | None:
    """The number in an id that has the gateway's own form; None for any other. It is below 2^63."""
    match = _OWN.fullmatch(request_id)
    return int(match[1], 16) if match else None


def written(number: int) -> str:
    """The id with this number in it."""
    # Twice as fast as formatting the number.
    return "req_" + number.to_bytes(8, "big").hex()


def time_in(number: int) -> int:
    """When the request came that an id with this number was made for, in milliseconds since the epoch."""
    return number >> _COUNT_BITS
