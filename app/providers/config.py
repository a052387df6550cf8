"""Which upstreams with an API there are: presets that are switched on, and the rows of `PROVIDERS_FILE`."""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Self, get_args
from urllib.parse import SplitResult, urlsplit

from msgspec import Struct
from msgspec.structs import replace
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
from app.domain.prompt import PromptLimit
from app.domain.relay import SERVICES, Service
from app.providers.api_upstream.upstream import MaxTokensField, Quirks, ReasoningField, Upstream
from app.providers.base import Ability, ModelSpec
from app.providers.bounds import BoundsRow, ModelBounds, OptionRange, SchemaRules, bounds_of
from app.providers.http import CLIENT_HEADERS
from app.providers.openai_compatible.presets import PRESETS, ModelRow, Preset
from app.providers.registry import ModelRoute
from app.providers.resilience.breaker import LONGEST_PAUSE, BreakerPolicy
from app.providers.services import services_named

_NAME = r"^[a-z0-9][a-z0-9._-]{0,31}$"
# What is often copied along with a base URL.
_ENDPOINTS = re.compile(r"(?:/+(?:chat/completions|completions|responses|messages|embeddings|models))+/*$")
# Headers that no row may set: framing, what concerns the connection alone, and what the gateway couldn't read.
_OWN_HEADERS = CLIENT_HEADERS | {"accept-encoding", "content-encoding", "content-type", "expect", "proxy-connection"}
# The end of a base URL that ends with its host.
_USUAL_PATHS: Mapping[ApiKind, str] = MappingProxyType({"openai": "/v1", "anthropic": "/v1", "gemini": "/v1beta"})
# How upstreams of OpenAI's form differ; other forms have their vendors' own rules.
_QUIRKS = ("max_tokens_field", "stream_usage", "reasoning_field", "one_system_message")
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
    if isinstance(value, str) and not _parts(value):
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
        return checked_base_url(value, _USUAL_PATHS[kind])

    def variables(self) -> set[str]:
        """The environment variables that it names."""
        in_headers = {value.env for value in self.headers.values() if isinstance(value, FromEnvironment)}
        return {*_parts(self.key_env or "")} | in_headers

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
        return _parts(self.api_key.get_secret_value())


class Traffic(Struct, frozen=True):
    """How much may go to an upstream at once, and how patient to be with it, as the settings of the same names."""

    concurrency: int
    queue: int
    queue_timeout: float
    timeout: float
    idle_timeout: float
    retries: int
    breaker: BreakerPolicy
    longest_pause: float = LONGEST_PAUSE


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


def configured_upstreams(
    file: ProvidersFile,
    settings: Mapping[str, PresetSettings],
    environment: Mapping[str, str],
    defaults: Traffic,
    presets: Mapping[str, Preset] = PRESETS,
) -> list[tuple[Upstream, Traffic]]:
    """List the presets that are switched on, then the file's entries. An entry of the file replaces its namesake.

    Args:
        settings: Of the presets, by their names.
        environment: Where the file's `key_env` and `env` are looked up.

    Raises:
        ProvidersFileError: An entry lacks something, or names a preset or variable that doesn't exist.
    """
    in_file = {entry.name for entry in file.providers}
    found = [
        (_upstream(_entry(name, given), preset, given, environment), replace(defaults, concurrency=preset.concurrency))
        for name, preset in presets.items()
        if name not in in_file and _is_on(preset, given := settings.get(name, PresetSettings()))
    ]
    for place, entry in enumerate(file.providers):
        try:
            found.append(configured_upstream(entry, settings, environment, defaults, presets))
        except ValueError as error:
            raise ProvidersFileError(f"providers[{place}] ({entry.name}): {error}") from None
    return found


def configured_upstream(
    entry: ProviderEntry,
    settings: Mapping[str, PresetSettings],
    environment: Mapping[str, str],
    defaults: Traffic,
    presets: Mapping[str, Preset] = PRESETS,
) -> tuple[Upstream, Traffic]:
    """What an entry says, together with what it builds on. The arguments are those of `configured_upstreams`.

    Raises:
        ValueError: It lacks something, or names a preset or variable that doesn't exist.
    """
    preset = _preset(entry, presets)
    upstream = _upstream(entry, preset, settings.get(preset.name, PresetSettings()), environment)
    return upstream, _traffic(entry, replace(defaults, concurrency=preset.concurrency))


def _is_on(preset: Preset, settings: PresetSettings) -> bool:
    return bool(settings.keys if preset.base_url else settings.base_url)


def _entry(name: str, settings: PresetSettings) -> ProviderEntry:
    """The entry that would say the same as the settings do."""
    models = [ModelEntry(id=public, upstream_id=own) for public, own in settings.models.items()]
    return ProviderEntry(name=name, models=tuple(models) or None)


def _preset(entry: ProviderEntry, presets: Mapping[str, Preset]) -> Preset:
    """What an entry builds on: the preset that it names, or its namesake, or what is known of its kind, or nothing."""
    if entry.preset is None:
        namesake = presets.get(entry.name)
        # At an address of the operator's own, a vendor's name doesn't tell the form of the API.
        kind = entry.kind or (namesake.kind if namesake is not None and entry.base_url is None else "openai")
        if namesake is not None and namesake.kind == kind:
            return namesake
        return _preset_of_kind(entry.name, kind, presets)
    if entry.preset not in presets:
        raise ValueError(f"preset: there is no such preset; there are {', '.join(presets)}")
    preset = presets[entry.preset]
    if entry.kind not in (None, preset.kind):
        raise ValueError(f"kind: the preset {preset.name} is of the kind {preset.kind!r}")
    return preset


def _preset_of_kind(name: str, kind: ApiKind, presets: Mapping[str, Preset]) -> Preset:
    """What is known of an upstream of which nothing but its kind is known: what its vendor's models do and take."""
    vendor = presets.get(kind)
    if kind == "openai" or vendor is None:
        return Preset(name, owned_by=name, kind=kind)
    return Preset(name, owned_by=name, kind=kind, abilities=vendor.abilities, bounds=vendor.bounds)


def _upstream(
    entry: ProviderEntry, preset: Preset, settings: PresetSettings, environment: Mapping[str, str]
) -> Upstream:
    base_url = entry.base_url or settings.base_url or preset.base_url
    if not base_url:
        raise ValueError("base_url is missing")
    if preset.kind != "openai" and (field := _of_openai_only(entry)):
        raise ValueError(f"{field}: is for upstreams of the kind 'openai' only")
    name = entry.name
    size = entry.context_length or preset.context_length
    keys = _keys(entry, preset, settings, environment)
    first = next(iter(keys), "")
    upstream = Upstream(
        name=name,
        base_url=checked_base_url(base_url, _USUAL_PATHS[preset.kind]),
        key=keys.get(first, ""),
        key_name=first or preset.variables.get("api_key", ""),
        keys=keys if len(keys) > 1 else {},
        headers={header: _value(header, given, environment) for header, given in entry.headers.items()},
        quirks=_quirks(entry, preset.quirks),
        any_model=preset.any_model if entry.any_model is None else entry.any_model,
        discover=preset.discover if entry.discover is None else entry.discover,
        default_limit=PromptLimit(size, "tokens", f"context_length of {name}"),
        default_abilities=_with_text(preset.abilities if entry.abilities is None else entry.abilities),
        bounds=_bounds_rows(entry, preset),
        kind=preset.kind,
    )
    return replace(upstream, models=tuple(_specs(entry, preset, upstream)))


def _keys(
    entry: ProviderEntry, preset: Preset, settings: PresetSettings, environment: Mapping[str, str]
) -> dict[str, str]:
    """The keys by their names: that of the variable, with the key's place if the variable has several."""
    field, found = _named_keys(entry, preset, settings, environment)
    keys: dict[str, str] = {}
    for name, parts in found.items():
        for place, key in enumerate(parts, start=1):
            if key not in keys.values():
                keys[name if len(parts) == 1 else f"{name} {place}"] = _sendable(field, key)
    return keys


def _named_keys(
    entry: ProviderEntry, preset: Preset, settings: PresetSettings, environment: Mapping[str, str]
) -> tuple[str, dict[str, list[str]]]:
    """The field that the keys are from, and by their variables' names what these have."""
    switch = preset.variables.get("api_key", "")
    if isinstance(entry, KeyedEntry) and entry.key is not None:
        keys = _parts(entry.key.get_secret_value())
        if not keys:
            raise ValueError("key: has nothing but blanks and commas")
        return "key", {"key" if len(keys) > 1 else switch: keys}
    if entry.key_env is not None:
        names = _parts(entry.key_env)
        return "key_env", {name: _keys_in(name, environment) for name in names}
    if entry.base_url is not None:
        return "key", {}  # a vendor's key goes nowhere but to the vendor, or to where the settings say
    if switch and not settings.keys:
        raise ValueError(f"{preset.switch} is not set")
    return "key", {switch: settings.keys}


def _keys_in(variable: str, environment: Mapping[str, str]) -> list[str]:
    keys = _parts(_variable("key_env", variable, environment))
    if not keys:
        raise ValueError(f"key_env: the environment variable {variable} has nothing but commas")
    return keys


def _parts(text: str) -> list[str]:
    """What commas separate."""
    return [part for part in map(str.strip, text.split(",")) if part]


def _value(header: str, given: str | FromEnvironment, environment: Mapping[str, str]) -> str:
    value = given if isinstance(given, str) else _variable(f"headers.{header}", given.env, environment)
    return _sendable(f"headers.{header}", value)


def _sendable(field: str, value: str) -> str:
    """A value that a header can carry."""
    if not value.isprintable() or not value.isascii():
        raise ValueError(f"{field}: must consist of printable ASCII characters")
    return value


def _variable(field: str, name: str, environment: Mapping[str, str]) -> str:
    value = environment.get(name, "").strip()
    if not value:
        raise ValueError(f"{field}: the environment variable {name} is not set")
    return value


def _of_openai_only(entry: ProviderEntry) -> str | None:
    return next((name for name in _QUIRKS if getattr(entry, name) is not None), None)


def _quirks(entry: ProviderEntry, base: Quirks) -> Quirks:
    return replace(
        base,
        max_tokens_field=entry.max_tokens_field or base.max_tokens_field,
        stream_usage=base.stream_usage if entry.stream_usage is None else entry.stream_usage,
        reasoning_field=entry.reasoning_field or base.reasoning_field,
        one_system_message=base.one_system_message if entry.one_system_message is None else entry.one_system_message,
    )


def _specs(entry: ProviderEntry, preset: Preset, upstream: Upstream) -> Iterable[ModelSpec]:
    known = {row.id: row for row in preset.models}
    entries = entry.models if entry.models is not None else tuple(ModelEntry(id=row.id) for row in preset.models)
    for model in entries:
        own_id = model.upstream_id or model.id
        row = known.get(own_id) or ModelRow(own_id, upstream.default_limit.size, upstream.default_abilities)
        does = _doing(model.abilities, row, is_known=own_id in known)
        yield ModelSpec(
            id=model.id,
            upstream_id=own_id,
            prompt_limit=PromptLimit(
                model.context_length or row.context_length, "tokens", f"context_length of {upstream.name}/{model.id}"
            ),
            owned_by=preset.owned_by,
            abilities=does.abilities,
            bounds=_model_bounds(model, upstream.bounds, own_id),
            services=does.services,
            chats=does.chats,
        )


class _Doing(Struct, frozen=True):
    """What a model does; see `ModelSpec`."""

    abilities: frozenset[Ability]
    services: frozenset[Service] | None
    chats: bool


def _doing(given: frozenset[Ability | Service] | None, row: ModelRow, *, is_known: bool) -> _Doing:
    """What a model does, as its entry says, or its preset, or its name."""
    if given is not None:
        services: frozenset[Service] = frozenset(service for service in SERVICES if service in given)
        abilities: frozenset[Ability] = frozenset(ability for ability in get_args(Ability) if ability in given)
        return _Doing(_with_text(abilities), services, chats=bool(abilities) or not services)
    if is_known:
        return _Doing(_with_text(row.abilities), frozenset(), chats=True)
    services_of_name = services_named(row.id)
    return _Doing(_with_text(row.abilities), services_of_name, chats=services_of_name is None)


def _bounds_rows(entry: ProviderEntry, preset: Preset) -> tuple[BoundsRow, ...]:
    """The preset's rows, and what the entry says of all models."""
    own = entry.bounds()
    return preset.bounds if own == ModelBounds() else (*preset.bounds, BoundsRow("*", own))


def _model_bounds(model: ModelEntry, rows: tuple[BoundsRow, ...], own_id: str) -> ModelBounds | None:
    """The bounds of a model; what its entry says wins over the rows."""
    own, found = model.bounds(), bounds_of(rows, own_id)
    if own == ModelBounds():
        return found
    return own if found is None else found | own


def _with_text(abilities: Iterable[Ability]) -> frozenset[Ability]:
    """Add what every upstream of this kind can do: take messages and further fields."""
    return frozenset(abilities) | frozenset(("messages", "options"))


def _traffic(entry: ProviderEntry, defaults: Traffic) -> Traffic:
    names = ("concurrency", "queue", "queue_timeout", "timeout", "idle_timeout", "longest_pause", "retries")
    given = {name: value for name in names if (value := getattr(entry, name)) is not None}
    breaker = replace(defaults.breaker, **entry.breaker.model_dump(exclude_none=True))
    return replace(defaults, breaker=breaker, **given)


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
