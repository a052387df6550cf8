"""What is wrong with a request body, in the words and with the codes of OpenAI's API. Pure."""

import re
from collections.abc import Callable, Mapping, Sequence

from pydantic_core import ErrorDetails

from app.domain.errors import InvalidRequest

# Steps of pydantic's locations that are no field: members of a union by type, `stop.list[str]`, or by tag, `<text>`.
_UNION_MEMBER = re.compile(r"(?:str|int|float|bool|list|dict)(?:\[.*\])?|<\w+>")
_MAX_QUOTED = 100
# What was expected, by the last step of a location where a union was to be chosen from, else by pydantic's error type.
_EXPECTED_OF_UNION = {
    "<text>": "a string or an array",
    "<url>": "a string or an object",
    "<word>": "a string or an object",
    "<choice>": "a string or an object",
}
_EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_parsing": "an integer",
    "int_parsing_size": "an integer",
    "int_from_float": "an integer",
    "float_type": "a decimal",
    "float_parsing": "a decimal",
    "finite_number": "a finite number",
    "bool_type": "a boolean",
    "bool_parsing": "a boolean",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}
# Bool before int, which it is one of.
_KINDS: Sequence[tuple[type, str]] = (
    (bool, "a boolean"),
    (int, "an integer"),
    (float, "a decimal"),
    (str, "a string"),
    (list, "an array"),
    (dict, "an object"),
)
# Fields by which a body or a message shows that it was meant for another address.
_RESPONSES_ITEMS = frozenset({"function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output"})


def fields_of(location: Sequence[int | str]) -> list[int | str]:
    """The steps of a pydantic location that the client knows."""
    return [step for step in location if isinstance(step, int) or not _UNION_MEMBER.fullmatch(step)]


def bracketed(location: Sequence[int | str]) -> str:
    """A place as OpenAI names it: `messages[0].content[1].text`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location).removeprefix(".")


def openai_fault(error: ErrorDetails) -> InvalidRequest:
    """The error for what pydantic found."""
    param = bracketed(fields_of(error["loc"]))
    word = _WORDS.get(error["type"])
    if word is not None:
        return word(param, error)
    if error["type"] in _EXPECTED:
        return _of_wrong_type(param, error)
    return _fault(param, "invalid_value", f"Invalid value for '{param}': {error['msg']}.")


def missing_parameter(param: str, more: str = "") -> InvalidRequest:
    """The error for a field that has to be there.

    Args:
        more: A further sentence.
    """
    return _fault(param, "missing_required_parameter", f"Missing required parameter: '{param}'.", more)


def wrong_type(param: str, expected: str, value: object) -> InvalidRequest:
    """The error for a value of the wrong kind."""
    message = f"Invalid type for '{param}': expected {expected}, but got {_kind(value)} instead."
    return _fault(param, "invalid_type", message)


def invalid_value(param: str, value: object, supported: str, more: str = "") -> InvalidRequest:
    """The error for a value that is none of those that are known.

    Args:
        supported: Those, as they are told: `'a' and 'b'`.
        more: A further sentence.
    """
    message = f"Invalid value: {_quoted(value)}. Supported values are: {supported}."
    return _fault(param, "invalid_value", message, more)


def unsupported_value(param: str, value: object, more: str) -> InvalidRequest:
    """The error for a value that OpenAI knows, but that can't be served here.

    Args:
        more: A further sentence: which can.
    """
    message = f"Unsupported value: '{param}' does not support {_quoted(value)} with this model."
    return _fault(param, "unsupported_value", message, more)


def unsupported_parameter(param: str, more: str = "") -> InvalidRequest:
    """The error for a field that OpenAI knows, but that can't be served here.

    Args:
        more: A further sentence: what to do instead.
    """
    return _fault(param, "unsupported_parameter", f"Unsupported parameter: '{param}' is not supported here.", more)


def unknown_parameter(param: str) -> InvalidRequest:
    """The error for a field or a query parameter that nobody knows, where such a thing is refused."""
    return _fault(param, "unknown_parameter", f"Unknown parameter: '{param[:_MAX_QUOTED]}'.")


def too_many(param: str, most: int, given: int, more: str = "") -> InvalidRequest:
    """The error for an array with too many entries.

    Args:
        more: A further sentence: what bounds it.
    """
    return _fault(
        param,
        "array_above_max_length",
        f"Invalid '{param}': array too long. Expected an array with maximum length {most}, but got an array with "
        f"length {given} instead.",
        more,
    )


def _fault(param: str, code: str, message: str, more: str = "") -> InvalidRequest:
    return InvalidRequest(f"{message} {more}" if more else message, param=param, code=code)


def _unknown(param: str, _: ErrorDetails) -> InvalidRequest:
    return unknown_parameter(param)


def _missing(param: str, error: ErrorDetails) -> InvalidRequest:
    return missing_parameter(param, _meant_for(param, error["input"]))


def _meant_for(param: str, parent: object) -> str:
    """Where a body belongs that has another address's fields; empty if it doesn't show."""
    if not isinstance(parent, dict):
        return ""
    if param == "messages" and "input" in parent:
        return "Requests with 'input' belong to /v1/responses."
    if param.endswith(".role") and isinstance(parent.get("type"), str) and parent["type"] in _RESPONSES_ITEMS:
        return f"Items of type '{parent['type']}' belong to /v1/responses."
    return ""


def _of_wrong_type(param: str, error: ErrorDetails) -> InvalidRequest:
    expected = _EXPECTED_OF_UNION.get(str(error["loc"][-1])) or _EXPECTED[error["type"]]
    return wrong_type(param, expected, error["input"])


def _of_unknown_word(param: str, error: ErrorDetails) -> InvalidRequest:
    supported = str(error["ctx"]["expected"])
    if not isinstance(error["input"], str):
        return wrong_type(param, f"one of {supported}", error["input"])
    return invalid_value(param, error["input"], supported.replace(" or ", " and "))


def _out_of_bounds(param: str, error: ErrorDetails) -> InvalidRequest:
    above = error["type"] == "less_than_equal"
    bound = error["ctx"]["le" if above else "ge"]
    kind = "decimal" if isinstance(bound, float) else "integer"
    side, sign, code = ("above maximum", "<=", "above_max") if above else ("below minimum", ">=", "below_min")
    return _fault(
        param,
        f"{kind}_{code}_value",
        f"Invalid '{param}': {kind} {side} value. Expected a value {sign} {bound:g}, but got "
        f"{str(error['input'])[:_MAX_QUOTED]} instead.",
    )


def _too_short(param: str, error: ErrorDetails) -> InvalidRequest:
    kind, a_kind = ("string", "a string") if error["type"] == "string_too_short" else ("array", "an array")
    expected = f"Expected {a_kind} with minimum length {error['ctx']['min_length']}"
    length = len(error["input"])
    if length == 0:
        message = f"Invalid '{param}': empty {kind}. {expected}, but got an empty {kind} instead."
        return _fault(param, f"empty_{kind}", message)
    message = f"Invalid '{param}': {kind} too short. {expected}, but got {a_kind} with length {length} instead."
    return _fault(param, f"{kind}_below_min_length", message)


def _array_too_long(param: str, error: ErrorDetails) -> InvalidRequest:
    return too_many(param, error["ctx"]["max_length"], len(error["input"]))


def _string_too_long(param: str, error: ErrorDetails) -> InvalidRequest:
    return _fault(
        param,
        "string_above_max_length",
        f"Invalid '{param}': string too long. Expected a string with maximum length {error['ctx']['max_length']}, "
        f"but got a string with length {len(error['input'])} instead.",
    )


_WORDS: Mapping[str, Callable[[str, ErrorDetails], InvalidRequest]] = {
    "extra_forbidden": _unknown,
    "missing": _missing,
    "literal_error": _of_unknown_word,
    "greater_than_equal": _out_of_bounds,
    "less_than_equal": _out_of_bounds,
    "too_short": _too_short,
    "string_too_short": _too_short,
    "too_long": _array_too_long,
    "string_too_long": _string_too_long,
}


def _kind(value: object) -> str:
    return next((name for kind, name in _KINDS if isinstance(value, kind)), "null")


def _quoted(value: object) -> str:
    text = str(value)
    return f"'{text[:_MAX_QUOTED]}…'" if len(text) > _MAX_QUOTED else f"'{text}'"
