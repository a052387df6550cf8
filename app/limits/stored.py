"""The limits that hold: those of the database, and where it has none those of the settings."""

from msgspec import Struct

from app.domain.granting import Scope
from app.domain.limits import Limit, texts_of
from app.limits.book import LimitBook
from app.storage.audit import Actor, note_action
from app.storage.database import Connection, Database
from app.storage.limits import limits_of_scope, set_limits, stored_limits

# What the audit log calls changes of limits.
LIMITS_SET, LIMITS_UNSET = "limits.set", "limits.unset"
_SETTINGS = {"key": "DEFAULT_LIMITS", "upstream": "UPSTREAM_LIMITS", "gateway": "GATEWAY_LIMITS"}


class StoredBook(Struct, frozen=True):
    """The limits that hold.

    Args:
        set_scopes: Those that have limits in the database; all others have those of the settings.
    """

    book: LimitBook
    set_scopes: frozenset[Scope]

    @classmethod
    def read(cls, connection: Connection, book: LimitBook) -> "StoredBook":
        """What the database says.

        Args:
            book: Has the limits of the settings, and takes in the others.
        """
        stored = stored_limits(connection)
        book.set_stored(stored)
        return cls(book, frozenset(stored))

    def origin(self, scope: Scope) -> str:
        """Where a scope's limits come from: `set`, or a setting's name; empty if it has none."""
        if scope in self.set_scopes:
            return "set"
        return _SETTINGS.get(scope.kind, "") if self.book.of(scope) else ""

    def text(self, scope: Scope) -> str:
        """A scope's limits, and where they come from if they were not set."""
        limits, origin = texts_of(self.book.of(scope)), self.origin(scope)
        return limits if origin in ("", "set") else f"{limits} ({origin})"


def change_limits(
    database: Database, connection: Connection, actor: Actor, scope: Scope, limits: tuple[Limit, ...] | None
) -> None:
    """Set a scope's limits, and write down who has changed which; None for those of the settings."""
    # Else who changes the same meanwhile would be missing in what is written down.
    database.hold_back_writers(connection)
    before = limits_of_scope(connection, scope)
    after = None if limits is None else texts_of(limits)
    if before == after:
        return
    set_limits(database, connection, scope, after)
    note_action(
        connection,
        actor,
        LIMITS_UNSET if after is None else LIMITS_SET,
        scope.text,
        before=None if before is None else {"limits": before},
        after=None if after is None else {"limits": after},
    )
