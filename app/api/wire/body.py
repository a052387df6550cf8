"""Request bodies as wire types; a fault is named by its place, as the dialect writes places."""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from app.domain.errors import InvalidRequest

Body = TypeVar("Body", bound=BaseModel)

# Steps of pydantic's locations that are no field: members of a union by type, `stop.list[str]`, or by tag, `<text>`.
_UNION_MEMBER = re.compile(r"(?:str|int|float|bool|list|dict)(?:\[.*\])?|<\w+>")
_NAMEABLE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class WireModel(BaseModel):
    """A wire type that is lenient in what it takes: unknown fields are kept, null means absent."""

    model_config = ConfigDict(extra="allow")


def bracketed(location: Sequence[int | str]) -> str:
    """A place as OpenAI names it: `messages[0].content[1].text`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location).removeprefix(".")


def dotted(location: Sequence[int | str]) -> str:
    """A place as Anthropic names it: `messages.0.content.1.text`."""
    return ".".join(map(str, location))


def parse_body(kind: type[Body], body: bytes, place: Callable[[Sequence[int | str]], str] = bracketed) -> Body:
    """Read a body.

    Args:
        place: How the dialect names a place in it.

    Raises:
        InvalidRequest: It is no JSON, or not of the right shape; `param` names the first field at fault.
    """
    body = body.removeprefix(_BYTE_ORDER_MARK)
    try:
        if b"NaN" in body or b"Infinity" in body:
            # pydantic reads them where any value may stand, and they would go out again as no JSON.
            from_json(body, allow_inf_nan=False)
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(error, place) from error
    except ValueError as error:
        raise InvalidRequest(f"The request body could not be parsed as JSON ({error}).") from error


def given_fields(request: BaseModel, besides: Collection[str] = ()) -> dict[str, object]:
    """The fields of a request, including those that its type doesn't know; null means absent.

    Args:
        besides: Fields of no interest.
    """
    names = request.model_fields_set.difference(besides)
    if not names:
        return {}
    # A name that the type doesn't know may be one of Python's or pydantic's own.
    extra = request.model_extra or {}
    fields = {name: extra[name] if name in extra else getattr(request, name) for name in names}
    return {name: value for name, value in fields.items() if value is not None}


def nameable(names: Iterable[str]) -> list[str]:
    """Those names that can stand in a header, in order."""
    return sorted(name for name in names if _NAMEABLE.fullmatch(name))


def _invalid(error: ValidationError, place: Callable[[Sequence[int | str]], str]) -> InvalidRequest:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return InvalidRequest(
            f"The request body could not be parsed as JSON ({first['msg'].removeprefix('Invalid JSON: ')})."
        )
    param = place([step for step in first["loc"] if isinstance(step, int) or not _UNION_MEMBER.fullmatch(step)])
    if not param:
        return InvalidRequest("The request body must be a JSON object.")
    return InvalidRequest(f"{param}: {first['msg']}.", param=param)
