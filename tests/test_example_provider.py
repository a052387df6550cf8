"""The README's worked example of a provider is shown as it is, and works."""

from pathlib import Path
from typing import TextIO

import openai
import pytest

from app.assembly.app import create_app
from app.observe import logging as logs
from app.settings import load_settings
from examples.shout_provider import ShoutProvider
from simulator.live import LiveSimulator
from tests.live import ALICE_KEY, serving

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_readme_shows_the_example_as_it_is(readme: str) -> None:
    """What a reader copies from the README is the code that the next test runs."""
    source = (ROOT / "examples" / "shout_provider.py").read_text(encoding="utf-8")
    assert source.strip() in (ROOT / readme).read_text(encoding="utf-8")


def test_a_further_provider_is_registered_in_one_line(site: LiveSimulator, log_stream: TextIO) -> None:
    """The example's model is listed, answers whole and in parts, and remembers sessions like any other."""
    settings = load_settings(_env_file=None, api_master_key=ALICE_KEY, chat_page_url=site.page_url)
    app = create_app(settings, [ShoutProvider()])
    logs.configure("DEBUG", "json", log_stream)
    with serving(app) as gateway, openai.OpenAI(base_url=gateway.openai_url, api_key=ALICE_KEY) as client:
        assert "shout" in [model.id for model in client.models.list()]
        ask = {"model": "shout", "user": "ada", "messages": [{"role": "user", "content": "hello there"}]}
        whole = client.chat.completions.create(**ask, stream=False)  # type: ignore[call-overload]
        assert whole.choices[0].message.content == "HELLO THERE"
        parts = client.chat.completions.create(**ask, stream=True)  # type: ignore[call-overload]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in parts)
    assert text.startswith("[USER]: HELLO THERE")
