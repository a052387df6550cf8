"""Spans: how the core marks what takes time, without knowing who measures it.

`app/observe/otel.py` sends them to a collector, `app/observe/metrics.py` times them, and
`app/api/middleware/tracing.py` opens the one around each request.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Trace(Protocol):
    """Opens a span: a named stretch of time within the running request."""

    def __call__(self, name: str, /) -> AbstractContextManager[object]:
        """Return the span, for a `with` statement. An exception that leaves it marks it as failed."""
        ...


def no_trace(_: str) -> AbstractContextManager[object]:
    """Open a span that nobody measures."""
    return nullcontext()
