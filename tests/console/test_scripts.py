"""The console's scripts, before any browser sees them."""

import subprocess
from pathlib import Path

import app.api.console
from tests.clients.node_sdk import NODE_FOLDER, needs_node_modules

_STATIC = Path(app.api.console.__file__).parent / "static"
# All of them together, in bytes: pages have to be there at once.
_MOST = 20_000


@needs_node_modules("typescript")
def test_types_fit() -> None:
    """TypeScript, strict, finds nothing in the JavaScript and the types in its comments."""
    compiler = NODE_FOLDER / "node_modules" / ".bin" / "tsc"
    command = [str(compiler), "--project", str(Path(__file__).parent / "tsconfig.json")]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (checked.returncode, checked.stdout) == (0, "")


def test_scripts_are_small() -> None:
    """Without any packing."""
    sizes = [path.stat().st_size for path in _STATIC.glob("*.js")]
    assert sizes
    assert sum(sizes) < _MOST


def test_scripts_write_no_markup() -> None:
    """They make elements and texts; what would read a text as HTML, or run it, isn't in them."""
    text = "".join(path.read_text("utf-8") for path in _STATIC.glob("*.js"))
    forbidden = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "DOMParser")
    assert [word for word in forbidden if word in text] == []
