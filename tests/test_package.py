"""The gateway as a package: what the wheel holds, and that it runs where there is no checkout."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from app import __version__

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without network."""
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment with the wheel; what it depends on is seen in the tests' own environment."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    run([*pip, "install", "-q", "--no-deps", "--no-index", str(wheel)])
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return folder / "bin"


def run(
    command: list[str], *, cwd: Path | None = None, status: int = 0, **variables: str
) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    ended = subprocess.run(
        command, cwd=cwd, env=kept | variables, capture_output=True, text=True, timeout=100, check=False
    )
    assert ended.returncode == status, ended.stdout + ended.stderr
    return ended


def test_the_wheel_holds_what_runs_and_nothing_else(wheel: Path) -> None:
    """Gateway, simulator, the files of pages and nginx's template; no tests, no settings of this machine."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"simulator/site.py", "app/cli/nginx.conf", "app/api/pages/static/docs.js", "app/cli/demo.py"} <= names
    console = {"templates/base.html", "static/console.css", "static/feed.js", "texts/en.toml", "texts/zh.toml"}
    assert {f"app/api/console/{name}" for name in console} <= names
    assert {name.partition("/")[0] for name in names} == {"app", "simulator", f"kimi_ai_2api-{__version__}.dist-info"}
    in_the_checkout = {
        str(file.relative_to(ROOT))
        for folder in ("app", "simulator")
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert {name for name in names if ".dist-info/" not in name} == in_the_checkout | {"app/cli/nginx.conf"}


def test_the_command_is_installed(installed: Path, tmp_path: Path) -> None:
    """It tells its version and its commands, by its own name, in any folder."""
    command = str(installed / "kimi-ai-2api")
    assert run([command, "--version"], cwd=tmp_path).stdout == f"{__version__}\n"
    usage = run([command, "--help"], cwd=tmp_path).stdout
    assert usage.startswith("usage: kimi-ai-2api ")
    assert {"serve", "demo", "cluster", "doctor"} <= set(usage.split())


@pytest.mark.parametrize("missing", ["", "uvloop resource fcntl"])
def test_the_installed_demo_runs(installed: Path, tmp_path: Path, missing: str) -> None:
    """Away from any checkout it answers, and keeps its key in the user's folder; also without what Windows lacks."""
    blocked = "".join(f"sys.modules[{name!r}] = None; " for name in missing.split())
    code = (
        f"import sys; {blocked}sys.argv[1:] = ['demo', '--port', '0']; import app.cli.commands as c; sys.exit(c.main())"
    )
    variables = {"PATH": os.environ["PATH"], "XDG_STATE_HOME": str(tmp_path / "state")}
    command = [str(installed / "python"), "-P", "-c", code]
    with subprocess.Popen(command, cwd=tmp_path, env=variables, stdout=subprocess.PIPE, text=True) as demo:
        try:
            assert demo.stdout is not None
            text = "".join(iter(demo.stdout.readline, "Press Ctrl+C to stop.\n"))
            line = text[text.index("curl -N") : text.index("Then ask")].strip()
            assert run(["sh", "-c", line]).stdout.endswith("data: [DONE]\n\n")
            if not missing:  # what Windows lacks, the console's database needs
                link = next(word for word in text.split() if "/console/#" in word)
                page = run(["curl", "-sL", "-w", "%{http_code}", link])
                assert page.stdout.endswith("200")
                assert "console.css" in page.stdout
        finally:
            demo.kill()
    key = (tmp_path / "state" / "kimi-ai-2api" / "demo-key").read_text(encoding="ascii").strip()
    assert key in text
    assert list(tmp_path.iterdir()) == [tmp_path / "state"]


def test_an_installed_cluster_finds_its_template_and_its_workers(installed: Path, tmp_path: Path) -> None:
    """nginx's configuration comes from the wheel, and a worker is started from it, whatever the folder holds."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("raise SystemExit('the wrong package')", encoding="ascii")
    code = (
        "import subprocess\n"
        "from app.cli import cluster\n"
        "from app.cli.reloading import command_line, main_file\n"
        "assert 'upstream' in cluster.template()\n"
        "*command, serve = command_line(main_file(), 'serve')\n"
        "assert serve == 'serve'\n"
        "print(subprocess.run([*command, '--version'], capture_output=True, text=True).stdout)\n"
    )
    assert run([str(installed / "python"), "-P", "-c", code], cwd=tmp_path).stdout.strip() == __version__
