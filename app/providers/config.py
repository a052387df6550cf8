"""Which upstreams with an API there are: presets that are switched on, and the rows of `PROVIDERS_FILE`."""

from collections.abc import Iterable, Mapping
from typing import get_args

from msgspec import Struct
from msgspec.structs import replace

from app.domain.chat import ApiKind
from app.domain.prompt import PromptLimit
from app.domain.relay import SERVICES, Service
from app.providers.api_upstream.upstream import Quirks, Upstream
from app.providers.base import Ability, ModelSpec
from app.providers.bounds import BoundsRow, ModelBounds, bounds_of
from app.providers.entries import (
    USUAL_PATHS,
    FromEnvironment,
    KeyedEntry,
    ModelEntry,
    PresetSettings,
    ProviderEntry,
    ProvidersFile,
    ProvidersFileError,
    checked_base_url,
    separated,
)
from app.providers.openai_compatible.presets import PRESETS, ModelRow, Preset
from app.providers.resilience.breaker import LONGEST_PAUSE, BreakerPolicy
from app.providers.services import services_named

# How upstreams of OpenAI's form differ; other forms have their vendors' own rules.
_QUIRKS = ("max_tokens_field", "stream_usage", "reasoning_field", "one_system_message")


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
        base_url=checked_base_url(base_url, USUAL_PATHS[preset.kind]),
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
        keys = separated(entry.key.get_secret_value())
        if not keys:
            raise ValueError("key: has nothing but blanks and commas")
        return "key", {"key" if len(keys) > 1 else switch: keys}
    if entry.key_env is not None:
        names = separated(entry.key_env)
        return "key_env", {name: _keys_in(name, environment) for name in names}
    if entry.base_url is not None:
        return "key", {}  # a vendor's key goes nowhere but to the vendor, or to where the settings say
    if switch and not settings.keys:
        raise ValueError(f"{preset.switch} is not set")
    return "key", {switch: settings.keys}


def _keys_in(variable: str, environment: Mapping[str, str]) -> list[str]:
    keys = separated(_variable("key_env", variable, environment))
    if not keys:
        raise ValueError(f"key_env: the environment variable {variable} has nothing but commas")
    return keys


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
