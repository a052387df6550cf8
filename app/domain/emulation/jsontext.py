"""JSON within a model's reply: where each value stands, and its exact text.

Unlike `app.domain.json`, this keeps every digit of a number, as Decimals where a float would round, so that what is
written again is what was read.
"""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import NoReturn

# Longer integers are kept as Decimals: Python refuses to convert those of more than 4,300 digits.
_LONG_INTEGER = 300
_WHITESPACE = " \t\n\r"


class Fault(Exception):
    """Why a call or a JSON value in a reply can't be used, in a phrase that the model understands."""


def _integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= _LONG_INTEGER else Decimal(digits)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_float=Decimal, parse_int=_integer, parse_constant=_refuse_constant)


def loads(text: str) -> object:
    """The value of a JSON text. White space around it is allowed.

    Raises:
        ValueError: It is not JSON, or is nested too deeply.
    """
    value, end = decode(text, skip_space(text, 0))
    if skip_space(text, end) != len(text):
        raise ValueError(f"something follows the JSON, at character {end}")
    return value


def decode(text: str, start: int) -> tuple[object, int]:
    """The JSON value that begins exactly at `start`, and where it ends.

    Raises:
        ValueError: There is none, or it is nested too deeply.
    """
    try:
        return _decoder.raw_decode(text, start)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error


def members(text: str, start: int) -> Iterator[tuple[str, object, str]]:
    """Name, value and the value's text of each member of the valid JSON object that begins at `start`."""
    place = skip_space(text, start + 1)
    while text[place] != "}":
        name, place = decode(text, place)
        begin = skip_space(text, skip_space(text, place) + 1)
        value, end = decode(text, begin)
        yield str(name), value, text[begin:end]
        place = skip_space(text, end)
        if text[place] == ",":
            place = skip_space(text, place + 1)


def skip_space(text: str, place: int) -> int:
    """The first place from `place` on that is not JSON white space."""
    while place < len(text) and text[place] in _WHITESPACE:
        place += 1
    return place


def dumps(value: object) -> str:
    """A value as compact JSON. Non-ASCII characters are not escaped, and Decimals keep their digits."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{_string(str(name))}:{dumps(member)}" for name, member in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(dumps, value)) + "]"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, Decimal):
        return str(value)
    return json.dumps(value)


def _string(text: str) -> str:
    written = json.dumps(text, ensure_ascii=False)
    # Lone surrogates can't be encoded as UTF-8: they stay escapes.
    return written if written.isascii() or _is_encodable(written) else json.dumps(text)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def items(text: str, start: int) -> Iterator[tuple[object, str]]:
    """The value and the text of each item of the valid JSON array that begins at `start`."""
    place = skip_space(text, start + 1)
    while text[place] != "]":
        value, end = decode(text, place)
        yield value, text[place:end]
        place = skip_space(text, end)
        if text[place] == ",":
            place = skip_space(text, place + 1)
