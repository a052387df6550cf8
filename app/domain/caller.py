"""The caller of a request."""

import hashlib
from fnmatch import fnmatchcase
from typing import Literal, get_args

from msgspec import Struct

# What a key may do: talk to models, read /metrics, look at the administration, change it.
Scope = Literal["chat", "metrics", "admin:read", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
# The project of callers that no database knows.
ENVIRONMENT = "environment"


class Caller(Struct, frozen=True):
    """The owner of one API key.

    Args:
        id: Stands for the key wherever the key itself must not appear: in logs, metrics, session keys and the ledger.
        name: What the operator calls it.
        project: The name of its project.
        scopes: What it may do.
        models: Patterns, in lower case, of the model names that it may use (`kimi*`); None for all.
        expires_at: When the key stops opening, in seconds since the epoch; None for never.
    """

    id: str
    name: str = ""
    project: str = ENVIRONMENT
    scopes: frozenset[Scope] = frozenset({"chat", "metrics"})
    models: tuple[str, ...] | None = None
    expires_at: float | None = None

    def may_use(self, model: str) -> bool:
        """Whether it may use a model, a route or an alias of that name."""
        return self.models is None or any(fnmatchcase(model.lower(), pattern) for pattern in self.models)


def caller_of_key(api_key: str) -> Caller:
    """The caller of a key from the environment. Its id is a short digest that can't be turned back into the key."""
    caller_id = "key-" + hashlib.sha256(api_key.encode()).hexdigest()[:12]
    return Caller(id=caller_id, name=caller_id)
