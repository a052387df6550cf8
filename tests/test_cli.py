"""The commands, as processes of their own."""

import json
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.cli.commands import main
from simulator.live import LiveSimulator
from tests.live import ALICE_KEY, WAIT_SECONDS
from tests.ports import free_port
from tests.processes import ROOT, environment, process, until_it_listens


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def shell(command: str) -> str:
    """What a line prints that is pasted into a shell."""
    return subprocess.run(command, shell=True, capture_output=True, text=True, timeout=30, check=True).stdout


@contextmanager
def demo(*arguments: str, **settings: str) -> Iterator[str]:
    """What a running demo has printed at its start."""
    with process("main.py", "demo", *arguments, **settings) as running:
        assert running.stdout is not None
        text = ""
        while "Ctrl+C" not in text:
            line = running.stdout.readline()
            assert line, running.communicate()[1]
            text += line
        yield text


def test_the_demo_s_curl_line_works_as_it_is_printed() -> None:
    """It can be pasted into a shell at once: it streams an answer, and the session remembers."""
    with demo("--port", "0", LOG_LEVEL="INFO") as text:
        command = text[text.index("curl -N") : text.index("Then ask")].strip()
        assert shell(command).endswith("data: [DONE]\n\n")
        question = command.replace("Hello, my name is Ada.", "What is my name?").replace('"stream": true, ', "")
        assert "Your name is Ada." in shell(question)


def test_the_demo_s_two_models_never_stand_in_for_each_other() -> None:
    """`kimi` is the simulated site and nothing else, however long the message; the API has a name of its own."""
    with demo("--port", "0", MODEL_ROUTES="kimi=kimi-web/kimi-k2-instruct>moonshot/kimi-k2-0905-preview") as text:
        assert {"kimi", "kimi-k2-0905-preview"} <= set(text.split())
        command = text[text.index("curl -N") : text.index("Then ask")].strip().replace("curl -N", "curl -si")
        command = command.replace('"stream": true, "user": "me",', "").replace("Hello, my name is Ada.", "a" * 3000)
        for model in ('"model": "kimi",', ""):
            answer = shell(command.replace('"model": "kimi",', model))
            assert "x-provider: kimi-web" in answer or '"context_length_exceeded"' in answer
        answer = shell(command.replace('"model": "kimi"', '"model": "kimi-k2-0905-preview"'))
        assert "x-provider: moonshot" in answer


def test_the_demo_has_the_key_that_it_is_given() -> None:
    """API_MASTER_KEY of the environment is the demo's key."""
    with demo("--port", "0", API_MASTER_KEY=ALICE_KEY) as text:
        assert f"API key     {ALICE_KEY}\n" in text


def test_a_gateway_loads_only_what_it_serves_with(tmp_path: Path) -> None:
    """What isn't used takes no memory and time: the simulator, Redis's client, databases, validators of schemas."""
    script = "import sys, main, app.cli.serve; main.app; print(*sys.modules)"
    loaded = set(run("-c", script, API_MASTER_KEY=ALICE_KEY).stdout.split())
    assert "app.providers.http.client" in loaded
    unused = {"redis", "simulator", "app.cli.supervisor", "app.cli.doctor", "app.observe.otel", "jsonschema_rs"}
    unused |= {"alembic", "psycopg", "sqlalchemy.dialects.postgresql", "jinja2", "app.api.admin.app", "app.api.console"}
    unused |= {"app.api.gemini.dialect", "app.api.gemini.schemas"}
    assert loaded.isdisjoint(unused)
    with_sqlite = run("-c", script, API_MASTER_KEY=ALICE_KEY, DATABASE_URL=f"sqlite:///{tmp_path}/gateway.db")
    loaded = set(with_sqlite.stdout.split())
    assert "sqlalchemy.dialects.sqlite" in loaded
    not_either = {"alembic", "psycopg", "sqlalchemy.dialects.postgresql", "jinja2", "markdown_it", "app.people"}
    assert loaded.isdisjoint(unused | not_either | {"app.api.admin.app", "app.api.console"})


def test_a_request_by_fastapis_router_finds_its_route_made() -> None:
    """FastAPI makes no route at the first request, and loads nothing for it, in which all streams would stand still."""
    request = "status = starlette.testclient.TestClient(main.app).get('/health').status_code"
    script = f"import sys, main, starlette.testclient; {request}; print(status, 'pydantic.v1' in sys.modules)"
    assert run("-c", script, API_MASTER_KEY=ALICE_KEY).stdout.split()[-2:] == ["200", "False"]


def test_a_python_without_the_packages_is_told_of_the_command_that_has_them() -> None:
    """Instead of a traceback, to whoever runs `python main.py` where only `./dev` has installed anything."""
    ended = subprocess.run(
        [sys.executable, "-S", "main.py", "keys", "list"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "./dev keys list" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_process_has_one_app() -> None:
    """Whoever asks for `main.app` a second time gets the same; the factory makes another one each time."""
    script = "import main; print(main.app is main.app, main.create_app() is main.create_app())"
    assert run("-c", script, API_MASTER_KEY=ALICE_KEY).stdout.split() == ["True", "False"]


def test_a_taken_port_is_told_before_anything_else() -> None:
    """Neither demo nor cluster prints addresses that lead nowhere, or tries for ever."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        trial = run("main.py", "demo", "--port", port)
        cluster = run("main.py", "cluster", NGINX_PORT=port, API_MASTER_KEY=ALICE_KEY)
    assert (trial.returncode, trial.stdout) == (1, "")
    assert f"Port {port} is in use" in trial.stderr
    assert re.search(r"--port \d+\n$", trial.stderr)
    assert cluster.returncode == 1
    assert f"127.0.0.1:{port} is taken" in cluster.stderr


@pytest.mark.parametrize("command", ["demo", "serve", "simulator"])
@pytest.mark.parametrize("port", ["65536", "-1", "eighty", "80000000000", "8e3"])
def test_a_port_that_is_none_is_refused(command: str, port: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By one line that says what a port is."""
    with pytest.raises(SystemExit) as ended:
        main([command, f"--port={port}"])
    assert ended.value.code == 2
    assert "argument --port: must be a number between 0 and 65535" in capsys.readouterr().err


def test_an_address_that_cannot_be_listened_at_is_named() -> None:
    """Neither a cluster whose nginx and worker share a port nor one worker at a strange address leaves one guessing."""
    cluster = run("main.py", "cluster", NGINX_PORT="9101", CLUSTER_FIRST_PORT="9100", API_MASTER_KEY=ALICE_KEY)
    worker = run("main.py", "serve", API_HOST="192.0.2.1", API_MASTER_KEY=ALICE_KEY)
    assert cluster.returncode == 1
    assert cluster.stderr.startswith("NGINX_PORT is the port of a worker")
    assert worker.returncode != 0
    assert "192.0.2.1:8000 (API_HOST, API_PORT)" in worker.stderr
    trial = run("main.py", "demo", "--host", "192.0.2.1", "--port", "8099")
    assert (trial.returncode, trial.stdout) == (1, "")
    assert trial.stderr.startswith("The demo can't listen at 192.0.2.1:8099")


def test_a_worker_may_open_as_many_files_as_the_machine_allows(site: LiveSimulator) -> None:
    """A soft limit of a few files, as shells have, doesn't bound how many requests can wait."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    limited = (
        f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (256, {most})); "
        "os.execv(sys.executable, [sys.executable, 'main.py', 'serve'])"
    )
    settings = {"API_MASTER_KEY": ALICE_KEY, "CHAT_PAGE_URL": site.page_url, "API_PORT": str(free_port())}
    with process("-c", limited, **settings) as server:
        until_it_listens(server)
        limits = Path(f"/proc/{server.pid}/limits").read_text(encoding="ascii")
    (soft,) = re.findall(r"Max open files\s+(\d+)", limits)
    assert int(soft) == most


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({}, "API_MASTER_KEY: a key is needed"),
        ({"API_MASTER_KEY": "changeme"}, "API_MASTER_KEY: key 1 is a placeholder"),
        ({"API_MASTER_KEY": ALICE_KEY, "API_PORT": "eighty"}, "API_PORT: "),
        ({"API_MASTER_KEY": ALICE_KEY, "LOG_LEVEL": "loud"}, "LOG_LEVEL: "),
        ({"API_MASTER_KEY": ALICE_KEY, "SESSION_STORE_URL": "redis://h:port/0"}, "SESSION_STORE_URL: "),
        ({"API_MASTER_KEY": ALICE_KEY, "DEFAULT_MODEL": "gpt-9"}, "DEFAULT_MODEL: "),
    ],
)
@pytest.mark.parametrize("command", [["main.py"], ["-m", "uvicorn", "main:app"]])
def test_wrong_settings_stop_the_start_with_a_line_that_names_them(
    settings: dict[str, str], line: str, command: list[str]
) -> None:
    """No stack trace, no secret: just the setting and what is wrong with it, and a status that says failure."""
    ended = run(*command, **settings)
    assert ended.returncode != 0
    assert re.search(f"^{re.escape(line)}", ended.stderr, re.MULTILINE)
    assert "Traceback" not in ended.stderr
    assert ALICE_KEY not in ended.stderr


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_of_http_1_0_gets_no_chunks(site: LiveSimulator, stream: bool) -> None:
    """A streamed answer ends with the connection, a whole one says how long it is."""
    site.site.update(reply="The whole of the answer.")
    body = json.dumps({"stream": stream, "messages": [{"role": "user", "content": "Hello"}]}).encode()
    port = free_port()
    with process("main.py", API_MASTER_KEY=ALICE_KEY, API_PORT=str(port), CHAT_PAGE_URL=site.page_url) as server:
        until_it_listens(server)
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS) as connection:
            connection.sendall(
                b"POST /v1/chat/completions HTTP/1.0\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
                % (ALICE_KEY.encode(), len(body), body)
            )
            with connection.makefile("rb") as file:
                answer = file.read()
    head, _, told = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert (b"content-length" in head.lower()) is not stream
    if stream:
        assert told.startswith(b"data: {")
        assert told.endswith(b"data: [DONE]\n\n")
    else:
        assert json.loads(told)["choices"][0]["message"]["content"] == "The whole of the answer."


@pytest.mark.parametrize(
    "command",
    [
        ["main.py"],
        ["main.py", "serve"],
        ["-m", "uvicorn", "main:app"],
        ["-m", "uvicorn", "--factory", "main:create_app"],
    ],
)
def test_a_stopped_server_lets_a_running_stream_end(site: LiveSimulator, command: list[str]) -> None:
    """On SIGTERM an answer that is being typed out is typed to its end before the process exits."""
    port = free_port()
    site.site.update(reply="The whole of the answer.")
    if "uvicorn" in command:
        command = [*command, "--port", str(port)]
    body = {"stream": True, "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"Authorization": f"Bearer {ALICE_KEY}"}
    with process(
        *command,
        API_MASTER_KEY=ALICE_KEY,
        API_PORT=str(port),
        CHAT_PAGE_URL=site.page_url,
        TYPING_DELAY_SECONDS="0.1",
        LOG_FORMAT="pretty",
    ) as server:
        until_it_listens(server)
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        with httpx.stream("POST", url, json=body, headers=headers, trust_env=False, timeout=30) as response:
            lines = response.iter_lines()
            first = next(lines)
            server.send_signal(signal.SIGTERM)
            rest = list(lines)
        server.communicate(timeout=30)
    assert first.startswith("data: {")
    assert rest[-2:] == ["data: [DONE]", ""]


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_grace_time_cuts_off_is_told_in_the_envelope(site: LiveSimulator, stream: bool) -> None:
    """An answer that can't be waited for ends as a 503, or as an error event in an opened stream."""
    port = free_port()
    site.site.update(failure="hang")
    headers = {"Authorization": f"Bearer {ALICE_KEY}"}
    body = {"stream": stream, "messages": [{"role": "user", "content": "Hello"}]}
    with process(
        "main.py",
        API_MASTER_KEY=ALICE_KEY,
        API_PORT=str(port),
        CHAT_PAGE_URL=site.page_url,
        SHUTDOWN_GRACE_SECONDS="1",
        DRAIN_SECONDS="0",
        STREAM_GRACE_SECONDS="0.01",
        LOG_FORMAT="pretty",
    ) as server:
        until_it_listens(server)
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(httpx.post, url, json=body, headers=headers, trust_env=False, timeout=30)
            assert site.site.wait_for(lambda counters: counters.in_flight == 1)
            server.send_signal(signal.SIGTERM)
            response = asked.result()
        _, log = server.communicate(timeout=30)
    last = response.text.strip().removeprefix("data: ") if not stream else response.text.strip().split("data: ")[-1]
    assert json.loads(last)["error"]["code"] == "gateway_stopping"
    assert response.status_code == (200 if stream else 503)
    assert ALICE_KEY not in log


@pytest.mark.parametrize(
    ("knobs", "status", "words"),
    [
        ({}, 0, "All is well."),
        ({"page_failure": "challenge"}, 1, "Cloudflare wants a browser"),
        ({"page_failure": "no_nonce"}, 1, "nonce_missing"),
        ({"nonces_never_valid": True}, 1, "nonce_rejected"),
        ({"failure": "forbidden"}, 1, "firewall"),
        ({"failure": "unknown_action"}, 1, "site_changed"),
        ({"failure": "server_error"}, 1, "upstream_unavailable"),
    ],
)
def test_the_doctor_says_in_plain_words_what_is_wrong(
    site: LiveSimulator, knobs: dict[str, object], status: int, words: str
) -> None:
    """Each trouble of the site has its line and its advice; the exit status tells scripts."""
    site.site.update(**knobs)
    ended = run("main.py", "doctor", CHAT_PAGE_URL=site.page_url, API_MASTER_KEY=ALICE_KEY, MAX_RETRIES="0")
    assert (ended.returncode, words in ended.stdout) == (status, True), ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_doctor_checks_settings_alone() -> None:
    """With --settings it asks nobody: it names what is wrong, and the exit status tells compose."""
    settings = {
        "CHAT_PAGE_URL": "http://127.0.0.1:9/",
        "API_MASTER_KEY": ALICE_KEY,
        "SESSION_STORE_URL": "redis://127.0.0.1:9",
    }
    assert run("main.py", "doctor", "--settings", **settings).returncode == 0
    for name, value in (("STICKY", "cookie"), ("READ_TIMEOUT", "long"), ("PROVIDERS", "nowhere:Nothing")):
        ended = run("main.py", "doctor", "--settings", **settings, **{name: value})
        assert (ended.returncode, f"{name}: " in ended.stderr) == (2, True), ended.stderr
        assert "Traceback" not in ended.stderr


def test_the_doctor_finds_the_character_limit(site: LiveSimulator) -> None:
    """With --limit it sends longer and longer messages and tells where the site stops taking them."""
    site.site.update(char_limit=1700)
    ended = run("main.py", "doctor", "--limit", CHAT_PAGE_URL=site.page_url, API_MASTER_KEY=ALICE_KEY)
    assert "limit: 1500 characters are accepted, 2000 are not" in ended.stdout


def test_the_doctor_checks_every_upstream_and_shows_no_key(site: LiveSimulator) -> None:
    """Each has a line; a wrong key is named by its setting and not shown, and the exit status tells scripts."""
    site.site.update(api_key="sk-right-4711")
    settings = {
        "CHAT_PAGE_URL": site.page_url,
        "API_MASTER_KEY": ALICE_KEY,
        "MAX_RETRIES": "0",
        "MOONSHOT_API_KEY": "sk-right-4711",
        "MOONSHOT_BASE_URL": site.api_url,
        "DEEPSEEK_API_KEY": "sk-wrong-0815",
        "DEEPSEEK_BASE_URL": site.api_url,
        "VLLM_BASE_URL": f"{site.base_url}/nowhere",
        "UPSTREAM_LIMITS": "vllm: 9 at once; deepsek: 9 at once",
    }
    ended = run("main.py", "doctor", **settings)
    assert ended.returncode == 1
    assert "✓ moonshot: it answers; 9 models" in ended.stdout
    assert "✗ deepseek: upstream_key_rejected: deepseek rejects" in ended.stdout
    assert "(DEEPSEEK_API_KEY)" in ended.stdout
    assert "✗ vllm: site_changed" in ended.stdout
    assert "UPSTREAM_LIMITS names 'deepsek', but no upstream is called so (did you mean 'deepseek'?)" in ended.stdout
    assert ended.stdout.count("UPSTREAM_LIMITS") == 1
    assert "sk-" not in ended.stdout + ended.stderr


def test_the_doctor_checks_the_session_store_and_shows_no_password(site: LiveSimulator) -> None:
    """A store that can't be reached has its line and its reason; everything else is checked all the same."""
    settings = {"CHAT_PAGE_URL": site.page_url, "API_MASTER_KEY": ALICE_KEY}
    ended = run("main.py", "doctor", SESSION_STORE_URL="redis://:geheim@127.0.0.1:1/0", **settings)
    assert ended.returncode == 1
    assert "✗ sessions: session_store_unavailable: can't be reached: connection refused" in ended.stdout
    assert "Check SESSION_STORE_URL" in ended.stdout
    assert "✓ message" in ended.stdout
    assert "geheim" not in ended.stdout + ended.stderr
    assert "✓ sessions: in this process's memory" in run("main.py", "doctor", **settings).stdout


def test_a_wrong_providers_file_stops_the_start_and_is_named(tmp_path: Path) -> None:
    """Field and file are said, in one line, as for every other setting."""
    file = tmp_path / "providers.toml"
    file.write_text('[[providers]]\nname = "work"\nbase_url = "llm.example.org"\n', encoding="utf-8")
    ended = run("main.py", "serve", API_MASTER_KEY=ALICE_KEY, PROVIDERS_FILE=str(file))
    assert ended.returncode == 2
    expected = f"PROVIDERS_FILE: {file}: providers[0] (work).base_url: must be an http:// or https:// address"
    assert expected in ended.stderr.splitlines()


def test_keys_are_given_out_and_taken_back_at_the_command_line(site: LiveSimulator, tmp_path: Path) -> None:
    """A key that is made while a gateway runs opens it; usage names it; a revoked one is closed out."""
    settings = {
        "DATABASE_URL": f"sqlite:///{tmp_path}/gateway.db",
        "JOURNAL_DIR": str(tmp_path / "journal"),
        "API_MASTER_KEY": ALICE_KEY,
        "CHAT_PAGE_URL": site.page_url,
        "TYPING_DELAY_SECONDS": "0",
    }
    made = run("main.py", "keys", "create", "ada", "--project", "lab", "--models", "kimi*", **settings)
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert "it is not shown again" in made.stderr
    again = run("main.py", "keys", "create", "ada", "--project", "lab", **settings)
    assert (again.returncode, again.stderr) == (1, "The project 'lab' has a key 'ada' already.\n")
    listed = json.loads(run("main.py", "keys", "list", "--json", **settings).stdout)
    assert [(row["name"], row["project"], row["models"], row["state"]) for row in listed] == [
        ("ada", "lab", ["kimi*"], "active")
    ]
    assert key not in json.dumps(listed)
    assert "can be used; version" in run("main.py", "database", "check", **settings).stdout
    backup = run("main.py", "database", "backup", str(tmp_path / "copy.db"), **settings)
    assert "api_key 1" in backup.stdout
    revoked = json.loads(run("main.py", "keys", "revoke", "ada", "--json", **settings).stdout)
    assert revoked["state"] == "revoked"
    assert "There is no key 'ada'" in run("main.py", "keys", "show", "ada", **settings).stderr
    assert run("main.py", "usage", "--csv", **settings).stdout.startswith("key,requests,tokens_in")
    none = run("main.py", "keys", "list", **{**settings, "DATABASE_URL": "none"})
    assert none.returncode == 2
    assert "DATABASE_URL: it is none" in none.stderr


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"DATABASE_URL": "mysql://x/y"}, "DATABASE_URL: write sqlite:///data/gateway.db"),
        ({"DATABASE_URL": "sqlite:////proc/no/gateway.db"}, "DATABASE_URL: /proc/no/gateway.db can't be used"),
        ({"JOURNAL_DIR": "/proc/no"}, "JOURNAL_DIR: nothing can be written to /proc/no"),
    ],
)
def test_a_database_that_can_t_be_used_stops_the_start(tmp_path: Path, setting: dict[str, str], words: str) -> None:
    """With the setting's name and what is wrong."""
    settings = {
        "DATABASE_URL": f"sqlite:///{tmp_path}/gateway.db",
        "JOURNAL_DIR": str(tmp_path / "journal"),
        "API_MASTER_KEY": ALICE_KEY,
        **setting,
    }
    ended = run("main.py", "serve", **settings)
    assert ended.returncode == 2
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
