"""What `PROVIDERS_FILE` and the variables of presets say of upstreams: read, and checked as far as they stand alone."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from app.domain.chat import ApiKind
from app.domain.relay import Service
from app.providers.api_upstream.upstream import MaxTokensField, ReasoningField
from app.providers.base import Ability
from app.providers.bounds import ModelBounds, OptionRange, SchemaRules
from app.providers.http import CLIENT_HEADERS
from app.providers.openai_compatible.presets import PRESETS
from app.providers.registry import ModelRoute

_NAME = r"^[a-z0-9][a-z0-9._-]{0,31}$"
# What is often copied along with a base URL.
_ENDPOINTS = re.compile(r"(?:/+(?:chat/completions|completions|responses|messages|embeddings|models))+/*$")
# Headers that no row may set: framing, what concerns the connection alone, and what the gateway couldn't read.
_OWN_HEADERS = CLIENT_HEADERS | {"accept-encoding", "content-encoding", "content-type", "expect", "proxy-connection"}
# The end of a base URL that ends with its host.
USUAL_PATHS: Mapping[ApiKind, str] = MappingProxyType({"openai": "/v1", "anthropic": "/v1", "gemini": "/v1beta"})
# No number of tokens, calls or the like is larger: one that is can hardly be meant, and not every store takes it.
_MOST = 10**9
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")


class ProvidersFileError(Exception):
    """The file can't be used. Says where in it and why, in a line for each fault, and never repeats a secret."""


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _option_range(value: tuple[float, float]) -> OptionRange:
    least, largest = value
    if least > largest:
        raise ValueError("write [least, largest]")
    return value


class BoundsEntry(_Row):
    """What a model takes, or all models of a provider. What is left out is the provider's, or the preset's."""

    max_tokens: int | None = Field(None, ge=1, le=_MOST)
    option_bounds: dict[str, Annotated[tuple[float, float], AfterValidator(_option_range)]] = {}
    schema_rules: SchemaRules | None = None

    def bounds(self) -> ModelBounds:
        """The same as a value."""
        return ModelBounds(max_tokens=self.max_tokens, options=self.option_bounds, schemas=self.schema_rules)


class ModelEntry(BoundsEntry):
    """A model of a provider. What is left out is the preset's, or the provider's default."""

    id: str = Field(min_length=1, max_length=256)
    upstream_id: str | None = Field(None, min_length=1)
    context_length: int | None = Field(None, ge=1, le=_MOST)
    abilities: frozenset[Ability | Service] | None = None


class FromEnvironment(_Row):
    """A value that is kept in an environment variable, or in `.env`."""

    env: str = Field(min_length=1)


class BreakerEntry(_Row):
    """In place of the settings `BREAKER_…`."""

    failure_rate: float | None = Field(None, gt=0, le=1)
    minimum_calls: int | None = Field(None, ge=1, le=_MOST)
    open_seconds: float | None = Field(None, gt=0)


def _model_entries(value: Any) -> Any:
    """Turn `["a", {id = "b", …}]` and `{public = "upstream", b = {…}}` into a list of tables."""
    if isinstance(value, dict):
        return [{"id": name, **(row if isinstance(row, dict) else {"upstream_id": row})} for name, row in value.items()]
    if isinstance(value, list):
        return [{"id": row} if isinstance(row, str) else row for row in value]
    return value


def _separated_by_commas(value: Any) -> Any:
    """Turn a list of names into one text, which all that stores and shows it can take."""
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        value = ", ".join(value)
    if isinstance(value, str) and not separated(value):
        raise ValueError("write the name of a variable, or several names")
    return value


class ProviderEntry(BoundsEntry):
    """A table of `[[providers]]`."""

    name: str = Field(pattern=_NAME)
    preset: str | None = None
    kind: ApiKind | None = None
    base_url: str | None = None
    # The names of several variables are separated by commas.
    key_env: Annotated[str, BeforeValidator(_separated_by_commas)] | None = None
    models: Annotated[tuple[ModelEntry, ...] | None, BeforeValidator(_model_entries)] = None
    any_model: bool | None = None
    discover: bool | None = None
    context_length: int | None = Field(None, ge=1, le=_MOST)
    abilities: frozenset[Ability] | None = None
    headers: dict[str, str | FromEnvironment] = {}
    concurrency: int | None = Field(None, ge=1, le=_MOST)
    queue: int | None = Field(None, ge=0, le=_MOST)
    queue_timeout: float | None = Field(None, gt=0)
    timeout: float | None = Field(None, gt=0)
    idle_timeout: float | None = Field(None, gt=0)
    longest_pause: float | None = Field(None, ge=0)
    retries: int | None = Field(None, ge=0, le=20)
    breaker: BreakerEntry = BreakerEntry()
    max_tokens_field: MaxTokensField | None = None
    stream_usage: bool | None = None
    reasoning_field: ReasoningField | None = None
    one_system_message: bool | None = None

    @field_validator("base_url")
    @classmethod
    def _address(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        preset = PRESETS.get(info.data.get("preset") or "")
        kind: ApiKind = info.data.get("kind") or (preset.kind if preset is not None else "openai")
        return checked_base_url(value, USUAL_PATHS[kind])

    def variables(self) -> set[str]:
        """The environment variables that it names."""
        in_headers = {value.env for value in self.headers.values() if isinstance(value, FromEnvironment)}
        return {*separated(self.key_env or "")} | in_headers

    @field_validator("headers")
    @classmethod
    def _header_names(cls, value: dict[str, str | FromEnvironment]) -> dict[str, str | FromEnvironment]:
        wrong = [name for name in value if not _HEADER_NAME.fullmatch(name)]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is not the name of a header")
        lower = [name.lower() for name in value]
        for name in value:
            if name.lower() in _OWN_HEADERS:
                raise ValueError(f"{name!r} can't be set: the gateway sends it itself, or it concerns the connection")
            if lower.count(name.lower()) > 1:
                raise ValueError(f"{name!r} is there twice: capitals make no difference")
        return value


class KeyedEntry(ProviderEntry):
    """An entry that has its key with it, rather than in an environment variable. There are none in a file."""

    key: Annotated[SecretStr, Field(min_length=1, max_length=4096)] | None = None

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.key is not None and self.key_env is not None:
            raise ValueError("key and key_env can't both be given")
        return self


class ProvidersFile(_Row):
    """The whole file. A route is a list of targets in order, or a table of targets with weights."""

    providers: tuple[ProviderEntry, ...] = ()
    routes: dict[str, tuple[str, ...] | dict[str, Annotated[float, Field(gt=0)]]] = {}

    @field_validator("providers")
    @classmethod
    def _named_once(cls, value: tuple[ProviderEntry, ...]) -> tuple[ProviderEntry, ...]:
        names = [entry.name for entry in value]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two providers have the name {twice!r}")
        return value

    @field_validator("routes")
    @classmethod
    def _leading_somewhere(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name, targets in value.items():
            if not name or not targets or not all(targets):
                raise ValueError(f"the route {name!r} needs at least one target")
        return value

    def named_routes(self) -> dict[str, ModelRoute]:
        """The routes by name."""
        return {name: route_to(targets) for name, targets in self.routes.items()}

    def variables(self) -> set[str]:
        """The environment variables that the file names."""
        return {name for entry in self.providers for name in entry.variables()}


def route_to(targets: Sequence[str] | Mapping[str, float]) -> ModelRoute:
    """The route to targets in order, or with weights."""
    return ModelRoute(tuple(targets), tuple(targets.values()) if isinstance(targets, Mapping) else None)


def model_names(value: Any, known: Mapping[str, str] = MappingProxyType({})) -> Any:
    """Turn `public=upstream, other` into a table of public names and upstream names.

    Args:
        known: The upstream's names for public names that stand alone; of others both are the same.

    Raises:
        ValueError: A public name is missing.
    """
    if not isinstance(value, str):
        return value
    models = {}
    for part in filter(None, map(str.strip, value.split(","))):
        public, _, own = (side.strip() for side in part.partition("="))
        if not public:
            raise ValueError("write names of models, or public-name=upstream-name, separated by commas")
        models[public] = own or known.get(public, public)
    return models


class PresetSettings(_Row):
    """The settings of a preset, each under the variable that `Preset.variables` names.

    Args:
        api_key: Switches it on; several are separated by commas.
        base_url: In place of the preset's; switches on those that have none.
        models: Public id -> the upstream's own, in place of the preset's.
    """

    api_key: SecretStr = SecretStr("")
    base_url: str = ""
    models: Annotated[dict[str, str], BeforeValidator(model_names)] = {}

    @field_validator("base_url")
    @classmethod
    def _address(cls, value: str) -> str:
        return value and checked_base_url(value, "")

    @property
    def keys(self) -> list[str]:
        """The keys themselves."""
        return separated(self.api_key.get_secret_value())


def read_providers_file(path: Path) -> ProvidersFile:
    """Read and check the file.

    Raises:
        ProvidersFileError: It can't be read, is not TOML, or says something that can't be.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ProvidersFileError(f"{path}: can't be read ({error.strerror or 'unknown reason'})") from None
    except ValueError as error:  # of TOML and of UTF-8
        raise ProvidersFileError(f"{path}: is not valid TOML ({error})") from None
    try:
        return ProvidersFile.model_validate(document)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        lines = (f"{path}: {_place(fault['loc'], document)}{_words(fault)}" for fault in faults)
        raise ProvidersFileError("\n".join(dict.fromkeys(lines))) from None


def checked_http_url(value: str) -> SplitResult:
    """Take an address apart.

    Raises:
        ValueError: It is not an http or https address.
    """
    try:
        parts = urlsplit(value)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not re.search(r"\s", value):
            return parts
    except ValueError:  # its message would repeat the value
        pass
    raise ValueError("must be an http:// or https:// address")


def checked_base_url(value: str, usual_path: str = "/v1") -> str:
    """Return a base URL without a slash or an endpoint's address at the end; one without a path gets the usual one.

    Raises:
        ValueError: It is not an http or https address, or has more to it than host and path.
    """
    parts = checked_http_url(value.strip())
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must be an address without user, password and query")
    return parts._replace(path=_ENDPOINTS.sub("", parts.path).rstrip("/") or usual_path).geturl()


def separated(text: str) -> list[str]:
    """What commas separate."""
    return [part for part in map(str.strip, text.split(",")) if part]


def entry_fault(error: ValidationError) -> tuple[str, str]:
    """What is wrong with an entry that stands by itself: the field at fault, and the fault in the words of the file."""
    first = error.errors(include_url=False, include_input=False)[0]
    return _place(first["loc"], {}).removesuffix(": "), _words(first)


def _words(fault: ErrorDetails) -> str:
    """Say what is wrong, without pydantic's terms where somebody who mistypes a name or a field meets them."""
    if fault["type"] == "extra_forbidden":
        return "there is no such field"
    if fault["type"] == "string_pattern_mismatch" and fault["ctx"]["pattern"] == _NAME:
        return "up to 32 lower-case letters, digits, dots, underscores and hyphens, beginning with a letter or digit"
    return fault["msg"].removeprefix("Value error, ")


def _place(location: tuple[int | str, ...], document: Mapping[str, Any]) -> str:
    """Write where in the file a fault is, as `providers[0] (work).models[1].id: `."""
    place = ""
    for step in location:
        if isinstance(step, int):
            place += f"[{step}]"
        elif not re.search(r"[\[(]", step) and step not in ("str", "FromEnvironment"):  # no member of a union
            place += f".{step}" if place else step
        if isinstance(step, int) and place == f"providers[{step}]":
            row = document["providers"][step]
            name = row.get("name") if isinstance(row, dict) else None
            place += f" ({name})" if isinstance(name, str) and re.fullmatch(_NAME, name) else ""
    return f"{place}: " if place else ""
