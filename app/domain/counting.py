"""Numbers in sentences."""


def counted(number: int, noun: str) -> str:
    """A number and what it counts, as in `1 key` or `2,000 keys`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
