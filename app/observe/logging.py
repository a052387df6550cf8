"""Structured logs, with one line per request. They hold no keys and no nonces, and message texts only on demand."""

import logging
import logging.config
import os
import sys
from collections.abc import Callable, Container, Mapping
from contextlib import nullcontext
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import partial
from typing import Final, Literal, TextIO

import msgspec
import structlog

from app.domain.texts import CallTexts
from app.domain.usage import CallRecord
from app.observe.pretty import pretty_access_line

_json = msgspec.json.Encoder(enc_hook=str).encode
LogFormat = Literal["auto", "json", "pretty"]

# The access line of the running request: opened with the request, and added to by whoever learns something about it.
# All tasks of a request share the one dict, so that what a child task adds is in the line, too.
access_fields: ContextVar[dict[str, object]] = ContextVar("access_fields")


def configure(level: str, log_format: LogFormat, stream: TextIO | None = None, *, worker_id: str = "") -> None:
    """Send all logs of the process, including those of libraries, to one stream in one format.

    Args:
        level: The lowest level that is logged.
        log_format: `json`, `pretty` for people, or `auto`: `pretty` on a terminal, else `json`.
        stream: Where the lines go; None means stderr.
        worker_id: Added to every line; empty if there is only one worker.
    """
    target = stream or sys.stderr  # None if stderr is closed
    is_terminal = target is not None and target.isatty()
    if log_format == "auto":
        log_format = "pretty" if is_terminal else "json"
    shared: list[structlog.typing.Processor] = [
        _with_request_id,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True)
        if log_format == "json"
        else structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
    ]
    if worker_id:
        shared.append(_with_worker(worker_id))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    # No values of variables in tracebacks: they may hold keys, nonces and texts.
    tracebacks = structlog.processors.ExceptionRenderer(
        structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    )
    colors = is_terminal and not os.environ.get("NO_COLOR")
    plain = structlog.dev.ConsoleRenderer(
        colors=colors, pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
    )
    compact = structlog.processors.JSONRenderer(ensure_ascii=False, separators=(",", ":"))
    rendering: list[structlog.typing.Processor] = [tracebacks, compact] if log_format == "json" else [plain]
    row = None if log_format == "json" else partial(pretty_access_line, colors=colors)
    handler = _Handler(target, worker_id, row)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    handlers = [logging.NullHandler() if target is None else handler]
    logging.basicConfig(handlers=handlers, level=level, force=True)
    # We write access lines ourselves, without query strings.
    logging.getLogger("uvicorn.access").disabled = True
    # It tells at INFO what it is made of.
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
    # At DEBUG these two log headers and bodies.
    for name in ("urllib3", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.getLevelName(level), logging.INFO))


class _Handler(logging.StreamHandler[TextIO]):
    """Writes log records and, by a shorter way, access lines.

    An access line is written for every request. structlog and `logging` would take ten times as long for it.

    Args:
        worker_id: Added to every access line, unless empty.
        pretty: Writes access lines for people, given the local time; None writes JSON.
    """

    def __init__(
        self,
        stream: TextIO | None,
        worker_id: str,
        pretty: Callable[[Mapping[str, object], datetime], str] | None,
    ) -> None:
        super().__init__(stream)
        self._constant: dict[str, object] = {"worker": worker_id} if worker_id else {}
        self._pretty = pretty

    def write_access_line(self, fields: dict[str, object]) -> None:
        """Write a line, or lose it: a full disk or a path that is not UTF-8 must not fail a request."""
        fields["timestamp"] = datetime.now(UTC)
        fields |= self._constant
        try:
            pretty = self._pretty
            line = _json(fields).decode() if pretty is None else pretty(fields, datetime.now().astimezone())
            with self.lock or nullcontext():
                self.stream.write(f"{line}\n")
                self.stream.flush()
        except (OSError, ValueError):
            pass


class AccessLog:
    """Writes one line per request, when it is over.

    Args:
        name: The name of the logger, whose level decides which lines are written.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def open(self, method: str, path: str, request_id: str) -> dict[str, object]:
        """Begin the running request's line and make it the current `access_fields`."""
        line: dict[str, object] = {
            "event": "request",
            "request_id": request_id,
            "method": method,
            "path": path,
            "status": None,
            "ms": None,
        }
        access_fields.set(line)
        return line

    def close(self, line: dict[str, object], status: int | None, seconds: float, level: int) -> None:
        """Write the line.

        Args:
            line: What `open` has returned.
            status: The HTTP status; None if nothing was answered.
            seconds: From the request's arrival to the end of its answer.
            level: `logging.INFO` or `logging.DEBUG`.
        """
        if not self._logger.isEnabledFor(level):
            return
        line["status"] = status
        line["ms"] = round(seconds * 1000, 1)
        line["level"] = "info" if level == logging.INFO else "debug"
        line["logger"] = self._logger.name
        for handler in self._logger.root.handlers:
            if isinstance(handler, _Handler):
                handler.write_access_line(line)


def _with_request_id(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Add the running request's id."""
    if (fields := access_fields.get(None)) is not None:
        event.setdefault("request_id", fields["request_id"])
    return event


def _with_worker(worker_id: str) -> structlog.typing.Processor:
    def add(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["worker"] = worker_id
        return event

    return add


def log_call(record: CallRecord) -> None:
    """Add the outcome of a call to its request's access line."""
    fields = access_fields.get({})
    # One by one, for speed: `update` would make a dictionary of them first.
    fields["model"] = record.model
    fields["provider"] = record.provider
    fields["outcome"] = record.outcome
    fields["error"] = record.error_code
    fields["session"] = record.session
    fields["session_action"] = record.action
    fields["prompt_size"] = record.prompt_size
    fields["dropped"] = record.dropped
    fields["upstream_ms"] = None if record.upstream_seconds is None else round(record.upstream_seconds * 1000)
    if record.reason:
        fields.update(reason=record.reason, server=record.server or None)
    if record.passed_over:
        fields["passed_over"] = [f"{provider}={reason}" for provider, reason in record.passed_over]
    if record.usage is not None:
        fields["prompt_tokens"] = record.usage.prompt_tokens
        fields["completion_tokens"] = record.usage.completion_tokens


class _Everybody(Container[str]):
    """Has everybody's id."""

    def __contains__(self, _: object) -> bool:
        return True


class TextLog:
    """Logs the prompt and the answer of each call as a line of their own: for debugging, if the operator asks for it.

    See `TextTaker`.
    """

    callers: Final = _Everybody()

    def take_texts(self, texts: CallTexts) -> None:
        """Write the line of a call that was sent to an upstream."""
        if texts.prompt is not None:
            structlog.get_logger("kimi.texts").debug("texts", prompt=texts.prompt.text, answer=texts.answer.text)
