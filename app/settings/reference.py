"""The documentation of the settings, written from their declarations: `docs/settings.md` and `.env.example`. Pure."""

import inspect
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo

from app.providers.openai_compatible.presets import PRESETS, Preset
from app.settings.group import Accepts, SettingsGroup, Unit
from app.settings.loading import setting_groups

_WIDTH = 120
_ENV_EXAMPLE_INTRODUCTION = """\
# Settings of kimi-ai-2api. Copy this file to .env and change what you need: only API_MASTER_KEY has no default.
# Every line shows the default. Environment variables win over .env. A wrong value stops the start and is named.
#
# Written by ./dev docs from app/settings.
"""
_MARKDOWN_INTRODUCTION = """\
<!-- Written by ./dev docs from app/settings. -->

# Settings

Every setting is an environment variable, or a line of `.env` ([.env.example](../.env.example) is one to start from). \
The environment wins over the file; a variable without a value counts as not set.

A value that isn't accepted stops the start, with a line that names the setting and says what is wrong. Values are not \
repeated there: some are secrets.
"""
_NOT_MOVABLE = " (no setting for another one: clients of this gateway use its name for the gateway's own address)"
_PRESETS_INTRODUCTION = """\
A key switches an upstream on; of those on your own machines the address does. Several keys are separated by commas. \
`…_BASE_URL` sends requests to another address than the vendor's. `…_MODELS` lists other models than the known ones: \
names, or `public-name=their-name`, separated by commas.
"""


def env_example(presets: Mapping[str, Preset] = PRESETS) -> str:
    """Write `.env.example`."""
    sections = [_ENV_EXAMPLE_INTRODUCTION]
    for group in setting_groups().values():
        title, introduction = _heading(group)
        sections.append(f"# ── {title} ".ljust(_WIDTH - 1, "─") + "\n")
        sections += [_comment(introduction)] if introduction else []
        sections.append("".join(_env_lines(variable, field) for variable, field in group.settings().items()))
        sections += [_env_presets(presets)] if "presets" in group.model_fields else []
    return "\n".join(sections)


def settings_markdown(presets: Mapping[str, Preset] = PRESETS) -> str:
    """Write `docs/settings.md`."""
    sections = [_MARKDOWN_INTRODUCTION]
    for group in setting_groups().values():
        title, introduction = _heading(group)
        sections.append(f"## {title}\n")
        sections += [f"{introduction}\n"] if introduction else []
        rows = (_markdown_row(variable, field) for variable, field in group.settings().items())
        sections.append(_table(("setting", "default", "accepts", "meaning"), rows))
        sections += [_markdown_presets(presets)] if "presets" in group.model_fields else []
    return "\n".join(sections)


# ── Both ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _heading(group: type[SettingsGroup]) -> tuple[str, str]:
    title, _, introduction = inspect.cleandoc(group.__doc__ or "").partition("\n\n")
    return title.rstrip("."), " ".join(introduction.split())


def _default(field: FieldInfo) -> str:
    """The default as an operator writes it."""
    value = field.default
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _metadata(field: FieldInfo, kind: type[Any]) -> Any:
    return next((entry for entry in field.metadata if isinstance(entry, kind)), None)


def _choices(field: FieldInfo) -> tuple[str, ...]:
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()


# ── .env.example ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _comment(text: str) -> str:
    wrapped = textwrap.wrap(text.replace("`", ""), _WIDTH - 2, break_long_words=False, break_on_hyphens=False)
    return "".join(f"# {line}\n" for line in wrapped)


def _env_lines(variable: str, field: FieldInfo) -> str:
    text = field.description or ""
    if unit := _metadata(field, Unit):
        text += f" In {unit.name}."
    choices = _choices(field)
    if not all(f"`{choice}`" in text for choice in choices):
        text += f" One of {', '.join(choices[:-1])} and {choices[-1]}."
    return f"{_comment(text)}{variable}={_default(field)}\n"


def _env_presets(presets: Mapping[str, Preset]) -> str:
    rows = "".join(
        _comment(
            f"{name}: {preset.base_url or f'such as {preset.example_url}'}{'' if preset.movable else _NOT_MOVABLE}"
        )
        + "".join(f"{variable}=\n" for variable in preset.variables.values())
        for name, preset in presets.items()
    )
    return _comment(_PRESETS_INTRODUCTION) + rows


# ── docs/settings.md ─────────────────────────────────────────────────────────────────────────────────────────────────


def _markdown_row(variable: str, field: FieldInfo) -> tuple[str, ...]:
    default = _default(field)
    return f"`{variable}`", f"`{default}`" if default else "–", _accepts(field), field.description or ""


def _accepts(field: FieldInfo) -> str:
    if accepts := _metadata(field, Accepts):
        return str(accepts.words)
    if choices := _choices(field):
        return ", ".join(f"`{choice}`" for choice in choices)
    if field.annotation is bool:
        return "`true`, `false`"
    if isinstance(field.annotation, UnionType) and Path in get_args(field.annotation):
        return "a path"
    unit = _metadata(field, Unit)
    return ", ".join(filter(None, [unit.name if unit else "", _bounds(field)])) or "any text"


def _bounds(field: FieldInfo) -> str:
    least, above, most = (_metadata(field, kind) for kind in (Ge, Gt, Le))
    if least and most:
        return f"{least.ge} to {most.le}"
    words = [
        f"{least.ge} or more" if least else "",
        f"above {above.gt}" if above else "",
        f"up to {most.le}" if most else "",
    ]
    return ", ".join(filter(None, words))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = (head, ("---",) * len(head), *rows)
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _markdown_presets(presets: Mapping[str, Preset]) -> str:
    rows = (
        (
            f"`{name}`",
            f"`{preset.switch}`",
            f"`{preset.base_url}`" if preset.base_url else f"such as `{preset.example_url}`",
            ", ".join(f"`{variable}`" for variable in preset.variables.values() if variable != preset.switch),
            ", ".join(model.id for model in preset.models) or "what it lists itself",
        )
        for name, preset in presets.items()
    )
    table = _table(("upstream", "switched on by", "address", "further settings", "known models"), rows)
    return f"### Known upstreams\n\n{_PRESETS_INTRODUCTION}\n{table}"
