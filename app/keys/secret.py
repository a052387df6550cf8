"""The text of a key: `sk-kimi-`, 32 random characters, and 6 that check them."""

import hashlib
import secrets
import string
import zlib

PREFIX = "sk-kimi-"
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
# 32 of 62 characters are 190 bits.
_RANDOM, _CHECK = 32, 6
_LENGTH = len(PREFIX) + _RANDOM + _CHECK
_HINT = 4


def make_secret() -> str:
    """A new key. Nobody keeps it: whoever asked for it sees it once."""
    begin = PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM))
    return begin + _check_of(begin)


def make_id(prefix: str) -> str:
    """A new id of a key or a project, such as `k_9fJ3kQ2mXb`. It opens nothing."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(11))


def is_well_formed(presented: bytes) -> bool:
    """Whether a key can be one of ours. A typo is found without asking the database."""
    if len(presented) != _LENGTH or not presented.startswith(PREFIX.encode()) or not presented.isascii():
        return False
    text = presented.decode()
    return _check_of(text[:-_CHECK]) == text[-_CHECK:]


def digest_of(secret: str) -> str:
    """What is kept of a key: its SHA-256 in hex. With this many random bits a slower hash would add nothing."""
    return hashlib.sha256(secret.encode()).hexdigest()


def hint_of(secret: str) -> str:
    """How a key is shown later: enough for its owner to know it by."""
    return f"{secret[: len(PREFIX) + _HINT]}…{secret[-_HINT:]}"


def _check_of(text: str) -> str:
    number, digits = zlib.crc32(text.encode()), ""
    for _ in range(_CHECK):
        number, digit = divmod(number, len(_ALPHABET))
        digits += _ALPHABET[digit]
    return digits
