"""Checks values against a schema with jsonschema-rs, and says what is wrong in short phrases."""

import re
from collections.abc import Iterator
from urllib.parse import quote

import jsonschema_rs

from app.domain.emulation.schema_graph import REFERENCES, Schema

_LONGEST_PHRASE = 160
_PATTERN_OPTIONS = jsonschema_rs.FancyRegexOptions(backtrack_limit=5_000, size_limit=20_000_000, dfa_size_limit=200_000)
# The dialects that jsonschema-rs knows; a schema of another is taken for one of the latest.
_DIALECT = re.compile(r"(https?://json-schema\.org/(draft-0[467]/|draft/(2019-09|2020-12)/)?schema#?)?")
# What may stand in an address; `%` begins an escape, which stays as it is.
_OF_ADDRESSES = "%!$&'()*+,;=:@/?#~"
_ADDRESS = re.compile(r"[A-Za-z0-9\-._~:/?@!$&'()*+,;=%]*#?")
_WITH_NAMES = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies", "dependentRequired"}
)
_WITH_VALUES = frozenset({"enum", "const", "default", "examples"})


class Validator:
    """A compiled schema.

    Names and addresses that are no URIs are taken as they are meant, as by OpenAI's API: clients write
    `"$id": "Output Format"` and `"$ref": "#/$defs/Map<string, int>"`.

    Raises:
        ValueError: The schema can't be used; says why.
    """

    def __init__(self, schema: Schema) -> None:
        try:
            self._validator = _compiled(schema)
        except jsonschema_rs.ValidationError as error:
            plain = _with_plain_addresses(schema)
            if plain == schema:
                raise ValueError(_in_words(error)) from error
            try:
                self._validator = _compiled(plain)
            except jsonschema_rs.ValidationError as other:
                raise ValueError(_in_words(other)) from other
        self.is_valid = self._validator.is_valid

    def faults(self, value: object) -> Iterator[str]:
        """What is wrong with a value, one after the other."""
        return map(_in_words, self._validator.iter_errors(value))


def _compiled(schema: Schema) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(
        dict(schema), offline=True, validate_formats=False, pattern_options=_PATTERN_OPTIONS
    )


def _with_plain_addresses(schema: Schema) -> dict[str, object]:
    """A schema without ids and dialects that nothing can be made of, and with references that are addresses."""
    plain: dict[str, object] = {}
    for keyword, held in schema.items():
        if not isinstance(held, str):
            plain[keyword] = held if keyword in _WITH_VALUES else _plain_part(held, has_names=keyword in _WITH_NAMES)
        elif keyword in REFERENCES:
            plain[keyword] = quote(held, safe=_OF_ADDRESSES)
        elif not _is_useless(keyword, held):
            plain[keyword] = held
    return plain


def _plain_part(part: object, *, has_names: bool) -> object:
    if isinstance(part, list):
        return [_plain_part(each, has_names=False) for each in part]
    if not isinstance(part, dict):
        return part
    if has_names:
        return {name: _plain_part(held, has_names=False) for name, held in part.items()}
    return _with_plain_addresses(part)


def _is_useless(keyword: str, held: str) -> bool:
    if keyword == "$schema":
        return _DIALECT.fullmatch(held) is None
    return keyword in ("$id", "id") and _ADDRESS.fullmatch(held) is None


def _in_words(error: jsonschema_rs.ValidationError) -> str:
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path).lstrip(".")
    text = error.message
    message = text if len(text) <= _LONGEST_PHRASE else f"…{text[1 - _LONGEST_PHRASE :]}"
    place = place if len(place) <= _LONGEST_PHRASE else f"…{place[1 - _LONGEST_PHRASE :]}"
    return f"{place}: {message}" if place else message
