"""Which providers the settings lead to."""

import traceback
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.assembly.providers import build_registry
from app.cli.demo import simulated_upstreams
from app.providers.openai_compatible.presets import PRESETS, ModelRow, Preset
from app.providers.openai_compatible.provider import OpenAICompatibleProvider
from app.settings import SettingsError, load_settings, setting_names
from app.settings.reference import env_example, settings_markdown

KEY = "sk-acme-4f9a1c77d2e0"
ACME = Preset(
    name="acme-cloud",
    owned_by="acme",
    base_url="https://api.acme.example/v1",
    models=(ModelRow("acme-1", 32_768, frozenset({"tools"})),),
)
WITH_ACME = {**PRESETS, ACME.name: ACME}


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set on the machine that runs the tests plays no part."""
    for name in setting_names():
        monkeypatch.delenv(name, raising=False)


# ── A further preset is a row of data ────────────────────────────────────────────────────────────────────────────────


def test_a_further_preset_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing but its row a preset has its settings, in the environment as in code, and serves its models."""
    monkeypatch.setenv("ACME_CLOUD_API_KEY", KEY)
    settings = load_settings(WITH_ACME, _env_file=None, auth_disabled=True, acme_cloud_models="mine=acme-1")
    registry = build_registry(settings, presets=WITH_ACME)
    (target,) = registry.resolve("mine")
    assert isinstance(target.provider, OpenAICompatibleProvider)
    assert (target.provider.name, target.spec.upstream_id) == ("acme-cloud", "acme-1")
    assert target.spec.prompt_limit.size == 32_768
    assert [provider.name for provider in registry.providers] == ["kimi-web", "acme-cloud"]


def test_a_further_preset_s_settings_are_checked_and_kept_secret() -> None:
    """Its wrong settings are named, and no refusal repeats its key."""
    with pytest.raises(SettingsError) as caught:
        load_settings(
            WITH_ACME,
            _env_file=None,
            auth_disabled=True,
            acme_cloud_api_key=KEY,
            acme_cloud_base_url="acme.example",
            acme_cloud_models="=x",
        )
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "ACME_CLOUD_BASE_URL",
        "ACME_CLOUD_MODELS",
    ]
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert KEY not in repr(load_settings(WITH_ACME, _env_file=None, auth_disabled=True, acme_cloud_api_key=KEY))


def test_a_further_preset_is_documented() -> None:
    """Its settings stand in .env.example, and its row in the table of docs/settings.md."""
    assert "\n# acme-cloud: https://api.acme.example/v1\nACME_CLOUD_API_KEY=\n" in env_example(WITH_ACME)
    row = next(line for line in settings_markdown(WITH_ACME).splitlines() if line.startswith("| `acme-cloud` |"))
    assert all(text in row for text in (ACME.base_url, *ACME.variables.values(), "acme-1"))


def test_the_demo_asks_no_upstream_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is set, a further preset's key included, the demo has the simulated upstreams only."""
    for preset in WITH_ACME.values():
        monkeypatch.setenv(preset.switch, KEY if preset.base_url else "http://127.0.0.1:9")
    monkeypatch.setenv("PROVIDERS", "nowhere:Nobody")
    monkeypatch.setenv("PROVIDERS_FILE", "nowhere.toml")
    monkeypatch.setenv("MODEL_ROUTES", "kimi=moonshot/kimi-k2-0905-preview")
    overrides = simulated_upstreams("http://127.0.0.1:9/v1", WITH_ACME)
    settings = load_settings(WITH_ACME, _env_file=None, auth_disabled=True, **overrides)
    registry = build_registry(settings, presets=WITH_ACME)
    assert [provider.name for provider in registry.providers] == ["kimi-web", "moonshot"]
    asked = {model: [target.provider.name for target in registry.resolve(model)] for model, _ in registry.model_ids()}
    assert asked["kimi"] == ["kimi-web"]
    assert asked["kimi-k2-0905-preview"] == ["moonshot"]
    assert all(len(providers) == 1 for providers in asked.values())


def test_a_line_of_the_file_that_nobody_reads_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log names it and the nearest setting, and shows no value; the start goes on."""
    (tmp_path / ".env").write_text(f"API_MASTER_KEYS={KEY}\nACME_CLOUD_API_KEY={KEY}\nWORK_KEY={KEY}\n", "utf-8")
    (tmp_path / "own.toml").write_text(
        '[[providers]]\nname = "work"\nbase_url = "https://llm.example"\nkey_env = "WORK_KEY"\n', "utf-8"
    )
    monkeypatch.chdir(tmp_path)
    with capture_logs() as lines:
        build_registry(load_settings(WITH_ACME, auth_disabled=True, providers_file="own.toml"), presets=WITH_ACME)
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("unknown_setting", "warning")
    assert (line["name"], line["nearest"]) == ("API_MASTER_KEYS", "API_MASTER_KEY")
    assert KEY not in str(line)


# ── A provider class of the operator's own ───────────────────────────────────────────────────────────────────────────

MODULE = """
from app.domain.prompt import PromptLimit
from app.providers.base import BaseProvider, ModelSpec


class Good(BaseProvider):
    name = "good"
    models = (ModelSpec(id="good-1", upstream_id="good-1", prompt_limit=PromptLimit(4000), owned_by="me"),)

    async def create_completion(self, request):
        raise NotImplementedError

    def stream_completion(self, request):
        raise NotImplementedError


class Impostor(Good):
    name = "kimi-web"


class Wanting(Good):
    def __init__(self, key):
        self.key = key


class Failing(Good):
    def __init__(self):
        raise KeyError("GOOD_KEY")


class Half(BaseProvider):
    name = "half"
    models = ()

    async def create_completion(self, request):
        raise NotImplementedError


class Nameless(BaseProvider):
    async def create_completion(self, request):
        raise NotImplementedError

    def stream_completion(self, request):
        raise NotImplementedError


class Stranger:
    pass


good = Good()
"""


@pytest.fixture
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with modules of an operator's own, where Python finds it."""
    package = tmp_path / "operators_own"
    package.mkdir()
    (package / "providers.py").write_text(MODULE, encoding="utf-8")
    (package / "broken.py").write_text("import operators_lost_package\n", encoding="utf-8")
    (package / "raising.py").write_text("raise RuntimeError('no\\nluck')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("_modules")
def test_a_class_that_a_setting_names_is_a_provider() -> None:
    """Nothing but `PROVIDERS` is needed; its models stand behind the gateway's own."""
    settings = load_settings(_env_file=None, auth_disabled=True, providers="operators_own.providers:Good")
    registry = build_registry(settings)
    assert [provider.name for provider in registry.providers] == ["kimi-web", "good"]
    assert registry.resolve("good-1")[0].provider.name == "good"


@pytest.mark.usefixtures("_modules")
@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("operators_lost:Good", "names a module that can't be found; put operators_lost next to main.py"),
        ("operators_own.lost:Good", "names a module that can't be found; put operators_own.lost next to main.py"),
        ("operators_own.providers:Lost", "names a class that its module doesn't have"),
        ("operators_own.providers:Stranger", "is not a subclass of app.providers.base.BaseProvider"),
        ("operators_own.providers:good", "is not a subclass of app.providers.base.BaseProvider"),
        ("operators_own.providers:Half", "lacks stream_completion"),
        ("operators_own.providers:Nameless", "has no name and no models"),
        ("operators_own.providers:Wanting", "can't be made: its constructor needs arguments"),
        ("operators_own.providers:Failing", "can't be made: KeyError: 'GOOD_KEY'"),
        (
            "operators_own.broken:Good",
            "can't be imported: ModuleNotFoundError: No module named 'operators_lost_package'",
        ),
        ("operators_own.raising:Good", "can't be imported: RuntimeError: no luck"),
    ],
)
def test_a_class_that_is_no_provider_is_refused(name: str, fault: str) -> None:
    """One line says which entry of `PROVIDERS` can't be used, and why."""
    settings = load_settings(_env_file=None, auth_disabled=True, providers=name)
    with pytest.raises(SettingsError) as caught:
        build_registry(settings)
    assert str(caught.value).startswith(f"PROVIDERS: {name} {fault}")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("_modules")
def test_a_name_that_is_taken_is_refused_by_its_setting() -> None:
    """Two providers of one name are told by the setting that brought the second."""
    settings = load_settings(_env_file=None, auth_disabled=True, providers="operators_own.providers:Impostor")
    with pytest.raises(SettingsError, match=r"^PROVIDERS: Two providers have the name 'kimi-web'\.$"):
        build_registry(settings)


@pytest.mark.parametrize(
    ("given", "default", "kimi"),
    [
        ({}, "kimi-k2-instruct-0905", "kimi-k2-instruct-0905"),
        ({"default_model": "kimi"}, "kimi-k2-instruct-0905", "kimi-k2-instruct-0905"),
        ({"default_model": "kimi-k2-instruct"}, "kimi-k2-instruct", "kimi-k2-instruct"),
        ({"default_model": "mine", "model_routes": "mine=kimi"}, "kimi-k2-instruct-0905", "kimi-k2-instruct-0905"),
        ({"default_model": "KIMI"}, "kimi-k2-instruct-0905", "kimi-k2-instruct-0905"),
        ({"model_routes": "gpt-4o=kimi,kimi=kimi-k2-instruct"}, "kimi-k2-instruct-0905", "kimi-k2-instruct"),
    ],
    ids=str,
)
def test_the_default_model_may_have_any_name(given: dict[str, object], default: str, kimi: str) -> None:
    """A model's, a route's, or the short one; and the short one always means something."""
    registry = build_registry(load_settings(_env_file=None, api_master_key=KEY, **given))
    assert registry.resolve(registry.default_model)[0].spec.id == default
    assert registry.resolve("kimi")[0].spec.id == kimi


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"default_model": "unknown"}, "DEFAULT_MODEL: nobody serves 'unknown'"),
        ({"known_models": "other=upstream"}, "DEFAULT_MODEL: nobody serves 'kimi-k2-instruct-0905'"),
        ({"model_routes": "x=y,y=x"}, "MODEL_ROUTES: The routes lead in a circle: x → y → x"),
        ({"model_routes": "x=nowhere"}, "MODEL_ROUTES: The route 'x' leads to 'nowhere'"),
    ],
    ids=str,
)
def test_names_that_lead_nowhere_are_refused_at_the_start(given: dict[str, object], fault: str) -> None:
    """By the setting that says so."""
    with pytest.raises(SettingsError, match=fault):
        build_registry(load_settings(_env_file=None, api_master_key=KEY, **given))
