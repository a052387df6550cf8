"""`deploy/nginx/workers.sh`: nginx's container knows where the workers are, and keeps their order."""

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.cli.nginx import render
from app.settings import load_settings
from tests.cluster.edge import BEHIND_A_PROXY, SECONDS, Edge, Worker, configured
from tests.deploy.compose import ROOT
from tests.nginx import policy
from tests.ports import free_port

SCRIPT = (ROOT / "deploy" / "nginx" / "workers.sh").read_text(encoding="utf-8")
CLIENTS = range(30)


class Names:
    """A name service whose answers change, and which the script asks."""

    def __init__(self, folder: Path) -> None:
        self._hosts = folder / "hosts"
        self.addresses: dict[str, str] = {}
        self.path = folder / "bin"
        self.path.mkdir()
        program = self.path / "getent"
        found = '$2 == name { print $1, "STREAM"; n = 1 } END { exit !n }'
        program.write_text(f"""#!/bin/sh\nawk -v name="$2" '{found}' {self._hosts}\n""", encoding="utf-8")
        program.chmod(0o755)

    def publish(self, **addresses: str | None) -> None:
        """Change these names; None takes one away."""
        self.addresses.update({name: address for name, address in addresses.items() if address})
        for name in [name for name, address in addresses.items() if address is None]:
            del self.addresses[name]
        fresh = self._hosts.with_suffix(".new")
        fresh.write_text("".join(f"{address} {name}\n" for name, address in self.addresses.items()), encoding="utf-8")
        fresh.rename(self._hosts)


def script(folder: Path, port: int = 8000) -> list[str]:
    """The command that starts what follows as the container's entrypoint does."""
    image_entrypoint = folder / "docker-entrypoint.sh"
    image_entrypoint.write_text('#!/bin/sh\nexec "$@"\n', encoding="utf-8")
    image_entrypoint.chmod(0o755)
    (folder / "resolv.conf").touch()
    text = SCRIPT.replace(":8000", f":{port}").replace("/docker-entrypoint.sh", str(image_entrypoint))
    text = text.replace("/etc/resolv.conf", str(folder / "resolv.conf")).replace("seconds=1", "seconds=0.05")
    (folder / "workers.sh").write_text(text, encoding="utf-8")
    return ["sh", str(folder / "workers.sh")]


def settings(folder: Path, names: Names, **others: str) -> dict[str, str]:
    environment = {"PATH": f"{names.path}{os.pathsep}{os.environ['PATH']}", "RUN_DIR": str(folder), "STICKY": "ip"}
    return {**environment, "WORKER_NAMES": "app1 app2 app3", **others}


class Cluster:
    """Three workers by name, behind an nginx that the script has started."""

    def __init__(self, folder: Path, names: Names, port: int) -> None:
        self.names = names
        self.workers = {
            name: Worker(name, (f"127.0.0.{number}", port))
            for number, name in ((11, "app1"), (12, "app2"), (13, "app3"))
        }
        self.port = port
        names.publish(**{name: worker.host for name, worker in self.workers.items()})
        servers = {"server 192.0.2.1:1 max_fails=0;": f"include {folder}/workers.conf;", **BEHIND_A_PROXY}
        self.edge, command = configured(folder, "192.0.2.1:1", replaced=servers)
        self.process = subprocess.Popen(
            [*script(folder, port), *command, "-g", "daemon off;"], env=settings(folder, names)
        )
        self._wait_until_it_listens(self.edge)

    def places(self) -> dict[int, str]:
        """Which worker each client gets to; everybody is answered."""
        answers = {number: self.edge.ask(X_Forwarded_For=f"10.{number}.7.1") for number in CLIENTS}
        assert {answer.status_code for answer in answers.values()} == {200}
        return {number: answer.headers["x-worker"] for number, answer in answers.items()}

    def wait(self, before: dict[int, str], name: str, *, there: bool) -> None:
        """Ask until all clients of a worker get to it, or none does; the others never get to another than before."""
        own = {number for number in CLIENTS if before[number] == name}
        deadline = time.monotonic() + SECONDS
        while True:
            places = self.places()
            assert {number: places[number] for number in CLIENTS if number not in own} == {
                number: before[number] for number in CLIENTS if number not in own
            }
            if {number for number in own if places[number] == name} == (own if there else set()):
                return
            assert time.monotonic() < deadline, places

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(SECONDS)
        self.edge.stop_following()
        for worker in self.workers.values():
            worker.stop()

    def _wait_until_it_listens(self, edge: Edge) -> None:
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                edge.ask()
            except OSError:
                assert time.monotonic() < deadline
            else:
                return


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    running = Cluster(tmp_path, Names(tmp_path), free_port())
    yield running
    running.stop()


@pytest.mark.parametrize("name", ["app1", "app2", "app3"])
def test_a_worker_with_a_new_address_moves_nobody_else(cluster: Cluster, name: str) -> None:
    """While it is away only its own clients go elsewhere, and they come back when it does, under whatever address."""
    before = cluster.places()
    assert set(before.values()) == {"app1", "app2", "app3"}
    cluster.workers[name].stop()
    cluster.names.publish(**{name: None})
    cluster.wait(before, name, there=False)
    cluster.workers[name] = Worker(name, ("127.0.0.21", cluster.port))
    cluster.names.publish(**{name: "127.0.0.21"})
    cluster.wait(before, name, there=True)


def test_a_worker_that_is_only_dead_loses_its_clients_for_a_while(cluster: Cluster) -> None:
    """Its name is still known, and it refuses: its clients are answered by others, and everybody else stays."""
    before = cluster.places()
    cluster.workers["app2"].stop()
    cluster.wait(before, "app2", there=False)


def test_nginx_starts_while_a_worker_is_away(tmp_path: Path) -> None:
    """Its place is kept."""
    names = Names(tmp_path)
    names.publish(app1="192.0.2.1", app3="192.0.2.3")
    subprocess.run([*script(tmp_path), "true"], env=settings(tmp_path, names, STICKY="session"), check=True)
    assert (tmp_path / "workers.conf").read_text(encoding="utf-8").splitlines() == [
        "server 192.0.2.1:8000 max_fails=1 fail_timeout=5s; # app1",
        "server 127.0.0.1:8000 down; # app2",
        "server 192.0.2.3:8000 max_fails=1 fail_timeout=5s; # app3",
    ]


@pytest.mark.parametrize(
    "networks", ["127.0.0.0/8,10.0.0.0/8", " 192.0.2.7 , ,fd00::/8", "*", "none", "*,10.0.0.0/8"], ids=str
)
def test_nginx_lets_the_same_in_to_the_admin_api_as_in_the_cluster(tmp_path: Path, networks: str) -> None:
    """The script writes ADMIN_NETWORKS as `main.py cluster` does; without any, nobody is let in."""
    names = Names(tmp_path)
    names.publish(app1="192.0.2.1")
    told = load_settings(_env_file=None, auth_disabled=True, admin_networks=networks).cluster.admin_network_list
    expected = render("${ADMIN_ACCESS}", replace(policy("ip"), admin_networks=told), [], tmp_path)
    for given, access in (({"ADMIN_NETWORKS": networks}, expected), ({}, "deny all;")):
        environment = settings(tmp_path, names, STICKY="session", **given)
        done = subprocess.run([*script(tmp_path), "env"], env=environment, capture_output=True, text=True, check=True)
        assert f"ADMIN_ACCESS={access}" in done.stdout.splitlines()


@pytest.mark.parametrize(
    ("nameservers", "address"),
    [
        ("nameserver 127.0.0.11\noptions ndots:0\n", "127.0.0.11"),
        ("search dns.podman\nnameserver 10.89.0.1\nnameserver 192.0.2.53\n", "10.89.0.1"),
        ("nameserver fd00::1\n", "[fd00::1]"),
    ],
    ids=["docker", "podman", "ipv6"],
)
def test_nginx_asks_the_container_engines_name_server(tmp_path: Path, nameservers: str, address: str) -> None:
    """The first name server knows the workers; others, which Podman lists too, don't."""
    names = Names(tmp_path)
    names.publish(app1="192.0.2.1")
    command = [*script(tmp_path), "env"]
    (tmp_path / "resolv.conf").write_text(nameservers, encoding="utf-8")
    given = settings(tmp_path, names, STICKY="session", WORKER_NAMES="app1 app2")
    done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=SECONDS, check=True)
    assert {
        f"RESOLVER=resolver {address} valid=5s ipv6=off;",
        "WORKERS=" + "".join(f"server {name}:8000 resolve max_fails=1 fail_timeout=5s; " for name in ("app1", "app2")),
        f"WORKERS_BY_ADDRESS=include {tmp_path}/workers.conf;",
    } <= set(done.stdout.splitlines())
