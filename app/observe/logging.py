"""Logs: one line for each request, structured, without keys, nonces or, unless somebody asks for them, texts."""

import logging
import logging.config
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal, TextIO

import msgspec
import structlog

from app.domain.usage import CallRecord

_encode = msgspec.json.Encoder(enc_hook=str).encode
LogFormat = Literal["json", "pretty"]

# What the line of the running request will say. The request's context opens it; whoever learns something adds to it.
# One object for all tasks of a request, so that what a child task adds is seen by the one that writes the line.
access_fields: ContextVar[dict[str, object]] = ContextVar("access_fields")


def configure(level: str, log_format: LogFormat, stream: TextIO | None = None, *, worker_id: str = "") -> None:
    """Send all logs of the process, ours and the libraries', to `stream` (stderr if None) in one format.

    Args:
        worker_id: In every line, if there are several workers.
    """
    shared: list[structlog.typing.Processor] = [
        _with_request_id,
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
    target = stream or sys.stderr  # None where stderr is closed
    colors = target is not None and target.isatty()
    plain = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
    compact = structlog.processors.JSONRenderer(ensure_ascii=False, separators=(",", ":"))
    rendering: list[structlog.typing.Processor] = [tracebacks, compact] if log_format == "json" else [plain]
    handler = _Handler(target, worker_id, None if log_format == "json" else plain)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    handlers = [logging.NullHandler() if target is None else handler]
    logging.basicConfig(handlers=handlers, level=level, force=True)
    # One line for each request is enough, and this one has query strings in it.
    logging.getLogger("uvicorn.access").disabled = True
    # These two tell about connections and requests at a level of detail that includes headers and bodies.
    for name in ("urllib3", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.getLevelName(level), logging.INFO))


class _Handler(logging.StreamHandler[TextIO]):
    """Writes access lines past all that `logging` does for a line: there is one for each request.

    Args:
        worker_id: In every line, if there are several workers.
        pretty: Renders them for people; None writes JSON.
    """

    def __init__(self, stream: TextIO | None, worker_id: str, pretty: structlog.typing.Processor | None) -> None:
        super().__init__(stream)
        self._constant: dict[str, object] = {"worker": worker_id} if worker_id else {}
        self._pretty = pretty

    def write_access_line(self, fields: dict[str, object]) -> None:
        """Write it, if that can be done: a full disk, or a name that is no UTF-8, keeps nobody from an answer."""
        fields["timestamp"] = datetime.now(UTC)
        fields |= self._constant
        self.acquire()
        try:
            self.stream.write(self._rendered(fields))
            self.stream.flush()
        except (OSError, ValueError):
            pass
        finally:
            self.release()

    def _rendered(self, fields: dict[str, object]) -> str:
        if self._pretty is None:
            return f"{_encode(fields).decode()}\n"
        return str(self._pretty(None, "", msgspec.to_builtins(fields))) + "\n"


class AccessLog:
    """Writes a line for each request that is over.

    Args:
        name: The name of the logger whose level counts.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def open(self, method: str, path: str, request_id: str) -> dict[str, object]:
        """The line of the running request, for `access_fields`."""
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
        """Write it."""
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
    """Every line that is logged while a request runs has its id."""
    if (fields := access_fields.get(None)) is not None:
        event.setdefault("request_id", fields["request_id"])
    return event


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
