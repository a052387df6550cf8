"""Reads a JSON answer from a model's reply, where it stands alone, in a code fence or among words, and checks it."""

from app.domain.emulation.coercion import coerced
from app.domain.emulation.jsontext import Fault, decode, dumps
from app.domain.emulation.repair import repaired
from app.domain.emulation.schema import Effort, SchemaCheck

# How many opening brackets are tried, which bounds the work on a reply full of them.
_MOST_TRIES = 16
_PREVIEW = 60


def read_json(reply: str, check: SchemaCheck | None, effort: Effort | None = None) -> str:
    """The JSON text in a reply, unchanged if it is valid JSON.

    Args:
        reply: What the model answered, without its thinking.
        check: The schema that the answer must fit; None for any object.
        effort: What may still be spent on checking it.

    Raises:
        Fault: The reply has no JSON value or more than one, or the value doesn't fit.
    """
    body = reply.strip()
    opening = "{" if check is None or _is_object_only(check) else "{["
    value, text = whole_json(body) or only_json(body, opening)
    if check is None:
        if not isinstance(value, dict):
            raise Fault("it is not a JSON object")
        return text
    effort = Effort() if effort is None else effort
    faults = check.faults(value, effort)
    if not faults:
        return text
    value = coerced(value, check, effort)
    if check.faults(value, effort):
        raise Fault(f"it doesn't fit the schema ({'; '.join(faults)})")
    return dumps(value)


def _is_object_only(check: SchemaCheck) -> bool:
    return check.schema.get("type") == "object" or "properties" in check.schema


def whole_json(body: str) -> tuple[object, str] | None:
    """The JSON value that a text is, and its text; None if it is anything else."""
    try:
        value, end = decode(body, 0)
    except ValueError:
        return None
    return (value, body) if end == len(body) else None


def only_json(body: str, opening: str) -> tuple[object, str]:
    """The only JSON value in a text, and its text; repaired if none is valid.

    Args:
        body: The text.
        opening: The brackets with which the value may begin.

    Raises:
        Fault: There is none, or more than one.
    """
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
    return _repaired(body[first:])


def _stands_alone(body: str, first: int, text: str) -> bool:
    """Whether a value isn't just a part of one that could not be read. Words before it may contain brackets."""
    before = body[first : body.find(text, first)]
    return before.count("{") == before.count("}") and '"' not in before


def _repaired(text: str) -> tuple[object, str]:
    end = max(text.rfind("}"), text.rfind("]"))
    if end < 0:
        raise Fault("it is cut off")
    try:
        value = repaired(text[: end + 1], may_close=False)
    except ValueError as error:
        raise Fault(f"{error}, or it is cut off") from error
    return value, dumps(value)
