"""`main.py prices`: what a file has becomes what models cost."""

import json
from pathlib import Path

import pytest

from app.cli.database_access import CommandFault
from app.cli.price_file import dollars_text, read_prices
from app.storage.prices import Price
from tests.cli.conftest import Run

HEAD = b"model,since,input,output\n"

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


def test_a_price_is_listed_to_its_last_digit() -> None:
    """In the form in which a file may have it."""
    prices = [(123_456_789, "input"), (1_000_000_000, "output"), (1, "image"), (0, "search"), (None, "cache_write")]
    assert [dollars_text(*price) for price in prices] == ["123456.789", "1000000", "0.000000001", "0", ""]


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfmodel,since,input,output\r\nkimi,2026-01-01,0.6,2.5\r\n",
        b"\n Model ; Since ; Input ; Output ;\r\nkimi;2026-01-01;0,6;2,50;\r\n;;;;\r\n",
        b"model\tsince\tinput\toutput\nkimi\t2026-01-01T00:00Z\t$0.60\t$ 2.5\n",
        b'model,since,output,input\rkimi,2026-01-01,"2,5",.6\r',
    ],
)
def test_a_file_may_come_from_any_spreadsheet(tmp_path: Path, data: bytes) -> None:
    """Marks, line ends, separators and decimal commas that can mean only one thing mean that."""
    file = tmp_path / "prices.csv"
    file.write_bytes(data)
    assert read_prices(file) == [Price("kimi", 1_767_225_600_000, 600, 2500, 600)]


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "line 1: there is nothing in the file; the first line must name the columns model,since,input,output"),
        (b"kimi,2026-01-01,1,2\n", "line 1: the first line must name .*; model,since,input,output are missing"),
        (b"model,since,output\nkimi,2026-01-01,1\n", "line 1: .*; input is missing"),
        (b"model,since,input,output,Input\n", "line 1: the column input is there more than once"),
        (HEAD + b"kimi,01.02.2026,1,2\n", "line 2: column since: '01.02.2026' is not a date; write it like 2027-01-31"),
        (HEAD + b"kimi,9999-12-31,1,2\n", "line 2: column since: '9999-12-31' is not a date"),
        (b"output,input,since,model\n1,2\n", "line 2: column model: the name of a model has 1 to 200 characters"),
        (HEAD + b"kimi,30d,1,2\n", "line 2: column since: '30d' is not a date"),
        (HEAD + b"\n\nkimi,2026-01-01,1\n", "line 4: column output: '' is not a price; write dollars, such as 0.6"),
        (HEAD + b'kimi,2026-01-01,"1,000",2\n', "line 2: column input: '1,000' is not a price"),
        (HEAD + b"kimi,2026-01-01,-1,2\n", "line 2: column input: '-1' is not a price"),
        (HEAD + b"kimi,2026-01-01,1,NaN\n", "line 2: column output: 'NaN' is not a price"),
        (HEAD + b"kimi,2026-01-01,0,60,2,50\n", "line 2: there are 6 values for 4 columns; a number with a comma"),
        (HEAD + b",2026-01-01,1,2\n", "line 2: column model: the name of a model has 1 to 200 characters"),
        (HEAD + b'"kimi,2026-01-01,1,2\n', "line 2: unexpected end of data"),
        (HEAD + b"kimi,2026-01-01,1,2\nk\xfcmi,2026-01-01,1,2\n", "line 3, character 2: this is not UTF-8"),
        ("model,since,input,output".encode("utf-16"), "line 1, character 1: this is not UTF-8; save the file as CSV"),
    ],
)
def test_what_can_t_be_read_is_told_with_its_place(tmp_path: Path, data: bytes, fault: str) -> None:
    """Whoever has a file of a thousand lines finds the fault, and nothing is imported."""
    file = tmp_path / "prices.csv"
    file.write_bytes(data)
    with pytest.raises(CommandFault, match=f"prices.csv, {fault}"):
        read_prices(file)


def test_a_file_that_is_not_there_is_named(run: Run) -> None:
    """In words, without the system's numbers."""
    assert run("prices", "import", "no.csv", fails=True) == "no.csv can't be read: No such file or directory.\n"
