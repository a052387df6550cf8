"""Logs: one line for each request, structured, without keys, nonces or, unless somebody asks for them, texts."""

import json
import logging
import logging.config
import sys
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import structlog

from app.domain.usage import CallRecord

_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode
LogFormat = Literal["json", "pretty"]

# What the line of the running request will say. The request's context opens it; whoever learns something adds to it.
# One object for all tasks of a request, so that what a child task adds is seen by the one that writes the line.
access_fields: ContextVar[MutableMapping[str, object]] = ContextVar("access_fields")


def configure(level: str, log_format: LogFormat, stream: TextIO | None = None, *, worker_id: str = "") -> None:
    """Send all logs of the process, ours and the libraries', to `stream` (stderr if None) in one format.

    Args:
        worker_id: In every line, if there are several workers.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if worker_id:
        shared.append(_with_worker(worker_id))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    # Tracebacks without the values of variables: those hold keys, nonces and texts.
    tracebacks = structlog.processors.ExceptionRenderer(
        structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    )
    plain = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
    rendering: list[structlog.typing.Processor] = (
        [tracebacks, structlog.processors.JSONRenderer(ensure_ascii=False)] if log_format == "json" else [plain]
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        _Formatter(
            worker_id,
            None if log_format == "json" else plain,
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # One line for each request is enough, and this one has query strings in it.
    logging.getLogger("uvicorn.access").disabled = True
    # These two tell about connections and requests at a level of detail that includes headers and bodies.
    for name in ("urllib3", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.getLevelName(level), logging.INFO))


class _AccessLine(dict[str, object]):
    """What is said about a request, on its way to the formatter."""


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Formats access lines by itself: there is one for each request, and most of them say that all went well.

    Args:
        worker_id: In every line, if there are several workers.
        pretty: Renders them for people; None writes JSON.
    """

    def __init__(self, worker_id: str, pretty: structlog.typing.Processor | None, **options: Any) -> None:
        super().__init__(**options)
        self._constant: dict[str, object] = {"worker": worker_id} if worker_id else {}
        self._pretty = pretty

    def format(self, record: logging.LogRecord) -> str:
        """One line, or more for an exception."""
        if not isinstance(record.msg, _AccessLine):
            return super().format(record)
        line: dict[str, object] = {
            **record.msg,
            "event": "request",
            "level": record.levelname.lower(),
            "logger": record.name,
            "timestamp": f"{datetime.fromtimestamp(record.created, UTC).isoformat(timespec='microseconds')[:-6]}Z",
            **self._constant,
        }
        return _encode(line) if self._pretty is None else str(self._pretty(None, "", line))


def log_access(fields: Mapping[str, object], *, level: int = logging.INFO) -> None:
    """Write the line of a request that is over."""
    log = logging.getLogger("kimi.access")
    if log.isEnabledFor(level):
        log.handle(logging.LogRecord(log.name, level, "", 0, _AccessLine(fields), None, None))


def _with_worker(worker_id: str) -> structlog.typing.Processor:
    def add(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["worker"] = worker_id
        return event

    return add


def log_call(record: CallRecord) -> None:
    """Add what became of a call to the line of its request."""
    fields = access_fields.get({})
    fields.update(
        model=record.model,
        provider=record.provider,
        outcome=record.outcome,
        error=record.error_code,
        session=record.session,
        session_action=record.action,
        prompt_size=record.prompt_size,
        dropped=record.dropped,
        upstream_ms=None if record.upstream_seconds is None else round(record.upstream_seconds * 1000),
    )
    if record.passed_over:
        fields["passed_over"] = [f"{provider}={reason}" for provider, reason in record.passed_over]
    if record.usage is not None:
        fields.update(prompt_tokens=record.usage.prompt_tokens, completion_tokens=record.usage.completion_tokens)


def log_texts(prompt: str, answer: str) -> None:
    """What was said in a call, as a line of its own: for debugging, and only where an operator wants it."""
    structlog.get_logger("kimi.texts").debug("texts", prompt=prompt, answer=answer)
