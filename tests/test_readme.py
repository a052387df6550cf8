"""The README in both languages: its examples run as they stand, and print what stands below them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live import ALICE_KEY
from tests.processes import environment
from tests.test_cli import demo

ROOT = Path(__file__).parent.parent
READMES = ("README.md", "README.zh-CN.md")
# Numbered headings, the shell code below each, and what it prints.
EXAMPLE = re.compile(
    r"^### (\d)\. [^\n]*\n(?:(?!^```|^#).)*^```sh\n(.*?)^```\n\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
CODE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
END_OF_EXAMPLE = "----- end of example -----"
ELISION = "…"


def examples(readme: str) -> list[tuple[str, str, str]]:
    """Number, code and output of each example."""
    text = (ROOT / readme).read_text(encoding="utf-8")
    return [(str(found[1]), str(found[2]), str(found[3])) for found in EXAMPLE.finditer(text)]


def setup_of(readme: str) -> str:
    """The code that comes before the first example, without its installations; those belong to the test's own setup."""
    text = (ROOT / readme).read_text(encoding="utf-8")
    blocks = [code for kind, code in CODE.findall(text[: text.index("### 1. ")]) if kind == "sh"]
    assert len(blocks) == 2, "the commands of ./dev, and the examples' setup"
    export, install = blocks[1].splitlines()
    assert install.endswith("&& pip install -q openai anthropic")
    return str(export).partition("#")[0].replace(f"sk-demo-{ELISION}", ALICE_KEY)


def matches(told: str, printed: str) -> bool:
    """Whether a text is what was told of it; `…` stands for anything."""
    pattern = ".*".join(re.escape(part) for part in told.strip().split(ELISION))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


@pytest.mark.parametrize("readme", READMES)
def test_the_examples_run_in_their_order_in_one_shell(readme: str) -> None:
    """Copied into one shell one after the other, all examples print what stands below them."""
    numbers, codes, outputs = zip(*examples(readme), strict=True)
    assert numbers == ("1", "2", "3", "4", "5", "6")
    shell = environment()
    shell["PATH"] = f"{Path(sys.executable).parent}:{shell['PATH']}"
    with demo("--port", "0", API_MASTER_KEY=ALICE_KEY) as banner:
        port = re.findall(r"localhost:(\d+)/v1", banner)[0]
        script = "".join(f"{code}\necho '{END_OF_EXAMPLE}'\n" for code in (setup_of(readme), *codes))
        ended = subprocess.run(
            ["sh", "-euc", script.replace("localhost:8088", f"localhost:{port}")],
            env=shell,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr
    _, *printed, rest = ended.stdout.split(f"{END_OF_EXAMPLE}\n")
    assert rest == ""
    for told, output in zip(outputs, printed, strict=True):
        assert matches(told, output), f"told:\n{told}\nprinted:\n{output}"


@pytest.mark.parametrize("readme", READMES)
def test_no_example_is_left_out(readme: str) -> None:
    """All code between the first example and the next section is run by the test above, or is what it prints."""
    text = (ROOT / readme).read_text(encoding="utf-8")
    end = text.index("\n## ", text.index("### 6. "))
    shown = [code for _, code in CODE.findall(text[text.index("### 1. ") : end])]
    assert shown == [part for _, code, output in examples(readme) for part in (code, output)]


def test_both_languages_have_the_same_examples() -> None:
    """They differ in what is said, and in nothing else."""
    english, chinese = (
        [re.sub(r'"[^"\n]*"|{[^}\n]*}', "", code) for _, code, _ in examples(readme)] for readme in READMES
    )
    assert english == chinese
