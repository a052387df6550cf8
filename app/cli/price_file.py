"""Reads prices from a CSV file, as spreadsheets of any country write it, and says where one can't be read.

A file has dollars for a million tokens or characters, as vendors write them, and for one of all else; the database has
nano-dollars for one.
"""

import csv
import io
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from app.cli.database_access import CommandFault
from app.domain.durations import FIRST_YEAR, LAST_YEAR
from app.storage.prices import Price

_NANO = 1000
_NANO_FOR_ONE = 1_000_000_000
_NEEDED = ("model", "since", "input", "output")
# What a file may have besides, and the database's name for it.
FURTHER = {
    "cached": "cached",
    "cache_write": "cache_write",
    "image": "image",
    "audio_second": "audio_second",
    "characters": "character",
    "search": "search",
}
_FOR_ONE = ("image", "audio_second", "search")
_DELIMITERS = ",;\t"
_MARK = b"\xef\xbb\xbf"
_LARGEST_FILE = 16 * 1024 * 1024
_LONGEST_NAME = 200
_MOST_DOLLARS = 1_000_000
_NUMBER = re.compile(r"(\d{1,20}(\.\d{0,20})?|\.\d{1,20})([eE][+-]?\d{1,2})?", re.ASCII)
# A comma that can't separate thousands: not three digits follow, or a zero leads.
_DECIMAL_COMMA = re.compile(r"0,\d{1,20}|\d{1,20},(\d{1,2}|\d{4,20})", re.ASCII)


def read_prices(file: Path) -> list[Price]:
    """All prices of a file. Commas, semicolons or tabs separate its values, whichever the first line has.

    Raises:
        CommandFault: Something in it can't be read; says what, in which line and column.
    """
    text = _text_of(file)
    head = "".join(text.lstrip().splitlines()[:1])
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=max(_DELIMITERS, key=head.count), strict=True)
    try:
        filled = (line for line in lines if any(cell.strip() for cell in line))
        names = _column_names(next(filled, ()))
        for name in names:
            if name and name not in _NEEDED and name not in FURTHER:
                known = ",".join((*_NEEDED, *FURTHER))
                print(f"{file}: the column {name!r} is ignored; there are {known}.", file=sys.stderr)
        return [_price(_cells(names, line)) for line in filled]
    except (csv.Error, ValueError) as error:
        raise CommandFault(f"{file}, line {max(lines.line_num, 1)}: {error}.") from None


def dollars_text(nano: int | None, column: str) -> str:
    """A price of the database as files have it; empty for none."""
    return "" if nano is None else f"{(Decimal(nano) / _factor(column)).normalize():f}"


def _text_of(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            data = opened.read(_LARGEST_FILE + 1).removeprefix(_MARK)
    except OSError as error:
        raise CommandFault(f"{file} can't be read: {error.strerror}.") from None
    if len(data) > _LARGEST_FILE:
        raise CommandFault(f"{file} is larger than {_LARGEST_FILE // 1024**2} MB; that is no list of prices.")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, place = before.count(b"\n") + 1, len(before.rpartition(b"\n")[2].decode()) + 1
        raise CommandFault(
            f"{file}, line {line}, character {place}: this is not UTF-8; save the file as CSV in UTF-8."
        ) from None


def _column_names(cells: Sequence[str]) -> list[str]:
    names = [cell.strip().lower() for cell in cells]
    needed = f"the first line must name the columns {','.join(_NEEDED)}"
    if not names:
        raise ValueError(f"there is nothing in the file; {needed}")
    if missing := [name for name in _NEEDED if name not in names]:
        raise ValueError(f"{needed}; {','.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    for name in names:
        if name and names.count(name) > 1:
            raise ValueError(f"the column {name} is there more than once")
    return names


def _cells(names: Sequence[str], line: Sequence[str]) -> dict[str, str]:
    cells = [cell.strip() for cell in line]
    if any(cells[len(names) :]):
        raise ValueError(
            f"there are {len(cells)} values for {len(names)} columns; "
            "a number with a comma in it has to be quoted, or written with a point"
        )
    return dict(zip(names, cells, strict=False))


def _price(cells: Mapping[str, str]) -> Price:
    model = cells.get("model", "")
    if not 0 < len(model) <= _LONGEST_NAME or not model.isprintable():
        raise ValueError(f"column model: the name of a model has 1 to {_LONGEST_NAME} characters")
    fresh = _nano(cells, "input")
    further = {column: _nano(cells, name) for name, column in FURTHER.items() if cells.get(name)}
    return Price(
        model=model,
        since=_since(cells.get("since", "")),
        input=fresh,
        output=_nano(cells, "output"),
        **{"cached": fresh, **further},
    )


def _since(text: str) -> int:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or not FIRST_YEAR <= time.year <= LAST_YEAR:
        raise ValueError(f"column since: {text[:40]!r} is not a date; write it like 2027-01-31")
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)


def _nano(cells: Mapping[str, str], column: str) -> int:
    text = cells.get(column, "")
    number = text.removeprefix("$").strip()
    if _DECIMAL_COMMA.fullmatch(number):
        number = number.replace(",", ".")
    if not _NUMBER.fullmatch(number) or Decimal(number) > _MOST_DOLLARS:
        raise ValueError(f"column {column}: {text[:40]!r} is not a price; write dollars, such as 0.6")
    return round(Decimal(number) * _factor(column))


def _factor(column: str) -> int:
    return _NANO_FOR_ONE if column in _FOR_ONE else _NANO
