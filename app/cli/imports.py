"""What is done around the import of many modules."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import BaseModel, ConfigDict


@contextmanager
def light_imports() -> Iterator[None]:
    """Keep imports from doing what nobody may need, so that a start takes less.

    The garbage collector doesn't look through what is imported, neither now nor later: it would find next to nothing,
    in a tenth of a second. Models, those of FastAPI's OpenAPI documents above all, are built when they are first used,
    but for those that say `defer_build=False`.
    """
    gc.disable()
    usual, BaseModel.model_config = BaseModel.model_config, ConfigDict(defer_build=True)
    try:
        yield
    finally:
        BaseModel.model_config = usual
        gc.freeze()
        gc.enable()
