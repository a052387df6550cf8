"""Parts of a conversation in the way that forms of API other than OpenAI's want them. Pure."""

import re

from app.domain.chat import Image, ToolCall
from app.domain.json import read_json_object, repaired_object_text

# The API wants the user to speak first, and every turn to say something.
BEFORE_AN_ANSWER = "(The conversation begins.)"
NOTHING = "(nothing)"
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w=.+-]+)*;base64,", re.IGNORECASE)


def image_data(image: Image) -> tuple[str, str] | None:
    """The media type of an image and its data in base64; None if it has an address instead."""
    head = _DATA_URL.match(image.url)
    return None if head is None else (head[1].lower(), image.url[head.end() :])


def is_web_address(image: Image) -> bool:
    """Whether an upstream could fetch the image."""
    return image.url.startswith(("http://", "https://"))


def arguments_of(call: ToolCall) -> dict[str, object]:
    """A call's arguments as an object; those that a client broke off are mended."""
    return read_json_object(repaired_object_text(call.arguments).encode("utf-8", "replace")) or {}
