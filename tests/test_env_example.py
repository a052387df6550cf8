"""`.env.example` and `docs/settings.md` tell the truth about every setting."""

from pathlib import Path

import pytest

from app.settings import load_settings, setting_names
from app.settings.group import SettingsGroup
from app.settings.loading import setting_groups
from app.settings.reference import env_example, settings_markdown

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / ".env.example"


def _named_in(example: str) -> list[str]:
    return [line.partition("=")[0] for line in example.splitlines() if line and not line.startswith("#")]


def test_every_setting_is_in_the_example_and_nothing_else() -> None:
    """Whoever reads .env.example knows all settings."""
    assert sorted(_named_in(EXAMPLE.read_text(encoding="utf-8"))) == sorted(setting_names())


def test_the_example_shows_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of .env.example with nothing but a key in it behaves like no file at all."""
    for name in setting_names():
        monkeypatch.delenv(name, raising=False)
    key = "sk-one-4f9a1c77d2e0"
    from_example = load_settings(_env_file=EXAMPLE, api_master_key=key)
    assert from_example == load_settings(_env_file=None, api_master_key=key)


def test_an_unchanged_copy_of_the_example_is_refused() -> None:
    """Nobody runs the gateway with a key that everybody knows: the example has none."""
    with pytest.raises(Exception, match="API_MASTER_KEY: a key is needed"):
        load_settings(_env_file=EXAMPLE)


def test_the_documentation_is_what_the_declarations_say() -> None:
    """Both files are written from the settings, and nobody has to remember to change them by hand."""
    assert EXAMPLE.read_text(encoding="utf-8") == env_example()
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == settings_markdown()


def test_every_setting_has_its_row_with_default_bounds_and_meaning() -> None:
    """The table says what is counted and what is accepted, and escapes what would end a cell."""
    rows = [line for line in settings_markdown().splitlines() if line.startswith("| `")]
    row = {line.split("`")[1]: line for line in rows}
    assert {name for group in setting_groups().values() for name in group.settings()} <= row.keys()
    assert row["TYPING_DELAY_SECONDS"].startswith("| `TYPING_DELAY_SECONDS` | `0.02` | seconds, 0 or more | The pause")
    assert "| 0 to 20 |" in row["MAX_RETRIES"]
    assert "| above 0, up to 1 |" in row["BREAKER_FAILURE_RATE"]
    assert "| `ip`, `session` |" in row["STICKY"]
    assert r"a*3\|b*1" in row["MODEL_ROUTES"]


@pytest.mark.parametrize("group", setting_groups().values(), ids=setting_groups())
def test_every_setting_says_what_it_means(group: type[SettingsGroup]) -> None:
    """No setting is documented by its name alone."""
    assert group.__doc__
    assert all(field.description and field.description.endswith((".", ")", "`")) for field in group.settings().values())
