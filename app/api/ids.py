"""Names for requests and answers."""

import random


def unique_id(prefix: str, size: int) -> str:
    """An id that no other has; it opens nothing, so that it need not be one that nobody could guess.

    Args:
        prefix: How it begins.
        size: Random bytes in it, written in hex.
    """
    return prefix + random.randbytes(size).hex()  # noqa: S311 - see above
