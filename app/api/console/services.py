"""What the console's pages work with."""

from msgspec import Struct

from app.api.admin.services import AdminServices
from app.api.middleware.auth import IssuedKeys


class ConsoleServices(Struct, frozen=True):
    """What the console's pages work with.

    Args:
        admin: The same that the admin API works with.
        keys: Finds the holder of a key who signs in with it.
    """

    admin: AdminServices
    keys: IssuedKeys
