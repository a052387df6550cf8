"""`.env.example` tells the truth about every setting."""

from pathlib import Path

import pytest

from app.settings import Settings, load_settings

EXAMPLE = Path(__file__).parent.parent / ".env.example"


def test_every_setting_is_in_the_example_and_nothing_else() -> None:
    """Whoever reads .env.example knows all settings."""
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    named = {line.partition("=")[0].lower() for line in lines if line and not line.startswith("#")}
    assert named == set(Settings.model_fields)


def test_the_example_shows_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of .env.example with nothing but a key in it behaves like no file at all."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    key = "sk-one-4f9a1c77d2e0"
    from_example = load_settings(_env_file=EXAMPLE, api_master_key=key)
    assert from_example == load_settings(_env_file=None, api_master_key=key)


def test_an_unchanged_copy_of_the_example_is_refused() -> None:
    """Nobody runs the gateway with a key that everybody knows: the example has none."""
    with pytest.raises(Exception, match="API_MASTER_KEY: a key is needed"):
        load_settings(_env_file=EXAMPLE)


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_readme_names_every_setting(readme: str) -> None:
    """No setting is known to .env.example alone."""
    text = (EXAMPLE.parent / readme).read_text(encoding="utf-8")
    assert [name for name in Settings.model_fields if f"`{name.upper()}`" not in text] == []
