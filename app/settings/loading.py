"""Reads the settings from the environment and from `.env`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, ValidationError

from app.providers.openai_compatible.presets import PRESETS, Preset
from app.settings.access import AccessSettings
from app.settings.conversations import SessionSettings, StreamSettings
from app.settings.group import SettingsGroup
from app.settings.processes import ClusterSettings, ListeningSettings, LogSettings
from app.settings.upstreams import ModelSettings, SiteSettings, TrafficSettings, UpstreamSettings


class Settings(BaseModel):
    """All settings, by group, in the order of their documentation."""

    model_config = ConfigDict(frozen=True)

    access: AccessSettings
    listening: ListeningSettings
    cluster: ClusterSettings
    logs: LogSettings
    models: ModelSettings
    upstreams: UpstreamSettings
    site: SiteSettings
    traffic: TrafficSettings
    sessions: SessionSettings
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
    given = {name.upper(): value for name, value in overrides.items()}
    unknown = given.keys() - set(setting_names(presets))
    if unknown:
        raise TypeError(f"not a setting: {', '.join(sorted(unknown))}")
    values = {name.upper(): value for name, value in environment(_env_file).items()} | given
    of_presets = {
        name: {field: values[variable] for field, variable in preset.variables.items() if variable in values}
        for name, preset in presets.items()
    }
    # Each group finds its own variables among all.
    everything = {**values, "presets": of_presets}
    try:
        return Settings.model_validate(dict.fromkeys(Settings.model_fields, everything))
    except ValidationError as error:
        lines = (_line(fault["loc"], fault["msg"], presets) for fault in error.errors(include_input=False))
        raise SettingsError("\n".join(lines)) from None


def environment(env_file: str | Path | None = ".env") -> dict[str, str]:
    """Collect the variables of the environment and of a file, as far as they aren't empty. The environment wins.

    Raises:
        SettingsError: The file is not UTF-8.
    """
    from_file: Mapping[str, str | None] = {}
    if env_file is not None and Path(env_file).is_file():
        try:
            from_file = dotenv_values(env_file, encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise SettingsError(f"{env_file}: the file is not UTF-8") from None
    return {name: value for source in (from_file, os.environ) for name, value in source.items() if value}


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
        case (_, "presets", str(name), str(field), *_):
            return f"{presets[name].variables[field]}: {message}"
        case (_, variable, *_):
            return f"{variable}: {message}"
        case _:
            return message
