"""References within a JSON Schema."""

from collections.abc import Mapping
from urllib.parse import unquote


def resolve(root: Mapping[str, object], reference: object) -> object:
    """The part of a schema that a reference such as `#/$defs/City` leads to; None for any other reference."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    place: object = root
    for step in unquote(reference[1:]).split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(place, Mapping):
            place = place.get(key)
        elif isinstance(place, list) and key.isdecimal() and int(key) < len(place):
            place = place[int(key)]
        else:
            return None
    return place if reference == "#" or reference.startswith("#/") else None
