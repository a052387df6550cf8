"""Compose files: complete, consistent with the gateway's settings, and locked down."""

import json
import re
from pathlib import Path

import pytest
from sqlalchemy import make_url

from app.settings import load_settings
from app.settings.database import DatabaseSettings
from tests.deploy.compose import (
    BASE,
    DATABASE_PASSWORD,
    KEY,
    OVERLAY,
    PASSWORD,
    PRODUCTION,
    ROOT,
    SECRETS,
    STACKS,
    Compose,
    config,
    last_stage,
    seconds,
    words,
    workers,
)
from tests.nginx import TEMPLATE

# What deploy/nginx/workers.sh makes.
_OF_THE_SCRIPT = {"WORKERS", "WORKERS_BY_ADDRESS", "RESOLVER", "ADMIN_ACCESS"}


@STACKS
def test_docker_compose_accepts_the_files(compose: Compose, files: tuple[str, ...]) -> None:
    """With a key set, compose has nothing to complain about, alone and with the production overlay."""
    done = compose("config", "--quiet", files=files, **SECRETS)
    assert (done.returncode, done.stderr) == (0, "")


@STACKS
def test_without_a_key_nothing_starts(compose: Compose, files: tuple[str, ...]) -> None:
    """Whoever forgets the key is told which setting is missing, where it goes and how to make one."""
    done = compose("config", files=files, **SECRETS | {"API_MASTER_KEY": ""})
    assert done.returncode != 0
    assert "API_MASTER_KEY is missing a value: set it in .env, for example to the output of: openssl" in done.stderr


@pytest.mark.parametrize("name", ["REDIS_PASSWORD", "POSTGRES_PASSWORD"])
def test_without_a_password_there_is_no_store(compose: Compose, name: str) -> None:
    """Session store and database never run with an empty or a built-in password."""
    done = compose("config", files=PRODUCTION, **SECRETS | {name: ""})
    assert done.returncode != 0
    assert f"{name} is missing a value: set it in .env, for example to the output of: openssl" in done.stderr


def test_whoever_has_keys_in_sqlite_is_told_where_to_read(compose: Compose) -> None:
    """An update of a production with SQLite doesn't begin with an empty database before its operator knows of it."""
    done = compose("config", files=PRODUCTION, **SECRETS | {"POSTGRES_PASSWORD": ""})
    assert "docs/operations.md says how to move from SQLite" in done.stderr
    assert "database move postgresql://" in (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


@STACKS
def test_nginx_gets_every_variable_of_the_template_and_no_other(compose: Compose, files: tuple[str, ...]) -> None:
    """A variable that is new in nginx.conf can't be forgotten in compose, nor the other way round."""
    nginx = config(compose, files)["services"]["nginx"]
    of_image = {name for name in nginx["environment"] if name.startswith("NGINX_")}
    given = (set(nginx["environment"]) - of_image - {"WORKER_NAMES", "ADMIN_NETWORKS"}) | _OF_THE_SCRIPT
    assert set(re.findall(r"\$\{([A-Z_]+)\}", TEMPLATE)) == given


@STACKS
def test_each_worker_is_a_server_of_its_own(compose: Compose, files: tuple[str, ...]) -> None:
    """nginx names each worker once, waits for all of them, and each knows its name: else nothing is sticky."""
    read = config(compose, files)
    nginx = read["services"]["nginx"]
    assert nginx["environment"]["WORKER_NAMES"].split() == workers(read)
    assert nginx["depends_on"].keys() == set(workers(read))
    assert {dependency["condition"] for dependency in nginx["depends_on"].values()} == {"service_healthy"}
    for name in workers(read):
        worker = read["services"][name]
        assert worker["environment"]["WORKER_ID"] == name
        assert worker["image"] == "kimi-ai-2api:local"
        assert "container_name" not in worker
    assert [name for name in workers(read) if "build" in read["services"][name]] == ["app1"]


def test_production_has_more_workers(compose: Compose) -> None:
    """Three workers by default, five in production."""
    assert len(workers(config(compose))) == 3
    assert len(workers(config(compose, PRODUCTION))) == 5


def test_production_alone_is_the_whole_deployment(compose: Compose) -> None:
    """docker-compose.prod.yml needs no other -f; put on top of docker-compose.yml it makes the same."""
    alone, on_top = (config(compose, files) for files in (PRODUCTION, OVERLAY))
    for part in ("name", "services", "networks", "volumes"):
        assert alone[part] == on_top[part]
    assert alone["name"] == config(compose)["name"]


@STACKS
def test_wrong_settings_end_the_start(compose: Compose, files: tuple[str, ...]) -> None:
    """Every worker waits for a check of the settings, which is not tried again, and which sees nginx's, too."""
    services = config(compose, files)["services"]
    check = services["settings"]
    assert (check["command"], check["restart"]) == (["python", "main.py", "doctor", "--settings"], "no")
    assert check["image"] == services["app1"]["image"]
    for name in workers({"services": services}):
        assert services[name]["depends_on"]["settings"]["condition"] == "service_completed_successfully"
    written = "".join((ROOT / name).read_text(encoding="utf-8") for name in files)
    of_nginx = _variables(written.partition("\n  nginx:\n")[2].partition("\n  redis:\n")[0]) - {"NGINX_IMAGE"}
    assert of_nginx <= {*check["environment"], "STOP_GRACE_PERIOD"}
    workers_see = services["app1"]["environment"].keys() - {"WORKER_ID"}
    assert workers_see <= check["environment"].keys()


def test_compose_reads_nothing_that_the_example_does_not_name() -> None:
    """Whoever reads .env.example knows every variable of the compose files, too."""
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    named = set(re.findall(r"^([A-Z_]+)=", example, re.MULTILINE))
    for file in OVERLAY:
        read = _variables((ROOT / file).read_text(encoding="utf-8"))
        assert read
        assert read <= named
    assert set(OVERLAY) == {path.name for path in ROOT.glob("docker-compose*")}


def _variables(text: str) -> set[str]:
    """The variables that compose fills in, and those that it hands on as secrets."""
    without_comments = re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)
    filled_in = re.findall(r"(?<!\$)\$\{?([A-Z][A-Z0-9_]*)", without_comments)
    return {*filled_in, *re.findall(r"^\s+environment: ([A-Z_]+)$", without_comments, re.MULTILINE)}


@STACKS
def test_settings_of_dot_env_reach_the_workers(compose: Compose, tmp_path: Path, files: tuple[str, ...]) -> None:
    """A copy of .env.example works: its settings arrive, but not its address, which would be out of nginx's reach."""
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    text = example.replace("API_MASTER_KEY=\n", f"API_MASTER_KEY={KEY}\n").replace("MAX_RETRIES=3", "MAX_RETRIES=7")
    for name in ("REDIS_PASSWORD", "POSTGRES_PASSWORD"):
        text = text.replace(f"{name}=\n", f"{name}={SECRETS[name]}\n")
    (tmp_path / ".env").write_text(text, encoding="utf-8")
    done = compose("config", "--format", "json", files=files)
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)
    for name in workers(read):
        environment = read["services"][name]["environment"]
        assert environment["MAX_RETRIES"] == "7"
        assert (environment["API_HOST"], environment["API_PORT"]) == ("0.0.0.0", "8000")
        assert (environment["API_MASTER_KEY"], environment["WORKER_ID"]) == (KEY, name)


def test_defaults_are_those_of_the_settings(compose: Compose) -> None:
    """Without any setting nginx limits, routes and waits as `main.py cluster` does."""
    settings = load_settings(_env_file=None, api_master_key=KEY)
    read = config(compose)
    nginx = read["services"]["nginx"]
    cluster = settings.cluster
    shown = {
        "STICKY": cluster.sticky,
        "REQUEST_RATE": cluster.request_rate,
        "REQUEST_BURST": str(cluster.request_burst),
        "CONNECTIONS_PER_KEY": str(cluster.connections_per_key),
        "ADDRESS_RATE": cluster.address_rate,
        "ADDRESS_BURST": str(cluster.address_burst),
        "CONNECTIONS_PER_ADDRESS": str(cluster.connections_per_address),
        "ADMIN_NETWORKS": cluster.admin_networks,
        "MAX_BODY_BYTES": str(settings.listening.max_body_bytes),
        "MAX_UPLOAD_BYTES": str(settings.listening.max_upload_bytes),
        "READ_TIMEOUT": settings.compose.read_timeout,
    }
    assert shown.items() <= nginx["environment"].items()
    assert seconds(nginx["stop_grace_period"]) == seconds(settings.compose.stop_grace_period)
    traffic = settings.traffic
    assert seconds(nginx["environment"]["READ_TIMEOUT"]) > traffic.queue_timeout + traffic.request_timeout
    [port] = nginx["ports"]
    assert (port["host_ip"], port["published"]) == (cluster.bind_address, str(cluster.nginx_port))
    assert nginx["environment"]["LISTEN"] == str(port["target"])


@STACKS
def test_running_answers_may_end(compose: Compose, files: tuple[str, ...]) -> None:
    """Nothing is killed before it has had the time that the settings promise."""
    listening = load_settings(_env_file=None, api_master_key=KEY).listening
    services = config(compose, files)["services"]
    for name in ("nginx", *workers({"services": services})):
        assert seconds(services[name]["stop_grace_period"]) > listening.drain + listening.shutdown_grace


def test_settings_change_nginx(compose: Compose) -> None:
    """What .env says about nginx arrives there."""
    given = {"STICKY": "session", "REQUEST_RATE": "7r/s", "NGINX_PORT": "9000", "BIND_ADDRESS": "0.0.0.0"}
    nginx = config(compose, BASE, **given)["services"]["nginx"]
    assert (nginx["environment"]["STICKY"], nginx["environment"]["REQUEST_RATE"]) == ("session", "7r/s")
    [port] = nginx["ports"]
    assert (port["host_ip"], port["published"]) == ("0.0.0.0", "9000")


def test_the_documented_override_mounts_plugins_into_every_worker(compose: Compose, tmp_path: Path) -> None:
    """What docs/providers.md says about a provider of the operator's own makes it importable in the image."""
    document = (ROOT / "docs" / "providers.md").read_text(encoding="utf-8")
    override = tmp_path / "docker-compose.override.yml"
    override.write_text(document.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8")
    read = config(compose, (*BASE, override.name))
    for name in ("settings", *workers(read)):
        [volume] = [volume for volume in read["services"][name]["volumes"] if volume["type"] == "bind"]
        assert (Path(volume["source"]), volume["read_only"]) == (tmp_path / "plugins", True)
        assert volume["target"] == f"{last_stage()['WORKDIR']}/plugins"


def test_two_settings_make_it_https(compose: Compose) -> None:
    """A certificate and its key are mounted, nginx listens with TLS and tells browsers to stay with it."""
    given = {"TLS_CERTIFICATE": "./tls/certificate.pem", "TLS_CERTIFICATE_KEY": "./tls/key.pem"}
    nginx = config(compose, BASE, **given)["services"]["nginx"]
    assert nginx["environment"]["LISTEN"] == "8088 ssl"
    assert "strict-transport-security" in nginx["environment"]["SECURITY_HEADERS"]
    mounted = {Path(volume["source"]).name: volume["target"] for volume in nginx["volumes"]}
    for name, directive in (("certificate.pem", "ssl_certificate"), ("key.pem", "ssl_certificate_key")):
        assert f"{directive} {mounted[name]};" in nginx["environment"]["TLS"]
    assert "https://127.0.0.1:8088/health" in nginx["healthcheck"]["test"]


@STACKS
def test_a_reload_closes_no_connection_in_use(compose: Compose, files: tuple[str, ...]) -> None:
    """nginx reads its workers anew whenever one comes or goes; the tests' nginx may be too old to try this."""
    [setting] = re.findall(
        r"^keepalive_min_timeout (\d+)s;$", config(compose, files)["services"]["nginx"]["environment"]["KEEPALIVE"]
    )
    assert int(setting) >= 5


@STACKS
def test_every_service_is_locked_down(compose: Compose, files: tuple[str, ...]) -> None:
    """No service can write to its image, has a privilege, fills the disk with logs, or is of an unknown version."""
    for name, service in config(compose, files)["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["restart"] == ("no" if name == "settings" else "unless-stopped"), name
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name
        assert re.fullmatch(r"[\w-]+:(\d+\.\d+\.\d+|18\.\d+-\w+|local)", service["image"]), name
        assert not any(secret in words(service.get("command") or []) for secret in SECRETS.values()), name
        assert not any(secret in words(service.get("healthcheck", {}).get("test") or []) for secret in SECRETS.values())


@STACKS
def test_only_nginx_can_be_reached_and_it_knows_no_secrets(compose: Compose, files: tuple[str, ...]) -> None:
    """Workers trust whoever says who the client is, so nobody else may talk to them; nginx needs no key for that."""
    services = config(compose, files)["services"]
    assert [name for name, service in services.items() if "ports" in service] == ["nginx"]
    assert not set(SECRETS.values()) & set(services["nginx"]["environment"].values())


@pytest.mark.parametrize(("store", "folder"), [("redis", "/data"), ("postgres", "/var/lib/postgresql")])
def test_stores_are_reachable_for_workers_only(compose: Compose, store: str, folder: str) -> None:
    """Redis and PostgreSQL keep their data, and live in a network without nginx and without a way out."""
    read = config(compose, PRODUCTION)
    service = read["services"][store]
    [network] = service["networks"]
    assert read["networks"][network]["internal"] is True
    assert network not in read["services"]["nginx"]["networks"]
    assert "ports" not in service
    assert {volume["target"]: volume["type"] for volume in service["volumes"]}[folder] == "volume"
    for name in workers(read):
        assert network in read["services"][name]["networks"]


def test_workers_know_the_password_that_the_session_store_asks_for(compose: Compose) -> None:
    """Redis asks for the password that is in the workers' address, and is there before they are."""
    read = config(compose, PRODUCTION)
    assert "requirepass" in words(read["services"]["redis"]["command"])
    for name in workers(read):
        worker = read["services"][name]
        assert worker["environment"]["SESSION_STORE_URL"] == f"redis://:{PASSWORD}@redis:6379/0"
        assert worker["depends_on"]["redis"]["condition"] == "service_healthy"


def test_workers_use_the_role_that_the_database_makes(compose: Compose) -> None:
    """Address, role and password of the workers are those that the database is made with; the role is no superuser."""
    read = config(compose, PRODUCTION)
    postgres = read["services"]["postgres"]
    assert postgres["environment"]["POSTGRES_PASSWORD"] == DATABASE_PASSWORD
    [script] = [volume for volume in postgres["volumes"] if volume["type"] == "bind"]
    assert script["target"].startswith("/docker-entrypoint-initdb.d/")
    assert script["read_only"] is True
    made = (ROOT / "deploy" / "postgres" / Path(script["source"]).name).read_text(encoding="utf-8")
    for name in ("settings", *workers(read)):
        environment = read["services"][name]["environment"]
        address = make_url(environment["DATABASE_URL"])
        assert (address.get_backend_name(), address.host, address.password) == ("postgresql", "postgres", None)
        assert environment["PGPASSWORD"] == DATABASE_PASSWORD
        assert f"CREATE ROLE {address.username} LOGIN PASSWORD :'password';" in made
        assert f"CREATE DATABASE {address.database} OWNER {address.username};" in made
    assert "ALTER ROLE postgres PASSWORD NULL;" in made


def test_workers_start_without_the_database(compose: Compose) -> None:
    """Workers start before the database is healthy, even if it never will be; they end before it, too."""
    services = config(compose, PRODUCTION)["services"]
    for name in workers({"services": services}):
        assert services[name]["depends_on"]["postgres"]["condition"] == "service_started"


def test_the_database_is_healthy_when_it_can_be_reached(compose: Compose) -> None:
    """The check goes by TCP: the server that fills a new volume, and is stopped again, listens on a socket only."""
    services = config(compose, PRODUCTION)["services"]
    assert "--host=127.0.0.1" in services["postgres"]["healthcheck"]["test"]


def test_without_production_keys_are_in_a_file(compose: Compose) -> None:
    """The base file runs no database server: workers share a file on their volume, and so do their journals."""
    read = config(compose)
    assert "postgres" not in read["services"]
    defaults = DatabaseSettings.settings()
    for name in workers(read):
        worker = read["services"][name]
        assert "DATABASE_URL" not in worker["environment"]
        [volume] = worker["volumes"]
        data = Path(volume["target"])
        assert volume["type"] == "volume"
        assert data == Path(last_stage()["WORKDIR"]) / Path(defaults["JOURNAL_DIR"].default).parent
        assert defaults["DATABASE_URL"].default == f"sqlite:///{data.name}/gateway.db"


def test_production_bounds_every_service(compose: Compose) -> None:
    """No service takes the whole machine with it."""
    for name, service in config(compose, PRODUCTION)["services"].items():
        assert service["deploy"]["resources"]["limits"].keys() >= {"cpus", "memory"}, name


def test_prometheus_and_grafana_come_by_profile(compose: Compose) -> None:
    """Without the profile neither is there; with it Prometheus has its key, and workers the name that it looks up."""
    secrets = SECRETS | {"METRICS_KEY": "m-4f9a1c77d2e0"}
    words = ("config", "--format", "json")
    plain = json.loads(compose(*words, files=PRODUCTION, **secrets).stdout)
    watched = json.loads(compose("--profile", "monitoring", *words, files=PRODUCTION, **secrets).stdout)
    assert set(watched["services"]) - set(plain["services"]) == {"prometheus", "grafana"}
    assert watched["secrets"]["metrics_key"]["environment"] == "METRICS_KEY"
    workers = [service for name, service in watched["services"].items() if name.startswith("app")]
    assert all(service["networks"]["default"]["aliases"] == ["workers"] for service in workers)
