"""The example that runs Open WebUI together with the gateway: what docker-compose makes of it."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.compose import KEY, ROOT, Compose

FILE = "examples/open-webui/compose.yaml"
SECRET = "b41c7f02d9e65a38"


@pytest.fixture
def example(compose: Compose, tmp_path: Path) -> Compose:
    """docker-compose in a copy of the project that has the example, too."""
    (tmp_path / FILE).parent.mkdir(parents=True)
    shutil.copy(ROOT / FILE, tmp_path / FILE)
    return compose


def services(example: Compose, **settings: str) -> dict[str, Any]:
    given = {"API_MASTER_KEY": KEY, "WEBUI_SECRET_KEY": SECRET, **settings}
    done = example("config", "--format", "json", files=(FILE,), **given)
    assert (done.returncode, done.stderr) == (0, "")
    read: dict[str, Any] = json.loads(done.stdout)["services"]
    return read


def test_open_webui_talks_to_the_gateway_with_its_key(example: Compose) -> None:
    """The address is that of the gateway's service, and the key one that the gateway takes."""
    read = services(example)
    environment = read["open-webui"]["environment"]
    gateway = read["gateway"]["environment"]
    assert environment["OPENAI_API_BASE_URL"] == f"http://gateway:{gateway['API_PORT']}/v1"
    assert gateway["API_HOST"] == "0.0.0.0"
    assert (environment["OPENAI_API_KEY"], gateway["API_MASTER_KEY"]) == (KEY, KEY)


def test_of_several_keys_one_is_open_webuis(example: Compose) -> None:
    """A list of keys is no key: OPEN_WEBUI_KEY says which of them it is."""
    read = services(example, API_MASTER_KEY=f"sk-another-8d21,{KEY}", OPEN_WEBUI_KEY=KEY)
    assert read["open-webui"]["environment"]["OPENAI_API_KEY"] == KEY
    assert read["gateway"]["environment"]["API_MASTER_KEY"] == f"sk-another-8d21,{KEY}"


@pytest.mark.parametrize("missing", ["API_MASTER_KEY", "WEBUI_SECRET_KEY"])
def test_without_a_secret_nothing_starts(example: Compose, missing: str) -> None:
    """Whoever forgets a secret is told which."""
    given = {"API_MASTER_KEY": KEY, "WEBUI_SECRET_KEY": SECRET}
    done = example("config", files=(FILE,), **{name: value for name, value in given.items() if name != missing})
    assert done.returncode != 0
    assert f"{missing} is missing a value: set it in .env" in done.stderr


def test_one_dot_env_is_enough(example: Compose, tmp_path: Path) -> None:
    """The command in the file's head, run in the project's folder, reads the project's .env, also for the gateway."""
    lines = (f"API_MASTER_KEY={KEY}", f"WEBUI_SECRET_KEY={SECRET}", "NOTICES=brief", "API_HOST=127.0.0.1")
    (tmp_path / ".env").write_text("\n".join(lines), encoding="utf-8")
    done = example("--env-file", ".env", "config", "--format", "json", files=(FILE,))
    assert (done.returncode, done.stderr) == (0, "")
    read = json.loads(done.stdout)["services"]
    assert read["open-webui"]["environment"]["OPENAI_API_KEY"] == KEY
    gateway = read["gateway"]
    assert (gateway["environment"]["NOTICES"], gateway["environment"]["API_HOST"]) == ("brief", "0.0.0.0")
    assert Path(gateway["build"]["context"]) == tmp_path


def test_only_open_webui_can_be_reached_and_only_from_this_machine(example: Compose) -> None:
    """The gateway publishes nothing."""
    read = services(example)
    assert [name for name, service in read.items() if "ports" in service] == ["open-webui"]
    [port] = read["open-webui"]["ports"]
    assert (port["host_ip"], port["published"], port["target"]) == ("127.0.0.1", "3000", 8080)


def test_each_waits_until_the_one_before_works(example: Compose) -> None:
    """Settings are checked first, then the gateway starts, then Open WebUI, which would find no models otherwise."""
    read = services(example)
    assert read["gateway"]["depends_on"]["settings"]["condition"] == "service_completed_successfully"
    assert read["open-webui"]["depends_on"]["gateway"]["condition"] == "service_healthy"
    assert "healthcheck" in read["open-webui"]


def test_nothing_is_sent_that_nobody_asked_for(example: Compose) -> None:
    """No message to the site but those that somebody typed, and none with tools that it has no room for."""
    environment = services(example)["open-webui"]["environment"]
    generations = [value for name, value in environment.items() if re.fullmatch(r"ENABLE_\w+_GENERATION", name)]
    assert len(generations) == 6
    assert set(generations) == {"false"}
    assert json.loads(environment["DEFAULT_MODEL_METADATA"])["capabilities"]["builtin_tools"] is False


def test_chats_outlive_the_container_and_the_version_is_known(example: Compose) -> None:
    """What Open WebUI keeps is on a volume, and its image is pinned."""
    webui = services(example)["open-webui"]
    assert [(volume["type"], volume["target"]) for volume in webui["volumes"]] == [("volume", "/app/backend/data")]
    assert re.fullmatch(r"[\w./-]+:v\d+\.\d+\.\d+", webui["image"])
    assert webui["logging"]["options"].keys() == {"max-size", "max-file"}
