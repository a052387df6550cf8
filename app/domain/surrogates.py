"""Texts that came in pieces which may end in the middle of a character. Pure."""


def whole_pairs(text: str) -> tuple[str, str]:
    """The text without lone surrogates, which UTF-8 can't encode; and the half at its end, if there is one.

    The other half of that may come with the next piece.
    """
    half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
    whole = text[:-1] if half else text
    return whole.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), half
