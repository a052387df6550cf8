"""What the log says of a fault that nobody expected."""

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from app.observe import logging as logs
from app.observe.logging import AccessLog, LogFormat

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


@pytest.mark.parametrize("log_format", ["json", "pretty"])
def test_a_closed_stderr_only_silences(log_format: LogFormat, restored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was started without stderr logs nothing, and works."""
    monkeypatch.setattr(sys, "stderr", None)
    logs.configure("DEBUG", log_format)
    structlog.get_logger("test").info("anything")
    log = AccessLog("test")
    log.close(log.open("GET", "/health", "req_1"), 200, 0.1, logging.INFO)


def test_a_line_that_cannot_be_written_is_left_out(restored: None) -> None:
    """An access line with a name in it that is no UTF-8 is lost, and nothing else: no error, and the next one comes."""
    stream = io.StringIO()
    logs.configure("INFO", "json", stream)
    log = AccessLog("test")
    for path in ("/\udcff", "/health"):
        log.close(log.open("GET", path, "req_1"), 200, 0.1, logging.INFO)
    assert [line["path"] for line in map(json.loads, stream.getvalue().splitlines())] == ["/health"]
