"""Checks values against a schema with jsonschema-rs, and says what is wrong in short phrases."""

from collections.abc import Iterator

import jsonschema_rs

from app.domain.emulation.schema_graph import Schema

_LONGEST_PHRASE = 160
_PATTERN_OPTIONS = jsonschema_rs.FancyRegexOptions(backtrack_limit=5_000, size_limit=20_000_000, dfa_size_limit=200_000)


class Validator:
    """A compiled schema.

    Raises:
        ValueError: The schema can't be used; says why.
    """

    def __init__(self, schema: Schema) -> None:
        try:
            self._validator = jsonschema_rs.validator_for(
                dict(schema), offline=True, validate_formats=False, pattern_options=_PATTERN_OPTIONS
            )
        except jsonschema_rs.ValidationError as error:
            raise ValueError(_in_words(error)) from error
        self.is_valid = self._validator.is_valid

    def faults(self, value: object) -> Iterator[str]:
        """What is wrong with a value, one after the other."""
        return map(_in_words, self._validator.iter_errors(value))


def _in_words(error: jsonschema_rs.ValidationError) -> str:
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path).lstrip(".")
    text = error.message
    message = text if len(text) <= _LONGEST_PHRASE else f"…{text[1 - _LONGEST_PHRASE :]}"
    place = place if len(place) <= _LONGEST_PHRASE else f"…{place[1 - _LONGEST_PHRASE :]}"
    return f"{place}: {message}" if place else message
