"""How many tokens a text is: a documented estimate.

One token is taken to be four bytes of UTF-8. That is the well-known four characters for English, 0.75 tokens for a
Chinese character, half a token for a Cyrillic or Greek letter and one for an emoji: near enough to what byte-pair
tokenizers give for each of them, additive, and computed at the speed of `str.encode`.
"""

BYTES_PER_TOKEN = 4


def utf8_size(text: str) -> int:
    """Bytes of the text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def estimate(text: str) -> int:
    """Estimated tokens of a text: 0 for an empty one, at least 1 for any other."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return -(-size // BYTES_PER_TOKEN)
