import traceback
from pathlib import Path

import pytest

from app.providers.registry import ModelRoute
from app.settings import Settings, SettingsError, environment, load_settings, setting_names, unknown_lines

GOOD_KEY = "sk-alice-4f9a1c77d2e0"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set on the machine that runs the tests plays no part."""
    for name in setting_names():
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def _load(**values: object) -> Settings:
    return load_settings(**{"_env_file": None, "api_master_key": GOOD_KEY, **values})


def _faults(**values: object) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        _load(**values)
    return str(caught.value).splitlines()


def test_a_key_is_all_that_has_to_be_set() -> None:
    """With an API key and nothing else the settings are complete, and listen on this machine only."""
    settings = _load()
    assert settings.access.api_keys == [GOOD_KEY]
    assert settings.listening.host == "127.0.0.1"
    assert settings.models.default in settings.models.known
    assert (settings.site.context_max_length, settings.site.context_length_unit) == (1000, "codepoints")


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting is the environment variable of its name in capitals; lists are separated by commas."""
    monkeypatch.setenv("API_MASTER_KEY", f"{GOOD_KEY}, sk-bob-b81d03e65fa9")
    monkeypatch.setenv("API_PORT", "9000")
    monkeypatch.setenv("SESSION_FROM_USER", "off")
    monkeypatch.setenv("LOG_LEVEL", "debug")
    monkeypatch.setenv("CORS_ORIGINS", "https://a.example, https://b.example,")
    monkeypatch.setenv("CONTEXT_LENGTH_UNIT", "bytes")
    monkeypatch.setenv("TYPING_DELAY_SECONDS", "0.5")
    settings = load_settings(_env_file=None)
    assert settings.access.api_keys == [GOOD_KEY, "sk-bob-b81d03e65fa9"]
    assert (settings.listening.port, settings.sessions.from_user, settings.logs.level) == (9000, False, "DEBUG")
    assert settings.access.cors_origins == ["https://a.example", "https://b.example"]
    assert (settings.site.context_length_unit, settings.streams.typing_delay) == ("bytes", 0.5)


def test_settings_come_from_a_file_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file is read, the environment wins over it, and what it holds for others is passed over."""
    file = tmp_path / "settings.env"
    file.write_text(f"# mine\nAPI_MASTER_KEY={GOOD_KEY}\nAPI_PORT=9000\nMAX_RETRIES=7\nSOMEONE_ELSES=1\n", "utf-8")
    monkeypatch.setenv("API_PORT", "9001")
    settings = load_settings(_env_file=file)
    assert (settings.access.api_keys, settings.listening.port) == ([GOOD_KEY], 9001)
    assert settings.traffic.max_retries == 7


def test_a_file_may_come_from_windows(tmp_path: Path) -> None:
    """The mark that Windows' editors put at a file's beginning, and their line ends, are no part of a setting."""
    file = tmp_path / "settings.env"
    file.write_bytes(f"\ufeffAPI_MASTER_KEY={GOOD_KEY}\r\nAPI_PORT=9000\r\n".encode())
    settings = load_settings(_env_file=file)
    assert (settings.access.api_keys, settings.listening.port) == ([GOOD_KEY], 9000)


def test_a_variable_s_name_may_be_written_in_lower_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the environment of systems that don't tell the two apart."""
    monkeypatch.setenv("api_port", "9000")
    assert _load().listening.port == 9000


def test_an_override_that_is_not_a_setting_is_refused() -> None:
    """A misspelt setting in code doesn't pass for a set one."""
    with pytest.raises(TypeError, match="API_PROT"):
        _load(api_prot=9000)


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    """A file that isn't UTF-8 stops the start with one line, which shows nothing of it."""
    file = tmp_path / "settings.env"
    file.write_bytes(f"API_MASTER_KEY={GOOD_KEY}".encode("utf-16"))
    with pytest.raises(SettingsError, match="UTF-8") as caught:
        load_settings(_env_file=file)
    assert GOOD_KEY not in str(caught.value)


def test_a_certificate_goes_with_its_key() -> None:
    """Neither half of a TLS configuration is of use alone."""
    [fault] = _faults(tls_certificate_key="/key.pem")
    assert fault.startswith("TLS_CERTIFICATE: ")
    settings = _load(tls_certificate="/cert.pem", tls_certificate_key="/key.pem")
    cluster = settings.cluster
    assert (cluster.tls_certificate, cluster.tls_certificate_key) == (Path("/cert.pem"), Path("/key.pem"))


def test_a_sessions_lock_ends_while_others_still_wait_for_it() -> None:
    """With Redis SESSION_LOCK_TTL is at most half of SESSION_LOCK_WAIT; in memory there is nothing to expire."""
    (fault,) = _faults(session_store_url="redis://localhost:6379/0", session_lock_wait=20, session_lock_ttl=11)
    assert fault.startswith("SESSION_LOCK_TTL: ")
    assert _load(session_lock_wait=20, session_lock_ttl=11).sessions.lock_ttl == 11


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable without a value, as compose files pass it on, leaves the default in place."""
    for name in ("API_PORT", "KNOWN_MODELS", "CHAT_PAGE_URL", "LOG_LEVEL", "CORS_ORIGINS"):
        monkeypatch.setenv(name, "")
    assert _load() == load_settings(_env_file=None, api_master_key=GOOD_KEY)
    assert _load().listening.port == 8000


def test_an_empty_variable_leaves_the_files_value_in_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only a variable with a value wins over the file."""
    file = tmp_path / "settings.env"
    file.write_text("API_PORT=9000\n", "utf-8")
    monkeypatch.setenv("API_PORT", "")
    assert _load(_env_file=file).listening.port == 9000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("api_port", "many"),
        ("api_port", "70000"),
        ("api_port", "-1"),
        ("nginx_port", "0"),
        ("max_body_bytes", "10"),
        ("max_headers", "9"),
        ("max_messages", "0"),
        ("max_loop_lag_seconds", "0"),
        ("metrics_key", "changeme"),
        ("metrics_key", "short"),
        ("session_store_url", "localhost:6379"),
        ("answer_cache_seconds", "-1"),
        ("answer_cache_seconds", "1e9"),
        ("answer_cache_models", "kimi*"),  # nothing is kept
        ("session_store_url", "http://localhost"),
        ("session_lock_ttl", "0"),
        ("retry_budget", "1.5"),
        ("shutdown_grace_seconds", "-1"),
        ("drain_seconds", "-1"),
        ("cluster_workers", "0"),
        ("cluster_first_port", "65001"),
        ("sticky", "cookie"),
        ("request_rate", "fast"),
        ("request_rate", "0r/s"),
        ("cors_origins", "chat.example.org"),
        ("cors_origins", "*,https://chat.example.org/"),
        ("request_rate", "5r/s; evil"),
        ("request_burst", "-1"),
        ("connections_per_key", "0"),
        ("connections_per_key", "65536"),
        ("address_rate", "5r/h"),
        ("address_burst", "-1"),
        ("connections_per_address", "0"),
        ("connections_per_address", "65536"),
        ("read_timeout", "190 s"),
        ("read_timeout", "0s"),
        ("stop_grace_period", "soon"),
        ("real_ip", "set_real_ip_from 10.0.0.0/8"),
        ("real_ip", "set_real_ip_from 10.0.0.0/8; return 200;"),
        ("redis_password", "pass:word@host"),
        ("grafana_port", "0"),
        ("tls_certificate", "/cert.pem"),
        ("forwarded_allow_ips", "10.0.0.0/8,proxy"),
        ("metrics_key", GOOD_KEY),
        ("log_level", "LOUD"),
        ("log_format", "xml"),
        ("log_texts", "perhaps"),
        ("auth_disabled", "perhaps"),
        ("session_from_user", "perhaps"),
        ("context_max_length", "49"),
        ("context_max_length", "1000.5"),
        ("context_length_unit", "words"),
        ("admin_networks", "office"),
        ("admin_networks", "10.0.0.0/8, 10.0.0.0/255.0.0.0"),
        ("admin_networks", "10.0.0.0/8; deny all"),
        ("session_cache_ttl", "0"),
        ("session_cache_ttl", "nan"),
        ("max_session_size", "0"),
        ("session_max_characters", "999"),
        ("session_lock_wait", "0"),
        ("session_replay_seconds", "-1"),
        ("keep_upstream_session", "2"),
        ("nonce_max_age", "0"),
        ("page_timeout", "0"),
        ("request_timeout", "-5"),
        ("max_retries", "21"),
        ("max_retries", "-1"),
        ("max_reply_bytes", "1"),
        ("upstream_concurrency", "0"),
        ("upstream_queue_size", "-1"),
        ("upstream_queue_timeout", "0"),
        ("breaker_failure_rate", "0"),
        ("breaker_failure_rate", "1.1"),
        ("breaker_minimum_calls", "0"),
        ("breaker_open_seconds", "0"),
        ("breaker_challenge_seconds", "0"),
        ("stream_grace_seconds", "0"),
        ("heartbeat_seconds", "0"),
        ("stream_write_timeout", "0"),
        ("typing_piece_size", "0"),
        ("typing_delay_seconds", "-0.1"),
        ("typing_max_seconds", "-1"),
        ("chat_page_url", "kimi-ai.chat"),
        ("chat_page_url", "ftp://kimi-ai.chat/"),
        ("chat_page_url", "https://"),
        ("chat_page_url", "https:///chat"),
        ("chat_page_url", "https://kimi-ai.chat/a b"),
        ("chat_page_url", "https://[kimi-ai.chat/"),
        ("chat_page_url", "https://kimi-ai.chat:99999/"),
        ("chat_page_url", "https://kimi-ai.chat:0/"),
        ("upstream_url", "/wp-admin/admin-ajax.php"),
        ("known_models", "=upstream"),
        ("known_models", "kimi-k2-instruct-0905,=x"),
        ("model_routes", "kimi"),
        ("model_routes", "kimi=a>"),
        ("model_routes", "kimi=a*3|b"),
        ("model_routes", "kimi=a*3|b*0"),
        ("tracing_endpoint", "collector:4318"),
        ("providers", "plugins.shout"),
        ("providers", "plugins.shout:Shout Provider"),
        ("providers", "./plugins/shout.py:ShoutProvider"),
        ("deepseek_base_url", "example.org"),
        ("ollama_base_url", "http://localhost:11434/?key=1"),
        ("openai_models", "=gpt"),
    ],
)
def test_a_wrong_value_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A value that makes no sense stops the start with one line that begins with the name of its setting."""
    monkeypatch.setenv(name.upper(), value)
    [fault] = _faults()
    setting = name.upper()
    assert fault.startswith(f"{setting}: ")
    assert len(fault) > len(setting) + 5


@pytest.mark.parametrize(
    ("values", "setting"),
    [
        ({"known_models": ""}, "KNOWN_MODELS"),
        ({"known_models": {}}, "KNOWN_MODELS"),
        ({"chat_page_url": ""}, "CHAT_PAGE_URL"),
    ],
)
def test_what_is_needed_can_not_be_empty(values: dict[str, object], setting: str) -> None:
    """At least one model and the address of the chat page there must be."""
    [fault] = _faults(**values)
    assert fault.startswith(f"{setting}: ")


def test_several_wrong_values_are_told_at_once() -> None:
    """Each wrong value has its line, so that all can be put right in one go."""
    faults = _faults(api_port="x", max_retries=100, log_level="LOUD")
    assert sorted(fault.split(":")[0] for fault in faults) == ["API_PORT", "LOG_LEVEL", "MAX_RETRIES"]


@pytest.mark.parametrize(
    "key",
    [
        "changeme",
        "change-me",
        "CHANGE_ME_PLEASE",
        "sk-change-me-now",
        "your-api-key-here",
        "your_secret_key",
        "placeholder-1234",
        "sk-example-4f9a1c77",
        "password",
        "password123",
        "sk-secret",
        "admin-2024!",
        "sk-xxxxxxxxxxxxxxxx",
        "aaaaaaaaaaaaaaaa",
        "abababababababab",
        "sk-00000000000000",
        "12345678",
        "0123456789",
        "sk-1234567890",
        "abcdefgh",
        "qwertyuiop",
        "4f9a1c7",
        "sk-",
        "x",
    ],
)
def test_a_key_that_anyone_could_guess_is_refused(key: str) -> None:
    """Placeholders, sequences and short keys do not protect a gateway, so it doesn't start with them."""
    [fault] = _faults(api_master_key=key)
    assert fault.startswith("API_MASTER_KEY: key 1 is a placeholder or easy to guess")
    assert "openssl rand" in fault


@pytest.mark.parametrize("key", ["", " ", ",", " , ,"])
def test_no_key_is_refused(key: str) -> None:
    """Without a key the gateway doesn't start, and the line tells the way out."""
    [fault] = _faults(api_master_key=key)
    assert fault.startswith("API_MASTER_KEY: a key is needed")
    assert "AUTH_DISABLED" in fault


@pytest.mark.parametrize("key", ["clé-4f9a1c77d2e0", "two words 4f9a1c77", "tab\t4f9a1c77d2e0", "null\x004f9a1c77d2"])
def test_a_key_that_can_not_stand_in_a_header_is_refused(key: str) -> None:
    """A key must be sendable by every client."""
    [fault] = _faults(api_master_key=key)
    assert fault.startswith("API_MASTER_KEY: key 1 must consist of printable ASCII")


@pytest.mark.parametrize("quote", ['"', "'"])
def test_quotes_around_a_value_are_taken_off(monkeypatch: pytest.MonkeyPatch, quote: str) -> None:
    """`docker run --env-file` and Windows' `set` leave them around: they are part of no setting."""
    for name, value in {
        "API_MASTER_KEY": GOOD_KEY,
        "API_PORT": "9000",
        "CHAT_PAGE_URL": "https://kimi.example/chat/",
        "MODEL_ROUTES": "r=a>b",
        "DEEPSEEK_API_KEY": "sk-1",
        "WORK_KEY": "sk-2",
    }.items():
        monkeypatch.setenv(name, f"{quote}{value}{quote}")
    settings = load_settings(_env_file=None)
    assert (settings.access.api_keys, settings.listening.port) == ([GOOD_KEY], 9000)
    assert settings.site.page_url == "https://kimi.example/chat/"
    assert settings.models.routes == {"r": ModelRoute(("a", "b"))}
    assert settings.upstreams.presets["deepseek"].keys == ["sk-1"]
    assert environment(None)["WORK_KEY"] == "sk-2"


@pytest.mark.parametrize("keys", ['"{good}","sk-bob-b81d03e65fa9"', '"{good}', "{good}'"])
def test_quotes_around_a_key_are_refused_where_they_can_not_be_taken_off(keys: str) -> None:
    """A key that no client would send is named at the start, and not found out by a 401."""
    [fault] = _faults(api_master_key=keys.format(good=GOOD_KEY))
    assert fault.startswith("API_MASTER_KEY: key 1 begins or ends with a quote")


def test_lines_that_nobody_reads_are_told_with_the_nearest_setting(tmp_path: Path) -> None:
    """A misspelt line is found; what compose, nginx, PROVIDERS_FILE or other programs read is left alone."""
    file = tmp_path / "settings.env"
    lines = [f"API_MASTER_KEYS={GOOD_KEY}", "STREAM_TIMEOUT=5", "log_levl=DEBUG", "XYZZY=1"]
    read = ["API_PORT=9000", "api_host=::1", "GRAFANA_PASSWORD=x", "COMPOSE_PROJECT_NAME=x", "WORK_KEY=x", "EMPTY="]
    file.write_text("\n".join([*lines, *read, "# COMMENTED=1", "DEEPSEEK_API_KEY=x"]), "utf-8")
    assert unknown_lines(["WORK_KEY"], file) == {
        "API_MASTER_KEYS": "API_MASTER_KEY",
        "STREAM_TIMEOUT": "STREAM_IDLE_TIMEOUT",
        "log_levl": "LOG_LEVEL",
        "XYZZY": "",
    }
    assert unknown_lines(["WORK_KEY"], tmp_path / "missing.env") == unknown_lines((), None) == {}


@pytest.mark.parametrize("keys", ["{good},changeme", "{good},short", "{good}, two words 4f9a"])
def test_of_several_keys_the_wrong_one_is_pointed_out(keys: str) -> None:
    """One bad key among good ones is enough for a refusal, which tells which one it is."""
    [fault] = _faults(api_master_key=keys.format(good=GOOD_KEY))
    assert fault.startswith("API_MASTER_KEY: key 2 ")


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        (GOOD_KEY, [GOOD_KEY]),
        (f" {GOOD_KEY} ,, sk-bob-b81d03e65fa9,", [GOOD_KEY, "sk-bob-b81d03e65fa9"]),
        ("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822c", ["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822c"]),
        ("k=/+_-.~!4f9a", ["k=/+_-.~!4f9a"]),
    ],
)
def test_good_keys_are_taken(given: str, keys: list[str]) -> None:
    """One key or several, separated by commas, with spaces around or without."""
    assert _load(api_master_key=given).access.api_keys == keys


def test_without_auth_no_key_is_needed() -> None:
    """Authentication can be switched off on purpose."""
    assert load_settings(_env_file=None, auth_disabled=True).access.api_keys == []


@pytest.mark.parametrize("key", ["changeme-4f9a1c77d2e0", "two words 4f9a1c77", "sh0rt!", "clé-4f9a1c77d2e0"])
def test_a_refused_key_is_not_repeated(key: str) -> None:
    """Neither the message nor the traceback of a refusal shows a key, a good one next to it included."""
    with pytest.raises(SettingsError) as caught:
        _load(api_master_key=f"{GOOD_KEY},{key}")
    shown = "".join(traceback.format_exception(caught.value))
    assert key not in shown
    assert GOOD_KEY not in shown


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("metrics_key", "changeme-4f9a1c77d2e0"),
        ("session_store_url", "http://:p4ssw0rd-4f9a@redis.example/0"),
        ("deepseek_base_url", "https://user:p4ssw0rd-4f9a@example.org/v1"),
    ],
)
def test_other_secrets_are_not_repeated_either(name: str, value: str) -> None:
    """A key for metrics or an address that holds a password doesn't get into the refusal or its traceback."""
    with pytest.raises(SettingsError, match=name.upper()) as caught:
        _load(**{name: value})
    assert value not in "".join(traceback.format_exception(caught.value))


def test_an_address_with_a_password_is_not_shown() -> None:
    """Settings can be printed without showing the password of the session store."""
    settings = _load(session_store_url="redis://:p4ssw0rd-4f9a@redis.example/0", metrics_key="m-4f9a1c77d2e0")
    assert settings.sessions.store_url.get_secret_value().endswith("redis.example/0")
    shown = repr(settings) + settings.model_dump_json()
    assert "p4ssw0rd" not in shown
    assert "m-4f9a1c77d2e0" not in shown


def test_a_key_is_not_shown_when_another_setting_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal of any setting keeps the keys to itself, and settings can be printed without showing them."""
    monkeypatch.setenv("API_PORT", "x")
    with pytest.raises(SettingsError) as caught:
        _load()
    assert GOOD_KEY not in "".join(traceback.format_exception(caught.value))
    monkeypatch.delenv("API_PORT")
    assert GOOD_KEY not in repr(_load()) + str(_load()) + _load().model_dump_json()


@pytest.mark.parametrize(
    ("given", "models"),
    [
        ("a=up/A", {"a": "up/A"}),
        (" a = up/A , b=up/B ,", {"a": "up/A", "b": "up/B"}),
        ("kimi-k2-instruct", {"kimi-k2-instruct": "moonshotai/Kimi-K2-Instruct"}),
        ("kimi-k2-instruct-0905=", {"kimi-k2-instruct-0905": "moonshotai/Kimi-K2-Instruct-0905"}),
        ("new/model", {"new/model": "new/model"}),
        ("a=x=y", {"a": "x=y"}),
        ("a=1,a=2", {"a": "2"}),
    ],
)
def test_models_are_written_as_pairs(given: str, models: dict[str, str]) -> None:
    """A model is `public=upstream`; a known name stands for its upstream's name, any other for itself."""
    assert _load(known_models=given, default_model=next(iter(models))).models.known == models


def test_models_can_be_given_as_a_map() -> None:
    """Code that makes settings may give the map itself."""
    assert _load(known_models={"a": "b"}, default_model="a").models.known == {"a": "b"}


@pytest.mark.parametrize("url", ["http://127.0.0.1:8099/chat/", "https://kimi.example", "https://kimi.example/a?b=c"])
def test_addresses_of_any_host_are_taken(url: str) -> None:
    """Page and endpoint may be anywhere, with a port or without a path."""
    settings = _load(chat_page_url=url, upstream_url=url)
    assert (settings.site.page_url, settings.site.ajax_url) == (url, url)


def test_upstreams_are_set_by_key_address_and_models() -> None:
    """Each known upstream has its settings; models are names, or public names with the upstream's own."""
    settings = _load(
        moonshot_cn_api_key=" sk-1 ",
        moonshot_cn_base_url="https://example.org/v1/",
        moonshot_cn_models="a, b = theirs,",
    )
    moonshot, ollama = (settings.upstreams.presets[name] for name in ("moonshot-cn", "ollama"))
    assert (moonshot.keys, moonshot.base_url) == (["sk-1"], "https://example.org/v1")
    assert moonshot.models == {"a": "a", "b": "theirs"}
    assert (ollama.keys, ollama.base_url, ollama.models) == ([], "", {})
    assert "sk-1" not in repr(settings) + settings.model_dump_json()


@pytest.mark.parametrize(
    ("given", "routes"),
    [
        ("r=a>b/c, s = d", {"r": ModelRoute(("a", "b/c")), "s": ModelRoute(("d",))}),
        ("r=a*3|b*0.5", {"r": ModelRoute(("a", "b"), (3, 0.5))}),
        ("", {}),
    ],
)
def test_routes_are_written_as_rows(given: str, routes: dict[str, ModelRoute]) -> None:
    """A route is `name=first>second`, or `name=some*3|others*1` with weights."""
    assert _load(model_routes=given).models.routes == routes


def test_provider_classes_are_named() -> None:
    """`PROVIDERS` lists classes; whether they exist shows when the gateway is assembled."""
    assert _load(providers="a.b:C, d:E,").upstreams.providers == ("a.b:C", "d:E")
