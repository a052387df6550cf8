"""Ids of calls, of which no answer has two that are equal. Pure."""

import secrets


class CallIds:
    """Makes ids unique within an answer: the first of two keeps its own.

    Args:
        prefix: How ids begin that are made here.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._known: set[str] = set()

    def unique(self, given: object) -> str:
        """The id itself, or a new one if it is none, or not the first."""
        found = given if isinstance(given, str) and given else ""
        if not found or found in self._known:
            found = f"{self._prefix}{secrets.token_hex(12)}"
        self._known.add(found)
        return found
