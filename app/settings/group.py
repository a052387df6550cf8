"""What a group of settings is made of."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from app.providers.config import checked_http_url


class SettingsGroup(BaseModel):
    """Settings that belong together.

    The first line of a group's docstring is its title in the documentation; the rest introduces it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, validate_default=True)

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
