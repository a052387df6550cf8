"""Importing much at once."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """Keep the garbage collector from looking through what is being imported: there is none, and it takes as long."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
