"""The demo's key."""

import re
from pathlib import Path

import pytest

from app.cli.demo_key import kept_key

FORM = re.compile(r"sk-demo-[0-9a-f]{24}")


def test_the_key_stays_the_same_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    """The second start has the first one's key, from a file with mode 0600 in a folder that is made for it."""
    key = kept_key(tmp_path / "data")
    assert FORM.fullmatch(key)
    assert kept_key(tmp_path / "data") == key
    (file,) = (tmp_path / "data").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", [b"", b"sk-demo-", b"\xff\xfe", b"sk-demo-00\nsk-demo-11\n"])
def test_a_file_without_a_key_is_replaced(tmp_path: Path, damage: bytes) -> None:
    """Whatever is in the file, the next start has a sound key, and keeps it."""
    (tmp_path / "demo-key").write_bytes(damage)
    key = kept_key(tmp_path)
    assert FORM.fullmatch(key)
    assert kept_key(tmp_path) == key


def test_a_folder_that_cannot_be_written_to_does_no_harm(tmp_path: Path) -> None:
    """The demo has a key all the same, another one at each start."""
    (tmp_path / "data").write_text("a file where the folder should be", encoding="ascii")
    assert FORM.fullmatch(kept_key(tmp_path / "data"))
