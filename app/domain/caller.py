"""The caller of a request."""

import hashlib

from msgspec import Struct


class Caller(Struct, frozen=True):
    """The owner of one API key.

    `id` stands for the key wherever the key itself must not appear: in logs, metrics and session keys.
    """

    id: str


def caller_of_key(api_key: str) -> Caller:
    """The caller of a key. Its id is a short digest that can't be turned back into the key."""
    return Caller(id="key-" + hashlib.sha256(api_key.encode()).hexdigest()[:12])
