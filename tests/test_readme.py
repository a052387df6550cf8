"""The README in both languages: its examples run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.live import ALICE_KEY, WAIT_SECONDS
from tests.ports import free_port
from tests.test_cli import environment, process

ROOT = Path(__file__).parent.parent
# The first block of shell code below a numbered heading.
EXAMPLE = re.compile(r"^### (\d)\. .*?^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
END_OF_EXAMPLE = "----- end of example -----"

# What each example says when it has worked.
ANSWERS = {
    "README.md": (
        "data: [DONE]",
        "Your name is Ada.",
        "You wrote: Hello from Python!",
        'get_weather {"city": "Paris"}',
        "You wrote: Hello from the Anthropic SDK!",
    ),
    "README.zh-CN.md": (
        "data: [DONE]",
        "你叫小明。",
        "You wrote: 来自 Python 的问候！",
        'get_weather {"city": "北京"}',
        "You wrote: 来自 Anthropic SDK 的问候！",
    ),
}


@pytest.mark.parametrize("readme", ANSWERS)
def test_the_examples_run_in_their_order_in_one_shell(readme: str) -> None:
    """Copied into one shell one after the other, all five examples get their answers from the demo."""
    port = free_port()
    text = (ROOT / readme).read_text(encoding="utf-8").replace("localhost:8088", f"localhost:{port}")
    numbers, examples = zip(*EXAMPLE.findall(text), strict=True)
    assert numbers == ("1", "2", "3", "4", "5")
    script = "".join(f"{example}\necho '{END_OF_EXAMPLE}'\n" for example in examples)
    shell = environment(KEY=ALICE_KEY)
    shell["PATH"] = f"{Path(sys.executable).parent}:{shell['PATH']}"
    with process("main.py", "demo", "--port", str(port), API_MASTER_KEY=ALICE_KEY):
        _wait_for(port)
        ended = subprocess.run(
            ["sh", "-euc", script], env=shell, capture_output=True, text=True, timeout=120, check=False
        )
    assert ended.returncode == 0, ended.stderr
    printed = ended.stdout.split(END_OF_EXAMPLE)
    for answer, output in zip(ANSWERS[readme], printed[:-1], strict=True):
        assert answer in output


def _wait_for(port: int) -> None:
    """The demo needs a moment before it listens: connect until it accepts the connection."""
    with httpx.Client(transport=httpx.HTTPTransport(retries=8), trust_env=False, timeout=WAIT_SECONDS) as client:
        assert client.get(f"http://127.0.0.1:{port}/health").status_code == 200
