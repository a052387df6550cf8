"""A JSON answer, read from a model's reply: alone, in a code fence or among words, and checked."""

from app.domain.emulation.jsontext import decode, dumps
from app.domain.emulation.reading import Fault
from app.domain.emulation.repair import repaired
from app.domain.emulation.schema import SchemaCheck

# How many opening brackets in the words around an answer are tried; it bounds the work on a reply full of them.
_MOST_TRIES = 16
_PREVIEW = 60


def read_json(reply: str, check: SchemaCheck | None) -> str:
    """The JSON text in a reply, as the model wrote it where it is valid JSON.

    Args:
        reply: What the model answered, without its thinking.
        check: What the answer must fit; None for any object.

    Raises:
        Fault: There is no JSON in it, or more than one, or it doesn't fit.
    """
    body = reply.strip()
    opening = "{" if check is None or _is_object_only(check) else "{["
    value, text = _whole(body) or _only_one(body, opening)
    if check is None:
        if not isinstance(value, dict):
            raise Fault("it is no JSON object")
        return text
    faults = check.faults(value)
    if not faults:
        return text
    value = check.coerced(value)
    if check.faults(value):
        raise Fault(f"it doesn't fit the schema ({'; '.join(faults)})")
    return dumps(value)


def _is_object_only(check: SchemaCheck) -> bool:
    return check.schema.get("type") == "object" or "properties" in check.schema


def _whole(body: str) -> tuple[object, str] | None:
    try:
        value, end = decode(body, 0)
    except ValueError:
        return None
    return (value, body) if end == len(body) else None


def _only_one(body: str, opening: str) -> tuple[object, str]:
    """The one JSON value in a text; if there is none that is valid, the one that was meant."""
    found: list[tuple[object, str]] = []
    place, first = 0, -1
    for _ in range(_MOST_TRIES):
        place = min((at for char in opening if (at := body.find(char, place)) >= 0), default=-1)
        if place < 0:
            break
        first = place if first < 0 else first
        try:
            value, end = decode(body, place)
        except ValueError:
            place += 1
            continue
        found.append((value, body[place:end]))
        place = end
    if len(found) > 1:
        raise Fault("there is more than one JSON value in it")
    if found and _stands_alone(body, first, found[0][1]):
        return found[0]
    if first < 0:
        raise Fault(f"there is no JSON in it, but {body[:_PREVIEW]!r}" if body else "it is empty")
    return _meant(body[first:])


def _stands_alone(body: str, first: int, text: str) -> bool:
    """Is a value not merely a part of one that could not be read? Words before it may have brackets of their own."""
    before = body[first : body.find(text, first)]
    return before.count("{") == before.count("}") and '"' not in before


def _meant(text: str) -> tuple[object, str]:
    end = max(text.rfind("}"), text.rfind("]"))
    if end < 0:
        raise Fault("it is cut off")
    try:
        value = repaired(text[: end + 1], may_close=False)
    except ValueError as error:
        raise Fault(f"{error}, or it is cut off") from error
    return value, dumps(value)
