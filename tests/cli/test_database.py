"""`main.py database`: what it says of the other side."""

from tests.cli.conftest import Run
from tests.ports import free_port


def test_a_target_that_can_t_be_reached_is_named(run: Run) -> None:
    """Whoever moves a database looks for the fault in the address that was given, not in `DATABASE_URL`."""
    told = run("database", "move", f"postgresql://gateway:hidden-word@127.0.0.1:{free_port()}/new", fails=True)
    assert "/new can't be used: " in told
    assert "DATABASE_URL" not in told
    assert "hidden-word" not in told
