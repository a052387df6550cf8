"""What secure connections need to know."""

import asyncio
import contextlib
import ssl


class Tls:
    """Whom to trust: all certificates of this machine. Read when first asked for, by a thread, for it takes a while.

    Share one among clients. Use it in one event loop only.
    """

    def __init__(self) -> None:
        self._making = asyncio.Lock()
        self._context: ssl.SSLContext | None = None

    async def context(self) -> ssl.SSLContext:
        """For connections to servers."""
        async with self._making:
            if self._context is None:
                self._context = await asyncio.to_thread(_make)
            return self._context


def _make() -> ssl.SSLContext:
    context = ssl.create_default_context()
    with contextlib.suppress(NotImplementedError):  # an OpenSSL without it
        context.set_alpn_protocols(["http/1.1"])
    return context
