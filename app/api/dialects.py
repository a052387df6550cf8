"""Which dialect a client speaks: known before its key is, since even a refusal is said in it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from starlette.types import Scope

from app.domain.errors import GatewayError


@dataclass(frozen=True, slots=True)
class Dialect:
    """What middlewares and error handlers have to know of a dialect.

    Args:
        error_body: The body of an error's response, from the error and the request's id.
        paths: The addresses that are the dialect's own; those below them are too.
        shared_paths: Addresses that several dialects have.
        marks: Request headers, in small letters, that tell its clients from others at shared addresses.
        request_id_header: Where its clients look for the request's id, besides `x-request-id`.
    """

    error_body: Callable[[GatewayError, str], bytes]
    paths: tuple[str, ...] = ()
    shared_paths: tuple[str, ...] = ()
    marks: frozenset[bytes] = frozenset()
    request_id_header: str = "x-request-id"

    def is_spoken(self, scope: Scope) -> bool:
        """Is this request one of the dialect's?"""
        path = scope["path"]
        if _is_below(path, self.paths):
            return True
        return _is_below(path, self.shared_paths) and any(name in self.marks for name, _ in scope["headers"])


def dialect_of(scope: Scope, dialects: Iterable[Dialect], default: Dialect) -> Dialect:
    """The first dialect that the request is in, else the default."""
    return next((dialect for dialect in dialects if dialect.is_spoken(scope)), default)


def _is_below(path: str, prefixes: Iterable[str]) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)
