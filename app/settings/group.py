"""What a group of settings is made of."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.providers.entries import checked_http_url


def unquoted(value: str) -> str:
    """Take off the quotes around a value: `docker run --env-file` and some shells keep them."""
    inner = value.strip()
    quote = inner[:1]
    if len(inner) > 1 and quote in "\"'" and inner.endswith(quote) and quote not in inner[1:-1]:
        return inner[1:-1]
    return value


class SettingsGroup(BaseSettings):
    """Settings that belong together, each a variable of the environment or a line of `.env`.

    The first line of a group's docstring is its title in the documentation; the rest introduces it.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        allow_inf_nan=False,
        env_ignore_empty=True,
        enable_decoding=False,
        env_file_encoding="utf-8-sig",
        dotenv_filtering="only_existing",
    )

    @model_validator(mode="before")
    @classmethod
    def _without_quotes(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {name: unquoted(value) if isinstance(value, str) else value for name, value in values.items()}

    @classmethod
    def settings(cls) -> dict[str, FieldInfo]:
        """List the group's settings by their variables."""
        return {str(field.validation_alias): field for field in cls.model_fields.values() if field.validation_alias}


@dataclass(frozen=True, slots=True)
class Unit:
    """What a number counts."""

    name: str


@dataclass(frozen=True, slots=True)
class Accepts:
    """What a setting accepts, for the documentation; bounds and choices are documented without it."""

    words: str


def _http_url(value: str) -> str:
    checked_http_url(value)
    return value


def _optional_http_url(value: str) -> str:
    return value and _http_url(value)


Seconds = Annotated[float, Unit("seconds")]
WholeSeconds = Annotated[int, Unit("seconds")]
Bytes = Annotated[int, Unit("bytes")]
Characters = Annotated[int, Unit("characters")]
HttpUrl = Annotated[str, AfterValidator(_http_url), Accepts("an http:// or https:// address")]
OptionalHttpUrl = Annotated[str, AfterValidator(_optional_http_url), Accepts("an http:// or https:// address")]


def setting(
    variable: str,
    default: object,
    meaning: str,
    *,
    gt: float | None = None,
    ge: float | None = None,
    le: float | None = None,
) -> Any:
    """Declare a setting.

    Args:
        variable: Its environment variable.
        default: Its value when the variable isn't set, as an operator would write it.
        meaning: Its documentation: sentences, with names in backticks. Unit, bounds and default are added to it.
        gt, ge, le: Bounds of its value: above, at least, at most.
    """
    return Field(default, validation_alias=variable, description=meaning, gt=gt, ge=ge, le=le)
