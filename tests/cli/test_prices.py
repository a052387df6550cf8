"""`main.py prices`: what a file has becomes what models cost."""

import json
from pathlib import Path

from tests.cli.conftest import Run

FILE = """model,since,input,output,cached,cache_write,image,audio_second,characters,search,note
kimi,2026-01-01,0.60,2.50,,,,,,,
claude,2026-01-01,3,15,0.30,3.75,,,,,dear
painter,2026-01-01,0,0,,,0.04,0.0001,15,0.002,
"""


def test_a_file_has_prices_for_tokens_and_for_pieces(run: Run, tmp_path: Path) -> None:
    """What is left out costs what `input` says, if it is about tokens, else nothing; unknown columns are told."""
    file = tmp_path / "prices.csv"
    file.write_text(FILE)
    assert "Prices read: 3" in run("prices", "import", str(file))
    prices = {row.pop("model"): row for row in json.loads(run("prices", "list", "--json"))}
    names = ("input", "output", "cached", "cache_write", "image", "audio_second", "character", "search")
    assert {model: [row[name] for name in names] for model, row in prices.items()} == {
        "kimi": [600, 2500, 600, None, 0, 0, 0, 0],
        "claude": [3000, 15_000, 300, 3750, 0, 0, 0, 0],
        "painter": [0, 0, 0, None, 40_000_000, 100_000, 15_000, 2_000_000],
    }
    head, *_, last = run("prices", "list").splitlines()
    assert head.split()[-2:] == ["CHARACTERS", "SEARCH"]
    assert last.split()[-4:] == ["0.04", "0.0001", "15", "0.002"]
