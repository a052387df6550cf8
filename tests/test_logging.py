"""What the log says of a fault that nobody expected."""

import io
import logging
from collections.abc import Iterator

import pytest
import structlog

from app.observe import logging as logs
from app.observe.logging import LogFormat

SECRET = "sk-do-not-log-me"


@pytest.fixture
def restored() -> Iterator[None]:
    """Takes the test's handler away again."""
    yield
    logging.getLogger().handlers.clear()


@pytest.mark.parametrize("log_format", ["json", "pretty"])
def test_a_traceback_shows_no_values(log_format: LogFormat, restored: None) -> None:
    """In both formats a logged exception has its place and its text, and not what the variables held."""
    stream = io.StringIO()
    logs.configure("DEBUG", log_format, stream)

    def fail(key: str) -> None:
        raise ZeroDivisionError(len(key))

    try:
        fail(SECRET)
    except ZeroDivisionError:
        structlog.get_logger("test").exception("unexpected_error")
    assert "ZeroDivisionError" in stream.getvalue()
    assert "in fail" in stream.getvalue() or '"name":"fail"' in stream.getvalue()
    assert SECRET not in stream.getvalue()
