"""What is done around the import of many modules."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """Keep the garbage collector from looking through what is imported: that takes time, and finds nothing."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
