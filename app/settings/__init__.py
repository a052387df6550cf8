"""The settings: environment variables and lines of `.env`, in groups, checked once at the start.

Adding one takes a line in its group, and whoever uses it: `.env.example` and `docs/settings.md` follow from that.
"""

from app.settings.loading import (
    Settings,
    SettingsError,
    environment,
    load_settings,
    setting_names,
    unknown_lines,
)

__all__ = ["Settings", "SettingsError", "environment", "load_settings", "setting_names", "unknown_lines"]
