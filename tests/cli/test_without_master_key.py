"""Commands about the database, where no `API_MASTER_KEY` is set, as beside the demo."""

import pytest

from tests.cli.conftest import Run


def test_commands_work_without_a_master_key(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo makes a key of its own and tells no setting of it; only who serves needs one."""
    monkeypatch.delenv("API_MASTER_KEY")
    run("keys", "create", "ada", "--limits", "5 at once")
    assert "5 at once" in run("keys", "list")
    assert "key:ada" in run("limits", "list")
    assert "ada" in run("recordings", "start", "ada", "--for", "1h")
    run("upstreams", "list")
    assert "/console/#" in run("console-link")
