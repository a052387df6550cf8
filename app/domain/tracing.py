"""How the core marks what takes time, without knowing who measures it."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Trace(Protocol):
    """Opens a span: a named stretch of time within the running request."""

    def __call__(self, name: str, /) -> AbstractContextManager[object]:
        """The span, to be used in a `with` statement; an exception that leaves it marks it as failed."""
        ...


def no_trace(_: str) -> AbstractContextManager[object]:
    """Nobody measures."""
    return nullcontext()
