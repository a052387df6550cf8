"""The demo's API key, which stays the same from one start to the next."""

import contextlib
import os
import re
import secrets
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_FORM = re.compile(r"sk-demo-[0-9a-f]{24}")


def kept_key(folder: Path | None = None) -> str:
    """The key of the last start, or else a new one, which is kept for the next start if the folder can be written to.

    Args:
        folder: Where the file `demo-key` is; by default `data` in a checkout, else the user's folder for such things.
    """
    try:
        file = (folder or data_folder()) / "demo-key"
    except RuntimeError:  # a user without a home
        return _new_key()
    key = _read(file)
    if key is None:
        key = _new_key()
        with contextlib.suppress(OSError):  # without a place to keep it, the next start has another key
            _write(file, key)
    return key


def _new_key() -> str:
    return f"sk-demo-{secrets.token_hex(12)}"


def data_folder() -> Path:
    """Where the demo keeps things: `data` in a checkout, else the user's folder for such things.

    Raises:
        RuntimeError: The user has no home.
    """
    if (_ROOT / "pyproject.toml").is_file():
        return _ROOT / "data"
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "kimi-ai-2api"


def _read(file: Path) -> str | None:
    """The key in a file; None if there is none."""
    try:
        text = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if _FORM.fullmatch(text) else None


def _write(file: Path, key: str) -> None:
    """Keep a key where only its owner can read it. A file that holds no key is replaced."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f"{file.name}.{os.getpid()}")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as opened:
        opened.write(f"{key}\n")
    beside.replace(file)
