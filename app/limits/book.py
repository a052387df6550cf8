"""Which limits there are."""

from collections.abc import Mapping, Sequence

import structlog

from app.domain.granting import Scope
from app.domain.limits import Limit, read_limits

_log = structlog.get_logger("kimi.limits")


class LimitBook:
    """The limits of keys, projects, upstreams and the gateway.

    Args:
        default: Of each key that has none of its own.
        fixed: Of others, from the settings.

    Attributes:
        version: Another one after each change.
        limits_upstreams: Whether any upstream has a limit.
        limits_calls: Whether anybody else has one.
    """

    def __init__(self, default: Sequence[Limit] = (), fixed: Mapping[Scope, Sequence[Limit]] | None = None) -> None:
        self._default = tuple(default)
        self._fixed = {scope: tuple(limits) for scope, limits in (fixed or {}).items()}
        self._stored: dict[Scope, tuple[Limit, ...]] = {}
        self.version = 0
        self._note_whose()

    def set_stored(self, texts: Mapping[Scope, str]) -> None:
        """Take in all limits that the database has; they win over those from the settings."""
        stored = {}
        for scope, text in texts.items():
            try:
                stored[scope] = read_limits(text)
            except ValueError as error:  # a newer gateway's
                _log.error("limits_unreadable", scope=f"{scope.kind}:{scope.name}", reason=str(error))
        if stored != self._stored:
            self._stored = stored
            self.version += 1
            self._note_whose()

    def of(self, scope: Scope) -> tuple[Limit, ...]:
        """The limits of a scope."""
        limits = self._stored.get(scope)
        if limits is None:
            limits = self._fixed.get(scope)
        if limits is None:
            limits = self._default if scope.kind == "key" else ()
        return limits

    def _note_whose(self) -> None:
        kinds = {scope.kind for scope, limits in (*self._fixed.items(), *self._stored.items()) if limits}
        self.limits_upstreams = "upstream" in kinds
        self.limits_calls = bool(self._default or kinds - {"upstream"})
