"""Request bodies as wire types; what is wrong with one is said as its dialect says it."""

import re
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, from_json

from app.api.wire.faults import openai_fault
from app.domain.errors import InvalidRequest

Body = TypeVar("Body", bound=BaseModel)

_NAMEABLE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class WireModel(BaseModel):
    """A wire type that is lenient in what it takes: unknown fields are kept, null means absent."""

    # Most workers never see most of them: what pydantic needs to read one is built when the first one comes.
    model_config = ConfigDict(extra="allow", defer_build=True)


class AnswerModel(BaseModel):
    """A wire type of what is answered, for the API's description."""

    model_config = ConfigDict(defer_build=True)


def check_model(names: Iterable[str]) -> None:
    """Refuse a body that is sent on with fields that readers without regard to case could take for its model.

    Raises:
        InvalidRequest: There is one.
    """
    for name in names:
        if name != "model" and name.lower() == "model":
            raise InvalidRequest(f"{name} is not a field of this request; name the model in `model`.", param=name)


def text_tag(value: Any) -> str:
    """Which member a value is for, of a union of text, an array and null, as `Discriminator` asks.

    Members are named in angle brackets: they come up in pydantic's error locations, and are told from fields so.
    """
    if value is None:
        return "<null>"
    return "<array>" if isinstance(value, list) else "<text>"


def parse_body(kind: type[Body], body: bytes, fault: Callable[[ErrorDetails], InvalidRequest] = openai_fault) -> Body:
    """Read a body.

    Args:
        fault: Words what is wrong with a field as the dialect does.

    Raises:
        InvalidRequest: It is no JSON, or not of the right shape; `param` names the first field at fault.
    """
    body = body.removeprefix(_BYTE_ORDER_MARK)
    try:
        # `find`, for speed: `in` raises a TypeError within, and catches it, before it looks for bytes.
        if body.find(b"NaN") >= 0 or body.find(b"Infinity") >= 0:
            # pydantic reads them where any value may stand, and they would go out again as no JSON.
            from_json(body, allow_inf_nan=False)
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(error, fault) from error
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


def _invalid(error: ValidationError, fault: Callable[[ErrorDetails], InvalidRequest]) -> InvalidRequest:
    first = error.errors(include_url=False)[0]
    if first["type"] == "json_invalid":
        if not first["input"]:
            return InvalidRequest("The request has no body. Send a JSON object.")
        return InvalidRequest(
            f"The request body could not be parsed as JSON ({first['msg'].removeprefix('Invalid JSON: ')})."
        )
    if not first["loc"]:
        return InvalidRequest("The request body must be a JSON object.")
    return fault(first)
