"""Texts with halves of characters in them: of escapes, or in pieces that end in the middle of one. Pure."""


def without_halves(text: str) -> str:
    """The text with its surrogate pairs as characters, and without lone surrogates, which UTF-8 can't encode."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def whole_pairs(text: str) -> tuple[str, str]:
    """As `without_halves`; and the half at the end, if there is one.

    The other half of that may come with the next piece.
    """
    half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
    return without_halves(text[:-1] if half else text), half
