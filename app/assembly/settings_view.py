"""The settings as they hold, for people who look after the gateway."""

import inspect
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource

from app.api.admin.services import Setting
from app.settings.group import SettingsGroup
from app.settings.loading import Settings, setting_groups


def settings_as_they_hold(settings: Settings, env_file: str | Path | None = ".env") -> Sequence[Setting]:
    """All settings with their values, and where each comes from; of secrets only whether they are set."""
    in_environment = {name.upper() for name, value in EnvSettingsSource(SettingsGroup).env_vars.items() if value}
    in_file = {name.upper() for name, value in DotEnvSettingsSource(SettingsGroup, env_file).env_vars.items() if value}
    found = []
    for attribute, group in setting_groups().items():
        title = inspect.cleandoc(group.__doc__ or "").partition("\n")[0].rstrip(".")
        values = getattr(settings, attribute)
        for name, field in group.model_fields.items():
            variable = field.validation_alias
            if not isinstance(variable, str):
                continue
            value = getattr(values, name)
            shown, is_set = _shown(value)
            found.append(
                Setting(
                    variable,
                    title,
                    shown,
                    "environment" if variable in in_environment else "file" if variable in in_file else "default",
                    is_set,
                    field.description or "",
                )
            )
    return found


def _shown(value: object) -> tuple[str | None, bool]:
    """A value as an operator writes it, and whether there is one."""
    if isinstance(value, SecretStr):
        return None, bool(value.get_secret_value())
    if isinstance(value, list | tuple | dict | frozenset):
        # What may have secrets in it, such as keys of upstreams, is not shown.
        has_secrets = any(isinstance(one, SecretStr) for one in value)
        return None if has_secrets else ", ".join(map(str, value)) or None, bool(value)
    if isinstance(value, bool):
        return "true" if value else "false", True
    if isinstance(value, Enum):
        return str(value.value), True
    return (None, False) if value is None or value == "" else (str(value), True)
