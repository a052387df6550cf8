"""The headers of an answer."""

from collections.abc import Iterator, Mapping
from typing import Any


class Headers(Mapping[str, str]):
    """Made texts of when they are asked for: of twenty headers hardly two ever are.

    Args:
        raw: As they came, but for their names, which are in lower case; so must those be that are asked for.
    """

    __slots__ = ("_raw",)

    def __init__(self, raw: Mapping[bytes, bytes]) -> None:
        self._raw = raw

    def get(self, name: str, /, default: object = None) -> Any:
        value = self._raw.get(name.encode("latin-1", "replace"))
        return default if value is None else value.decode("latin-1")

    def __getitem__(self, name: str) -> str:
        return self._raw[name.encode("latin-1", "replace")].decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._raw)

    def __len__(self) -> int:
        return len(self._raw)
