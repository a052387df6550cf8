"""The store that the workers of one or many machines share: the database."""

import platform
import secrets
from collections.abc import Sequence
from itertools import count

from app import __version__
from app.domain.granting import Claim, Exchanged
from app.limits.store import StoreAway
from app.storage.clock import now
from app.storage.database import Database, DatabaseAway
from app.storage.limits import StaleMessage, Worker, exchange


class SharedStore:
    """Divides limits in the database. See `LimitStore`.

    Args:
        database: Where they are kept.

    Attributes:
        worker: How this worker presents itself.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.worker = Worker(f"w_{secrets.token_hex(6)}", platform.node()[:100], __version__, now())
        self._messages = count(1)

    async def exchange(self, claims: Sequence[Claim]) -> Exchanged:
        """See `LimitStore`."""
        number = next(self._messages)
        database, worker = self._database, self.worker
        try:
            return await database.run(lambda connection: exchange(database, connection, worker, number, claims))
        except StaleMessage:
            raise StoreAway("a later message has been answered before") from None
        except DatabaseAway as error:
            raise StoreAway(str(error)) from None
