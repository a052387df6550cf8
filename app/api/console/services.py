"""What the console's pages work with."""

from msgspec import Struct

from app.api.admin.services import AdminServices
from app.api.middleware.auth import IssuedKeys
from app.api.playground_services import PlaygroundServices
from app.limits.limiter import Without
from app.limits.overview import Overview


class ConsoleServices(Struct, frozen=True):
    """What the console's pages work with.

    Args:
        admin: The same that the admin API works with.
        keys: Finds the holder of a key who signs in with it.
        overview: Says how limits stand.
        playground: Answers its calls.
        without_database: What becomes of limited calls while the database is away.
    """

    admin: AdminServices
    keys: IssuedKeys
    overview: Overview
    playground: PlaygroundServices
    without_database: Without
