"""Encrypts what is secret before it is stored: AES with an HMAC (Fernet), with keys that are made of `SECRET_KEY`."""

import base64
import hashlib
import importlib
from typing import Any

# Each key of SECRET_KEY takes so much work to try, 16 MB and some 50 milliseconds: somebody may have chosen words.
_COST, _BLOCK, _PARALLEL = 2**14, 8, 1
_SALT = b"kimi-ai-2api/SECRET_KEY"


class SealFault(Exception):
    """Something can't be encrypted or decrypted; says why, and what to set."""


class Sealer:
    """Seals texts, and opens what was sealed with any of its keys. Its first use takes a while: not on an event loop.

    Args:
        keys: The first one seals.
    """

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = keys
        self._fernet: Any = None

    @property
    def can_seal(self) -> bool:
        """Whether it has a key."""
        return bool(self._keys)

    def seal(self, text: str) -> str:
        """Encrypt a text.

        Raises:
            SealFault: There is no key.
        """
        if not self._keys:
            raise SealFault(
                "SECRET_KEY is not set, and what is secret is only stored encrypted: set it on every worker to what "
                "`openssl rand -base64 32` prints, and restart. An upstream without a key, or with `key_env`, needs "
                "none."
            )
        return str(self._made().encrypt(text.encode()).decode())

    def open(self, sealed: str) -> str:
        """Decrypt a text.

        Raises:
            SealFault: It was sealed with another key, or it was damaged.
        """
        if not self._keys:
            raise SealFault("SECRET_KEY is not set, and its key is encrypted")
        made = self._made()
        try:
            return str(made.decrypt(sealed.encode()).decode())
        except importlib.import_module("cryptography.fernet").InvalidToken:
            raise SealFault("its key was encrypted with another SECRET_KEY") from None

    def _made(self) -> Any:
        if self._fernet is None:
            # Imported only now: it takes 11 MB, and most gateways keep no keys of upstreams in the database.
            fernet = importlib.import_module("cryptography.fernet")
            self._fernet = fernet.MultiFernet([fernet.Fernet(_derived(key)) for key in self._keys])
        return self._fernet


def _derived(key: str) -> bytes:
    return base64.urlsafe_b64encode(hashlib.scrypt(key.encode(), salt=_SALT, n=_COST, r=_BLOCK, p=_PARALLEL, dklen=32))
