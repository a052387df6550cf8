"""The Kubernetes manifests agree with Kubernetes, with each other and with the gateway."""

import copy
import re
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate  # type: ignore[import-untyped]  # has annotations, but doesn't say so
import pytest
import yaml

from app import __version__
from app.cli.commands import main
from app.settings import Settings, SettingsError, load_settings, setting_names
from tests.live import LiveGateway

ROOT = Path(__file__).parent.parent.parent
BASE = ROOT / "deploy" / "kubernetes"
NAME = "kimi-ai-2api"
GOOD = {
    "API_MASTER_KEY": "sk-alice-4f9a1c77d2e0",
    "SESSION_STORE_URL": "redis://:pw@redis.internal:6379/0",
    "DATABASE_URL": "postgresql://gateway:pw@postgres.internal:5432/gateway?sslmode=require",
}
# How long a worker that ends carries its journal over, after everything else (app/assembly/database.py).
LAST_ROWS_SECONDS = 5
# The oldest that the README promises, and the newest that there are schemas for.
VERSIONS = ("1.31", "1.37")
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
PREFIX = "nginx.ingress.kubernetes.io/"

Manifest = dict[str, Any]


def _load(file: Path) -> Manifest:
    documents: list[Manifest] = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
    assert len(documents) == 1, f"{file.name}: one object for each file"
    return documents[0]


KUSTOMIZATION = _load(BASE / "kustomization.yaml")
FILES = {name: _load(BASE / name) for name in KUSTOMIZATION["resources"]}
ADMIN = "ingress-admin.yaml"
MANIFESTS = {manifest["kind"]: manifest for name, manifest in FILES.items() if name != ADMIN}


def _pod() -> Manifest:
    template: Manifest = MANIFESTS["Deployment"]["spec"]["template"]
    return template


def _container() -> Manifest:
    (container,) = _pod()["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def _annotation(name: str) -> str:
    value = MANIFESTS["Ingress"]["metadata"]["annotations"][PREFIX + name]
    assert isinstance(value, str)
    return value


def _settings(**secret: str) -> Settings:
    values = MANIFESTS["ConfigMap"]["data"] | GOOD | secret
    return load_settings(_env_file=None, **{name.lower(): value for name, value in values.items()})


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set on the machine that runs the tests plays no part."""
    for name in setting_names():
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", sorted(FILES))
def test_each_manifest_is_valid(name: str, version: str) -> None:
    """Kubernetes' own schema accepts the manifest, without a field that it doesn't know."""
    assert kubernetes_validate.validate(FILES[name], version, strict=True) == version


def test_the_validation_finds_mistakes() -> None:
    """The schemas know every field of a container: a misspelt one is refused, so the test above means something."""
    wrong = copy.deepcopy(MANIFESTS["Deployment"])
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_the_kustomization_lists_all_files_and_only_them() -> None:
    """No manifest is forgotten, none is missing, and none stands for two objects of a kind."""
    files = {file.name for file in BASE.glob("*.y*ml")} - {"kustomization.yaml"}
    assert sorted(KUSTOMIZATION["resources"]) == sorted(files)
    assert len(MANIFESTS) == len(files - {ADMIN})


def test_all_objects_belong_together() -> None:
    """Every object has the same name and no namespace, and every selector finds the pods."""
    labels = {"app.kubernetes.io/name": NAME}
    for manifest in MANIFESTS.values():
        assert manifest["metadata"]["name"] == NAME
        assert manifest["metadata"]["labels"] == labels
        assert "namespace" not in manifest["metadata"]
    assert _pod()["metadata"]["labels"] == labels
    assert MANIFESTS["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert MANIFESTS["Service"]["spec"]["selector"] == labels
    assert MANIFESTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert MANIFESTS["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    for constraint in _pod()["spec"]["topologySpreadConstraints"]:
        assert constraint["labelSelector"]["matchLabels"] == labels
    target = MANIFESTS["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert target == {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME}


def test_every_setting_exists() -> None:
    """ConfigMap, Secret and Deployment name only settings that the gateway has, each in one place."""
    names = [
        *MANIFESTS["ConfigMap"]["data"],
        *MANIFESTS["Secret"]["stringData"],
        *(variable["name"] for variable in _container()["env"]),
    ]
    assert len(names) == len(set(names))
    assert set(names) <= set(setting_names())
    assert _container()["envFrom"] == [{"configMapRef": {"name": NAME}}, {"secretRef": {"name": NAME}}]


def test_the_settings_are_accepted() -> None:
    """With real values in the Secret the gateway starts with what the ConfigMap says."""
    settings = _settings()
    assert (settings.listening.host, settings.logs.format) == ("0.0.0.0", "json")
    assert settings.sessions.store_url.get_secret_value() == GOOD["SESSION_STORE_URL"]
    assert settings.database.url.get_secret_value() == GOOD["DATABASE_URL"]


@pytest.mark.parametrize("name", sorted(GOOD))
def test_each_placeholder_is_refused(name: str) -> None:
    """A Secret in which one value has been forgotten keeps the gateway from starting, and the message names it."""
    assert sorted(MANIFESTS["Secret"]["stringData"]) == sorted(GOOD)
    with pytest.raises(SettingsError, match=f"^{name}: "):
        _settings(**{name: MANIFESTS["Secret"]["stringData"][name]})


def test_the_base_as_it_is_does_not_start(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The container's command, given the base's own values, ends with the names of what is to be set."""
    for name, value in (MANIFESTS["ConfigMap"]["data"] | MANIFESTS["Secret"]["stringData"]).items():
        monkeypatch.setenv(name, value)
    program, script, *arguments = _container()["command"]
    assert (program, (ROOT / script).is_file()) == ("python", True)
    assert main(arguments) == 2
    assert "SESSION_STORE_URL: " in capsys.readouterr().err


def test_one_port_all_the_way() -> None:
    """Ingress, Service, NetworkPolicy and probes end at the port on which the gateway listens."""
    (port,) = _container()["ports"]
    assert (port["name"], port["containerPort"]) == ("http", _settings().listening.port)
    (service_port,) = MANIFESTS["Service"]["spec"]["ports"]
    assert service_port["targetPort"] == port["name"]
    (rule,) = MANIFESTS["Ingress"]["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert (path["path"], path["pathType"]) == ("/", "Prefix")
    assert path["backend"]["service"] == {"name": NAME, "port": {"name": service_port["name"]}}
    (way_in,) = MANIFESTS["NetworkPolicy"]["spec"]["ingress"]
    assert way_in["ports"] == [{"protocol": "TCP", "port": port["name"]}]
    for probe in PROBES:
        assert _container()[probe]["httpGet"]["port"] == port["name"]


def test_the_ways_to_redis_and_postgresql_are_open() -> None:
    """The NetworkPolicy lets the pods reach names, https, and the usual ports of Redis and PostgreSQL."""
    rules = MANIFESTS["NetworkPolicy"]["spec"]["egress"]
    ports = {(port["protocol"], port["port"]) for rule in rules for port in rule["ports"]}
    assert ports == {("UDP", 53), ("TCP", 53), ("TCP", 443), ("TCP", 6379), ("TCP", 5432)}


def test_the_probes_ask_what_the_gateway_answers(gateway: LiveGateway) -> None:
    """A running gateway answers each probe with 200 and without a key; only readiness is more than being alive."""
    paths = {name: _container()[name]["httpGet"]["path"] for name in PROBES}
    assert paths == {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready"}
    with httpx.Client(base_url=gateway.base_url) as anybody:
        assert [anybody.get(path).status_code for path in paths.values()] == [200, 200, 200]


def test_the_times_add_up() -> None:
    """No request that has begun is cut off: not by the Ingress, not by the gateway's end, not by Kubernetes."""
    settings, read_timeout = _settings(), int(_annotation("proxy-read-timeout"))
    assert settings.traffic.queue_timeout + settings.traffic.request_timeout < read_timeout
    assert read_timeout <= settings.listening.shutdown_grace
    ending = settings.listening.drain + settings.listening.shutdown_grace + LAST_ROWS_SECONDS
    assert ending < _pod()["spec"]["terminationGracePeriodSeconds"]


def test_a_pod_drains_for_longer_than_its_end_takes_to_be_known() -> None:
    """There is no preStop: DRAIN_SECONDS alone covers the seconds until the ingress controller has heard of the end."""
    assert "lifecycle" not in _container()
    readiness = _container()["readinessProbe"]
    assert _settings().listening.drain >= max(10, readiness["periodSeconds"] * readiness["failureThreshold"])


def test_the_journal_outlives_the_container() -> None:
    """The journal lies on a volume of the pod's, with room for all that JOURNAL_MAX_MB allows: no pod is evicted."""
    settings = _settings()
    workdir = re.findall(r"^WORKDIR (.+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)[-1]
    volumes = {volume["name"]: volume for volume in _pod()["spec"]["volumes"]}
    [mount] = [mount for mount in _container()["volumeMounts"] if mount["name"] == "data"]
    assert Path(workdir, settings.database.journal).is_relative_to(mount["mountPath"])
    size = re.fullmatch(r"(\d+)Mi", volumes["data"]["emptyDir"]["sizeLimit"])
    assert size is not None
    assert int(size[1]) >= 2 * settings.database.journal_max
    assert "medium" not in volumes["data"]["emptyDir"]


def test_a_rolling_update_never_has_fewer_pods() -> None:
    """A new pod is ready before an old one goes, there are two at least, and their number is the autoscaler's alone."""
    spec = MANIFESTS["Deployment"]["spec"]
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    assert "replicas" not in spec
    scaling = MANIFESTS["HorizontalPodAutoscaler"]["spec"]
    assert 2 <= scaling["minReplicas"] < scaling["maxReplicas"]
    assert MANIFESTS["PodDisruptionBudget"]["spec"]["maxUnavailable"] < scaling["minReplicas"]


def test_the_ingress_hands_streams_on() -> None:
    """Nothing is buffered, no message is sent twice, and a body that is too large is refused by the gateway."""
    assert _annotation("proxy-buffering") == "off"
    assert _annotation("proxy-next-upstream").split() == ["error", "timeout"]
    size = re.fullmatch(r"(\d+)m", _annotation("proxy-body-size"))
    assert size is not None
    listening = _settings().listening
    assert int(size[1]) * 1024 * 1024 > max(listening.max_body_bytes, listening.max_upload_bytes)
    assert _annotation("proxy-request-buffering") == "off"
    assert MANIFESTS["Ingress"]["spec"]["ingressClassName"] == "nginx"


def test_the_ingress_is_sticky_by_key_and_session() -> None:
    """The hash is made of the two headers that make a session, and ingress-nginx needs no snippets for it."""
    assert re.findall(r"\$\w+?(?=\$|$)", _annotation("upstream-hash-by")) == [
        "$http_authorization",
        "$http_x_session_id",
    ]
    assert not [name for name in MANIFESTS["Ingress"]["metadata"]["annotations"] if name.endswith("snippet")]


def test_the_admin_api_is_open_to_private_networks_only() -> None:
    """Its Ingress has the networks of ADMIN_NETWORKS, and the host, TLS and way of the other one."""
    ingress, admin = MANIFESTS["Ingress"], FILES[ADMIN]
    assert (admin["kind"], admin["metadata"]["name"]) == ("Ingress", f"{NAME}-admin")
    assert admin["metadata"]["labels"] == ingress["metadata"]["labels"]
    annotations = admin["metadata"]["annotations"]
    assert annotations[f"{PREFIX}whitelist-source-range"] == _settings().cluster.admin_networks
    shared = {"proxy-buffering", "proxy-read-timeout", "proxy-connect-timeout", "proxy-next-upstream"}
    assert {name: annotations[PREFIX + name] for name in shared} == {name: _annotation(name) for name in shared}
    for part in ("ingressClassName", "tls"):
        assert admin["spec"][part] == ingress["spec"][part]
    [rule], [of_all] = admin["spec"]["rules"], ingress["spec"]["rules"]
    assert rule["host"] == of_all["host"]
    assert [(path["path"], path["pathType"]) for path in rule["http"]["paths"]] == [
        ("/admin", "Prefix"),
        ("/console", "Prefix"),
    ]
    assert all(path["backend"] == of_all["http"]["paths"][0]["backend"] for path in rule["http"]["paths"])


def test_the_ingress_has_tls_for_its_host() -> None:
    """The host that is served is the one that the certificate is for."""
    spec = MANIFESTS["Ingress"]["spec"]
    assert [host for entry in spec["tls"] for host in entry["hosts"]] == [rule["host"] for rule in spec["rules"]]


def test_the_pod_may_do_nothing_that_it_does_not_need() -> None:
    """It runs as the image's user, with a read-only root, no capability, no escalation and no token of the cluster."""
    pod, container = _pod()["spec"], _container()
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert user is not None
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": int(user[1]),
        "runAsGroup": int(user[2]),
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False


def test_the_image_is_the_version_of_the_project() -> None:
    """The image's tag is a version, and the one of the code."""
    assert _container()["image"] == f"{NAME}:{__version__}"


def test_the_readme_tells_the_values_that_are_set() -> None:
    """The table of times in the README, and what it says of the pods, is what the manifests say."""
    readme = (BASE / "README.md").read_text(encoding="utf-8")
    settings = _settings()
    for words in (
        f"{settings.traffic.queue_timeout:.0f} + {settings.traffic.request_timeout:.0f} ",
        f"proxy-read-timeout              {_annotation('proxy-read-timeout')}",
        f"{settings.listening.drain:.0f} + {settings.listening.shutdown_grace} ",
        f"terminationGracePeriodSeconds   {_pod()['spec']['terminationGracePeriodSeconds']}",
    ):
        assert words in readme
    assert f"`JOURNAL_MAX_MB` ({settings.database.journal_max:.0f})" in readme
    for name in KUSTOMIZATION["resources"]:
        assert f"`{name}`" in readme
