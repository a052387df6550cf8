"""The worked example of a provider is documented as it is, and works."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TextIO

import openai

from app.assembly.app import create_app
from app.observe import logging as logs
from app.settings import load_settings
from simulator.live import LiveSimulator
from tests.live import ALICE_KEY, serving
from tests.ports import free_port
from tests.processes import environment, until_it_listens

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "shout_provider.py"


def test_the_documentation_shows_the_example_as_it_is() -> None:
    """What a reader copies from docs/providers.md is the code that the next tests run."""
    assert EXAMPLE.read_text(encoding="utf-8").strip() in (ROOT / "docs" / "providers.md").read_text(encoding="utf-8")


def test_a_further_provider_takes_one_setting(site: LiveSimulator, log_stream: TextIO) -> None:
    """The example's model is listed, answers whole and in parts, and remembers sessions like any other."""
    settings = load_settings(
        _env_file=None,
        api_master_key=ALICE_KEY,
        chat_page_url=site.page_url,
        providers="examples.shout_provider:ShoutProvider",
    )
    app = create_app(settings)
    logs.configure("DEBUG", "json", log_stream)
    with serving(app) as gateway:
        _ask(gateway.openai_url)


def test_a_further_provider_is_mounted_into_the_image(site: LiveSimulator, tmp_path: Path) -> None:
    """In a folder with what the image holds and a folder of the operator's, the image's command serves the example."""
    shutil.copytree(ROOT / "app", tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "main.py", tmp_path)
    (tmp_path / "plugins").mkdir()
    shutil.copy(EXAMPLE, tmp_path / "plugins")
    port = free_port()
    settings = environment(
        API_MASTER_KEY=ALICE_KEY,
        API_PORT=str(port),
        CHAT_PAGE_URL=site.page_url,
        PROVIDERS="plugins.shout_provider:ShoutProvider",
        LOG_FORMAT="pretty",
    )
    command = [sys.executable, "main.py", "serve"]
    with subprocess.Popen(command, cwd=tmp_path, env=settings, stderr=subprocess.PIPE, text=True) as server:
        try:
            until_it_listens(server)
            _ask(f"http://127.0.0.1:{port}/v1")
        finally:
            server.kill()


def _ask(base_url: str) -> None:
    with openai.OpenAI(base_url=base_url, api_key=ALICE_KEY) as client:
        assert "shout" in [model.id for model in client.models.list()]
        ask = {"model": "shout", "user": "ada", "messages": [{"role": "user", "content": "hello there"}]}
        whole = client.chat.completions.create(**ask, stream=False)  # type: ignore[call-overload]
        assert whole.choices[0].message.content == "HELLO THERE"
        parts = client.chat.completions.create(**ask, stream=True)  # type: ignore[call-overload]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in parts)
    assert text.startswith("[USER]: HELLO THERE")
