"""Presets and PROVIDERS_FILE."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from app.providers.api_upstream.upstream import Upstream
from app.providers.bounds import ModelBounds
from app.providers.config import Traffic, configured_upstreams
from app.providers.entries import (
    PresetSettings,
    ProvidersFile,
    ProvidersFileError,
    checked_base_url,
    read_providers_file,
)
from app.providers.openai_compatible.presets import PRESETS
from app.providers.registry import ModelRoute
from app.providers.resilience.breaker import BreakerPolicy

DEFAULTS = Traffic(100, 1000, 60, 120, 60, 3, BreakerPolicy())
EVERYTHING = """
[[providers]]
name = "work"
base_url = "https://llm.example.org/v1/"
key_env = "WORK_KEY"
models = ["small", { id = "large", upstream_id = "qwen3-32b", context_length = 32768, abilities = ["tools"] }]
any_model = true
discover = true
context_length = 16384
abilities = ["json_object"]
headers = { "X-Team" = "blue", "X-Token" = { env = "WORK_TOKEN" } }
concurrency = 4
queue = 10
queue_timeout = 5
timeout = 300
idle_timeout = 90
retries = 1
longest_pause = 20
breaker = { minimum_calls = 5 }
max_tokens_field = "max_completion_tokens"
stream_usage = false
reasoning_field = "reasoning"

[[providers]]
name = "second-account"
preset = "deepseek"
key_env = "SECOND_KEY"
models = { "deepseek" = "deepseek-chat", "thinker" = { upstream_id = "deepseek-reasoner", abilities = [] } }

[routes]
kimi = ["kimi-web/kimi-k2-instruct", "work/large"]
shared = { "work/small" = 3, "second-account/deepseek" = 1 }
"""
ENVIRONMENT = {"WORK_KEY": "sk-work-1", "WORK_TOKEN": "tok-2", "SECOND_KEY": "sk-second-3"}


def read(tmp_path: Path, text: str) -> ProvidersFile:
    path = tmp_path / "providers.toml"
    path.write_text(text, encoding="utf-8")
    return read_providers_file(path)


def upstreams(file: ProvidersFile, settings: dict[str, PresetSettings] | None = None) -> dict[str, Upstream]:
    return {row.name: row for row, _ in configured_upstreams(file, settings or {}, ENVIRONMENT, DEFAULTS)}


def test_everything_that_can_be_said_is_understood(tmp_path: Path) -> None:
    """Each field of the file reaches the row that it is meant for."""
    file = read(tmp_path, EVERYTHING)
    work, traffic = configured_upstreams(file, {}, ENVIRONMENT, DEFAULTS)[0]
    assert (work.base_url, work.key, work.key_name) == ("https://llm.example.org/v1", "sk-work-1", "WORK_KEY")
    assert work.headers == {"X-Team": "blue", "X-Token": "tok-2"}
    assert [(spec.id, spec.upstream_id, spec.prompt_limit.size) for spec in work.models] == [
        ("small", "small", 16384),
        ("large", "qwen3-32b", 32768),
    ]
    text = {"messages", "options"}
    assert [spec.abilities for spec in work.models] == [text | {"json_object"}, text | {"tools"}]
    assert (work.any_model, work.discover, work.default_limit.size) == (True, True, 16384)
    quirks = work.quirks
    assert (quirks.max_tokens_field, quirks.stream_usage) == ("max_completion_tokens", False)
    assert quirks.reasoning_field == "reasoning"
    assert traffic == Traffic(4, 10, 5, 300, 90, 1, BreakerPolicy(minimum_calls=5), longest_pause=20)
    assert file.named_routes() == {
        "kimi": ModelRoute(("kimi-web/kimi-k2-instruct", "work/large")),
        "shared": ModelRoute(("work/small", "second-account/deepseek"), (3, 1)),
    }


def test_a_file_may_come_from_windows(tmp_path: Path) -> None:
    """The mark that Windows' editors put at a file's beginning is no part of it."""
    file = read(tmp_path, '\ufeff[[providers]]\r\nname = "work"\r\nbase_url = "http://x"\r\n')
    assert [entry.name for entry in file.providers] == ["work"]


@pytest.mark.parametrize(
    ("given", "base_url"),
    [
        ("https://llm.example/v1", "https://llm.example/v1"),
        (" https://llm.example/v1/ ", "https://llm.example/v1"),
        ("https://llm.example/v1/chat/completions", "https://llm.example/v1"),
        ("https://llm.example/v1/chat/completions/", "https://llm.example/v1"),
        ("https://llm.example/v1//chat/completions/chat/completions", "https://llm.example/v1"),
        ("https://llm.example/api/v3/completions", "https://llm.example/api/v3"),
        ("https://llm.example/v1/models", "https://llm.example/v1"),
        ("https://llm.example/v1/responses/", "https://llm.example/v1"),
        ("https://llm.example:8443/chat/completions", "https://llm.example:8443/v1"),
        ("https://llm.example", "https://llm.example/v1"),
        ("https://llm.example/chat/v1", "https://llm.example/chat/v1"),
        ("https://llm.example/our-models", "https://llm.example/our-models"),
    ],
)
def test_a_base_url_may_end_in_an_endpoint_s_address(given: str, base_url: str) -> None:
    """What was copied along with a base URL is cut off; a path of its own stays."""
    assert checked_base_url(given) == base_url
    assert checked_base_url(base_url) == base_url


def test_the_file_tells_which_variables_it_reads(tmp_path: Path) -> None:
    """The variables of keys and headers are known to be read."""
    assert read(tmp_path, EVERYTHING).variables() == set(ENVIRONMENT)


def test_an_entry_can_build_on_a_preset(tmp_path: Path) -> None:
    """A second account at a known vendor needs a name and a key; known models keep their facts."""
    second = upstreams(read(tmp_path, EVERYTHING))["second-account"]
    assert (second.base_url, second.key) == ("https://api.deepseek.com/v1", "sk-second-3")
    assert [(spec.id, spec.upstream_id) for spec in second.models] == [
        ("deepseek", "deepseek-chat"),
        ("thinker", "deepseek-reasoner"),
    ]
    assert {spec.prompt_limit.size for spec in second.models} == {131072}
    assert ["tools" in spec.abilities for spec in second.models] == [True, False]


BOUNDS = """
[[providers]]
name = "work"
base_url = "http://x"
any_model = true
max_tokens = 4096
option_bounds = { temperature = [0, 1] }
models = ["plain", { id = "thinker", max_tokens = 8192, option_bounds = { temperature = [1, 1], top_p = [0, 1] } }]

[[providers]]
name = "moonshot"
key_env = "WORK_KEY"
models = ["kimi-k2.5", { id = "own", upstream_id = "kimi-k2-thinking", schema_rules = "any", max_tokens = 100 }]
option_bounds = { top_p = [0, 1] }
"""


@pytest.mark.parametrize(
    ("provider", "model", "bounds"),
    [
        ("work", "plain", ModelBounds(4096, {"temperature": (0, 1)})),
        ("work", "thinker", ModelBounds(8192, {"temperature": (1, 1), "top_p": (0, 1)})),
        ("moonshot", "own", ModelBounds(100, {"temperature": (1, 1), "top_p": (0, 1)}, "any")),
        (
            "moonshot",
            "kimi-k2.5",
            ModelBounds(
                None,
                {
                    "temperature": (1, 1),
                    "top_p": (0, 1),
                    "presence_penalty": (0, 0),
                    "frequency_penalty": (0, 0),
                },
                "moonshot",
            ),
        ),
    ],
)
def test_what_a_model_takes_is_said_by_preset_provider_and_model(
    tmp_path: Path, provider: str, model: str, bounds: ModelBounds
) -> None:
    """A model's own bounds win over those of its provider, and these over the preset's; the rest adds up."""
    found = upstreams(read(tmp_path, BOUNDS))[provider]
    assert {spec.id: spec.bounds for spec in found.models}[model] == bounds


@pytest.mark.parametrize("wrong", ["[1, 0]", "[1]", "1", '["a", "b"]'])
def test_a_range_has_a_least_and_a_largest_value(tmp_path: Path, wrong: str) -> None:
    """Anything else is refused with its place."""
    text = f'[[providers]]\nname = "x"\nbase_url = "http://x"\noption_bounds = {{ temperature = {wrong} }}\n'
    with pytest.raises(ProvidersFileError, match=r"option_bounds\.temperature"):
        read(tmp_path, text)


@pytest.mark.parametrize("name", PRESETS)
def test_vendors_are_not_throttled_and_local_servers_are(name: str) -> None:
    """Who pays for calls decides how many there are; a machine of one's own takes a few at once."""
    preset = PRESETS[name]
    switch = PresetSettings.model_validate({"api_key": "sk-1"} if preset.base_url else {"base_url": "http://x"})
    ((_, traffic),) = configured_upstreams(ProvidersFile(), {name: switch}, ENVIRONMENT, DEFAULTS)
    assert (traffic.concurrency >= 1000) == bool(preset.base_url)
    assert traffic.concurrency == preset.concurrency


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_on_when_its_key_or_address_is_set(name: str) -> None:
    """Nothing is on by itself; a key (of local ones the address) is enough."""
    assert upstreams(ProvidersFile()) == {}
    preset = PRESETS[name]
    switch = {"api_key": "sk-1"} if preset.base_url else {"base_url": "http://localhost:11434"}
    found = upstreams(ProvidersFile(), {name: PresetSettings.model_validate(switch)})[name]
    assert found.base_url == (preset.base_url or "http://localhost:11434/v1")
    assert [spec.id for spec in found.models] == [row.id for row in preset.models]
    assert bool(found.models) or found.discover
    assert all({"messages", "options"} <= spec.abilities for spec in found.models)


@pytest.mark.parametrize(
    ("entry", "kind", "base_url", "sees"),
    [
        ('name = "a"\nkind = "anthropic"\nbase_url = "https://x.test"', "anthropic", "https://x.test/v1", True),
        (
            'name = "a"\nkind = "anthropic"\nbase_url = "https://x.test/messages"',
            "anthropic",
            "https://x.test/v1",
            True,
        ),
        ('name = "a"\nkind = "gemini"\nbase_url = "https://x.test"', "gemini", "https://x.test/v1beta", True),
        ('name = "a"\nkind = "openai"\nbase_url = "https://x.test"', "openai", "https://x.test/v1", False),
        ('name = "gemini"\nbase_url = "https://x.test"', "openai", "https://x.test/v1", False),
        ('name = "anthropic"\nkind = "anthropic"\nbase_url = "https://x.test"', "anthropic", "https://x.test/v1", True),
        ('name = "a"\npreset = "gemini"\nbase_url = "https://x.test"', "gemini", "https://x.test/v1beta", True),
        ('name = "anthropic"\nkey_env = "WORK_KEY"', "anthropic", "https://api.anthropic.com/v1", True),
    ],
)
def test_the_kind_says_what_an_address_means(tmp_path: Path, entry: str, kind: str, base_url: str, sees: bool) -> None:
    """It gives path and abilities, and a vendor's name alone says nothing of what is at another address."""
    [row] = upstreams(read(tmp_path, f"[[providers]]\n{entry}\n")).values()
    assert (row.kind, row.base_url) == (kind, base_url)
    assert ({"tools", "images"} <= row.default_abilities) is sees


def test_presets_of_other_kinds_keep_their_kind_wherever_they_are() -> None:
    """A key switches them on; a setting may move Gemini's."""
    settings = {
        "anthropic": PresetSettings(api_key=SecretStr("sk-1")),
        "gemini": PresetSettings(api_key=SecretStr("sk-2"), base_url="https://x.test/"),
    }
    rows = upstreams(ProvidersFile(), settings)
    assert [(row.kind, row.base_url, row.key) for row in rows.values()] == [
        ("anthropic", "https://api.anthropic.com/v1", "sk-1"),
        ("gemini", "https://x.test/v1beta", "sk-2"),
    ]


def test_a_provider_without_abilities_has_none(tmp_path: Path) -> None:
    """An empty list means nothing beyond text, also where the preset would know better."""
    text = '[[providers]]\nname = "ollama"\nbase_url = "http://localhost:11434"\nabilities = []\n'
    assert upstreams(read(tmp_path, text))["ollama"].default_abilities == {"messages", "options"}


def test_settings_choose_address_and_models_of_a_preset() -> None:
    """Known models keep what is known of them, unknown ones get the preset's defaults."""
    given = PresetSettings(
        api_key=SecretStr("sk-1"),
        base_url="https://proxy.example.org/kimi",
        models={"kimi-k2": "kimi-k2-0905-preview", "new": "new"},
    )
    found = upstreams(ProvidersFile(), {"moonshot": given})["moonshot"]
    assert found.base_url == "https://proxy.example.org/kimi"
    assert [(spec.id, spec.upstream_id, spec.prompt_limit.size) for spec in found.models] == [
        ("kimi-k2", "kimi-k2-0905-preview", 262144),
        ("new", "new", 131072),
    ]


def test_an_entry_replaces_the_preset_of_its_name_and_keeps_its_key_at_home(tmp_path: Path) -> None:
    """The vendor's key is used for the vendor's address, and never sent to another one."""
    settings = {"moonshot": PresetSettings(api_key=SecretStr("sk-1"))}
    at_home = upstreams(read(tmp_path, '[[providers]]\nname = "moonshot"\ntimeout = 9\n'), settings)
    elsewhere = upstreams(
        read(tmp_path, '[[providers]]\nname = "moonshot"\nbase_url = "http://localhost:1/v1"\n'), settings
    )
    assert (at_home["moonshot"].key, elsewhere["moonshot"].key) == ("sk-1", "")


@pytest.mark.parametrize(
    ("key_env", "keys"),
    [
        ('"WORK_KEY"', {}),
        ('["WORK_KEY"]', {}),
        ('"WORK_KEY, SECOND_KEY"', {"WORK_KEY": "sk-work-1", "SECOND_KEY": "sk-second-3"}),
        ('["WORK_KEY", "SECOND_KEY"]', {"WORK_KEY": "sk-work-1", "SECOND_KEY": "sk-second-3"}),
        ('"TWO"', {"TWO 1": "sk-a", "TWO 2": "sk-b"}),
        ('["WORK_KEY", "TWO"]', {"WORK_KEY": "sk-work-1", "TWO 1": "sk-a", "TWO 2": "sk-b"}),
        ('["TWO", "TWO"]', {"TWO 1": "sk-a", "TWO 2": "sk-b"}),
        ('"SAME"', {}),
    ],
)
def test_an_entry_may_have_several_keys(tmp_path: Path, key_env: str, keys: dict[str, str]) -> None:
    """In several variables, in one, or both; each is named, once. A single one is what it always was."""
    file = read(tmp_path, f'[[providers]]\nname = "a"\nbase_url = "http://x"\nkey_env = {key_env}')
    environment = ENVIRONMENT | {"TWO": "sk-a, sk-b,", "SAME": "sk-work-1,sk-work-1"}
    ((row, _),) = configured_upstreams(file, {}, environment, DEFAULTS)
    assert (dict(row.keys), row.key) == (keys, next(iter(keys.values()), "sk-work-1"))
    assert row.key_name in (keys or {"WORK_KEY", "SAME 1"})
    assert {*keys.values(), row.key} <= {*row.secrets}
    assert file.variables() <= environment.keys()


def test_a_preset_s_variable_may_have_several_keys() -> None:
    """They are named by their places; none at all switch nothing on."""
    row = upstreams(ProvidersFile(), {"openai": PresetSettings(api_key=SecretStr(" sk-1 ,sk-2"))})["openai"]
    assert (row.key, row.key_name) == ("sk-1", "OPENAI_API_KEY 1")
    assert row.keys == {"OPENAI_API_KEY 1": "sk-1", "OPENAI_API_KEY 2": "sk-2"}
    assert upstreams(ProvidersFile(), {"openai": PresetSettings(api_key=SecretStr(" , "))}) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[providers]", "is not valid TOML"),
        ('providers = ["work"]', "providers[0]: Input should be"),
        ('[[providers]]\nname = "Work!"', "providers[0].name: up to 32 lower-case letters"),
        ('[[providers]]\nname = "work"', "providers[0] (work): base_url is missing"),
        ('[[providers]]\nname = "work"\nkey = "sk-1"', "providers[0] (work).key: there is no such field"),
        ('[[providers]]\nname = "work"\nbase_url = "ftp://x"', "providers[0] (work).base_url: must be an http"),
        ('[[providers]]\nname = "work"\nbase_url = "http://u:p@x/"', "(work).base_url: must be an address"),
        ('[[providers]]\nname = "work"\npreset = "nobody"', "providers[0] (work): preset: there is no such preset"),
        ('[[providers]]\nname = "work"\nkind = "bard"', "providers[0] (work).kind: Input should be"),
        (
            '[[providers]]\nname = "work"\npreset = "openai"\nkind = "gemini"',
            "providers[0] (work): kind: the preset openai is of the kind 'openai'",
        ),
        (
            '[[providers]]\nname = "work"\nbase_url = "http://x"\nkind = "gemini"\nstream_usage = true',
            "providers[0] (work): stream_usage: is for upstreams of the kind 'openai' only",
        ),
        ('[[providers]]\nname = "work"\ntimeout = 0', "providers[0] (work).timeout: Input should be greater than 0"),
        ('[[providers]]\nname = "work"\nabilities = ["sing"]', "providers[0] (work).abilities[0]: Input should be"),
        ('[[providers]]\nname = "work"\nmodels = [{ name = "x" }]', "providers[0] (work).models[0].id: Field required"),
        ('[[providers]]\nname = "a"\n[[providers]]\nname = "a"', "providers: two providers have the name 'a'"),
        ('[[providers]]\nname = "openai"', "providers[0] (openai): OPENAI_API_KEY is not set"),
        (
            '[[providers]]\nname = "a"\nbase_url = "http://x"\nkey_env = "NOT_SET"',
            "providers[0] (a): key_env: the environment variable NOT_SET is not set",
        ),
        (
            '[[providers]]\nname = "a"\nbase_url = "http://x"\nheaders = { "X-A" = { env = "NOT_SET" } }',
            "providers[0] (a): headers.X-A: the environment variable NOT_SET is not set",
        ),
        *(
            (
                f'[[providers]]\nname = "a"\nbase_url = "http://x"\nheaders = {{ "{name}" = "sk-1" }}',
                f"providers[0] (a).headers: '{name}' can't be set",
            )
            for name in ("Content-Length", "transfer-encoding", "Host", "Connection", "Accept-Encoding", "Expect")
        ),
        *(
            (
                f'[[providers]]\nname = "a"\nbase_url = "http://x"\nheaders = {{ "{name}" = "sk-1" }}',
                "is not the name of a header",
            )
            for name in ("X A", "X:", "", "X-\\u00e9", "X\\nA")
        ),
        (
            '[[providers]]\nname = "a"\nbase_url = "http://x"\nheaders = { "X-A" = "1", "x-a" = "2" }',
            "providers[0] (a).headers: 'X-A' is there twice",
        ),
        *(
            (
                f'[[providers]]\nname = "a"\nbase_url = "http://x"\nheaders = {{ "X-A" = "sk-1{sign}" }}',
                "providers[0] (a): headers.X-A: must consist of printable ASCII characters",
            )
            for sign in ("\\r\\nX-B: 1", "\\u0000", "\\u00e9", "\\u007f")
        ),
        (
            '[[providers]]\nname = "a"\nbase_url = "http://x"\nkey_env = "TORN_KEY"',
            "providers[0] (a): key_env: must consist of printable ASCII characters",
        ),
        *(
            (
                f'[[providers]]\nname = "a"\nbase_url = "http://x"\nkey_env = {names}',
                "providers[0] (a).key_env: write the name of a variable, or several names",
            )
            for names in ("[]", '""', '", "', '[" "]')
        ),
        (
            '[[providers]]\nname = "a"\nbase_url = "http://x"\nkey_env = ["WORK_KEY", "COMMAS"]',
            "providers[0] (a): key_env: the environment variable COMMAS has nothing but commas",
        ),
        ("[routes]\nkimi = []", "routes: the route 'kimi' needs at least one target"),
        ("[routes]\nkimi = { a = -1 }", "routes.kimi"),
        ("[route]", "route: there is no such field"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    """File, table and field are in the message, and no value that might be a secret."""
    with pytest.raises(ProvidersFileError) as error:
        configured_upstreams(
            read(tmp_path, text), {}, {**ENVIRONMENT, "TORN_KEY": "sk-1\nX-B: 1", "COMMAS": ","}, DEFAULTS
        )
    assert said in str(error.value)
    assert "sk-1" not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A wrong path is said as such."""
    with pytest.raises(ProvidersFileError, match=r"nowhere\.toml: can't be read"):
        read_providers_file(tmp_path / "nowhere.toml")


def test_a_row_shows_no_secret() -> None:
    """Whoever prints a row sees neither key nor headers."""
    values: dict[str, Any] = {"key": "sk-secret", "headers": {"X-Token": "tok-secret"}}
    assert "secret" not in repr(Upstream("a", "http://x", **values))


DOCS = (Path(__file__).parent.parent.parent / "docs" / "providers.md").read_text(encoding="utf-8")


def test_the_documentation_s_example_is_understood(tmp_path: Path) -> None:
    """What a reader copies from docs/providers.md is a file that the gateway takes."""
    file = read(tmp_path, DOCS.partition("```toml\n")[2].partition("```")[0])
    names = ("WORK_LLM_KEY", "SECOND_DEEPSEEK_KEY", "CLAUDE_PROXY_KEY", "GPU_TOKEN")
    environment = dict.fromkeys(names, "sk-1")
    assert [row.name for row, _ in configured_upstreams(file, {}, environment, DEFAULTS)] == [
        "work",
        "deepseek-2",
        "claude-proxy",
        "gpu",
    ]
    fields = {name for entry in file.providers for name in entry.model_fields_set}
    assert fields == set(type(file.providers[0]).model_fields)
