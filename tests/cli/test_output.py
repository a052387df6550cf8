"""What commands print, whatever they are given and whatever they print to."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli.database_access import print_json, print_table
from app.cli.output import accept_any_output, printable
from tests.cli.conftest import Run
from tests.databases import ready_file
from tests.processes import ROOT, environment


def test_a_reader_that_has_seen_enough_ends_a_command_quietly(tmp_path: Path) -> None:
    """As in `main.py keys list | head`: no traceback, and the status by which a shell knows why."""
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "main.py", "routes", "list"],
        cwd=ROOT,
        env=environment(DATABASE_URL=ready_file(tmp_path / "ready.db")),
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_columns_stand_below_each_other_in_any_script(capsys: pytest.CaptureFixture[str]) -> None:
    """Chinese characters take two places at a terminal; and what somebody else has written commands no terminal."""
    print_table(("NAME", "N"), [("小明", 1), ("e\u0301va", 20), ("\x1b[2J", 300)])
    assert capsys.readouterr().out == "NAME    N\n小明    1\ne\u0301va    20\n�[2J  300\n"
    assert printable("a\nb\tc") == "a\nb\tc"


def test_an_output_that_can_t_have_all_characters_gets_those_that_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON stays JSON."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii", write_through=True))
    accept_any_output()
    print("sk-…")
    print_json({"name": "小明 😀"})
    text, _, document = raw.getvalue().partition(b"\n")
    assert text == b"sk-\\u2026"
    assert json.loads(document) == {"name": "小明 😀"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["keys", "create", "bad\udcff"], "'bad\\udcff' is not UTF-8"),
        (["people", "create", "ada", "--base-url", "gateway.example"], "is no address such as https://"),
        (["--verbose"], "main.py: error: unrecognized arguments: --verbose"),
    ],
)
def test_an_argument_that_can_t_be_used_is_named(run_without_tables: Run, words: list[str], told: str) -> None:
    """Before anything is done."""
    assert told in run_without_tables(*words, fails=True)
