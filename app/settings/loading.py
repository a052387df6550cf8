"""Reads the settings from the environment and from `.env`."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource

from app.providers.openai_compatible.presets import PRESETS, Preset
from app.settings.access import AccessSettings
from app.settings.conversations import AnswerCacheSettings, SessionSettings, StreamSettings
from app.settings.database import DatabaseSettings
from app.settings.group import SettingsGroup, unquoted
from app.settings.limits import LimitSettings
from app.settings.processes import ClusterSettings, ComposeSettings, ListeningSettings, LogSettings
from app.settings.upstreams import ModelSettings, SiteSettings, TrafficSettings, UpstreamSettings

# Variables that stand in the same file for the images that docker compose runs.
_OF_IMAGES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "TZ"})
_OF_OTHERS = ("COMPOSE_", "DOCKER_", "BUILDKIT_", "OTEL_", "PYTHON", "GF_")


class Settings(BaseModel):
    """All settings, by group, in the order of their documentation."""

    model_config = ConfigDict(frozen=True)

    access: AccessSettings
    listening: ListeningSettings
    cluster: ClusterSettings
    compose: ComposeSettings
    logs: LogSettings
    models: ModelSettings
    upstreams: UpstreamSettings
    site: SiteSettings
    traffic: TrafficSettings
    sessions: SessionSettings
    answers: AnswerCacheSettings
    database: DatabaseSettings
    limits: LimitSettings
    streams: StreamSettings


class SettingsError(Exception):
    """The settings can't be used; says which and why, in a line for each."""


def load_settings(
    presets: Mapping[str, Preset] = PRESETS, /, *, _env_file: Any = ".env", **overrides: object
) -> Settings:
    """Load the settings of this process.

    Args:
        presets: The upstreams that have settings of their own.
        _env_file: The path of a file with further variables, which need not exist, or None. The environment wins over
            it. (The underscore keeps the argument apart from settings.)
        overrides: Settings by their variables' names in lower case; they win over everything.

    Raises:
        SettingsError: A value is wrong. Values are not repeated: some are secrets.
        TypeError: An override is not a setting.
    """
    given: dict[str, Any] = {name.upper(): value for name, value in overrides.items()}
    unknown = given.keys() - set(setting_names(presets))
    if unknown:
        raise TypeError(f"not a setting: {', '.join(sorted(unknown))}")
    variables = {name.upper(): value for name, value in environment(_env_file).items()} | given
    of_presets = {
        name: {field: variables[variable] for field, variable in preset.variables.items() if variable in variables}
        for name, preset in presets.items()
    }
    groups: dict[str, Any] = {}
    faults: list[str] = []
    for name, group in setting_groups().items():
        try:
            groups[name] = group(_env_file=_env_file, presets=of_presets, **given)
        except ValidationError as error:
            faults += [_line(fault["loc"], fault["msg"], presets) for fault in error.errors(include_input=False)]
    if faults:
        raise SettingsError("\n".join(faults))
    return Settings.model_construct(**groups)


def environment(env_file: str | Path | None = ".env") -> dict[str, str]:
    """Collect the variables of the environment and of a file, as far as they aren't empty. The environment wins.

    Raises:
        SettingsError: The file is not UTF-8.
    """
    try:
        file = DotEnvSettingsSource(SettingsGroup, env_file, case_sensitive=True)
    except UnicodeDecodeError:
        raise SettingsError(f"{env_file}: the file is not UTF-8") from None
    variables = {**file.env_vars, **EnvSettingsSource(SettingsGroup, case_sensitive=True).env_vars}
    return {name: unquoted(value) for name, value in variables.items() if value}


def unknown_lines(known: Iterable[str] = (), env_file: str | Path | None = ".env") -> dict[str, str]:
    """List what a file sets although nobody reads it, each with the setting whose name comes nearest, or nothing.

    Args:
        known: Further names that somebody reads, besides settings, and besides what compose files and nginx read.
        env_file: The path of the file, which need not exist.
    """
    names = DotEnvSettingsSource(SettingsGroup, env_file, case_sensitive=True).env_vars
    settings = setting_names()
    ours = {name.upper() for name in (*settings, *known)} | _OF_IMAGES
    unknown = [name for name in names if name.upper() not in ours and not name.upper().startswith(_OF_OTHERS)]
    return {name: next(iter(get_close_matches(name.upper(), settings, n=1)), "") for name in unknown}


def setting_groups() -> dict[str, type[SettingsGroup]]:
    """List the groups by their attributes of `Settings`."""
    return {name: cast("type[SettingsGroup]", field.annotation) for name, field in Settings.model_fields.items()}


def setting_names(presets: Mapping[str, Preset] = PRESETS) -> list[str]:
    """List the variables of all settings, those of presets included."""
    in_groups = (variable for group in setting_groups().values() for variable in group.settings())
    return [*in_groups, *(variable for preset in presets.values() for variable in preset.variables.values())]


def _line(location: tuple[int | str, ...], message: str, presets: Mapping[str, Preset]) -> str:
    """Write a fault, with the variable in front. Faults between settings name theirs in the message."""
    message = message.removeprefix("Value error, ")
    match location:
        case ("presets", str(name), str(field), *_):
            return f"{presets[name].variables[field]}: {message}"
        case (variable, *_):
            return f"{variable}: {message}"
        case _:
            return message
