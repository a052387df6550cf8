"""A message's content, once its parts have been read. Pure."""

from collections.abc import Sequence

from app.domain.chat import Image

Part = str | Image


def text_and_parts(parts: Sequence[Part]) -> tuple[str, tuple[Part, ...]]:
    """The text of a message, and its parts if there are images among them; `[image]` stands where one is."""
    text = "\n".join(part if isinstance(part, str) else "[image]" for part in parts)
    return text, tuple(parts) if any(isinstance(part, Image) for part in parts) else ()
