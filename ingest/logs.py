"""Structured logging of the whole process: who logs what, and where it goes.

    structlog ─┐
    stdlib ────┼→ levels and handlers of logging.yaml → EventFormatter → LogWriter → stderr
    warnings ──┘                                                       ↑
    access log ────────────────────────────────────────────────────────┘

Every line has `timestamp`, `level`, `event`, `logger`, `service` and `worker`, and what
`structlog.contextvars` hold for the current greenlet (`request_id`). Logging is
process-wide in Python, so this module has one current writer.

Native threads should hand what they have to say to the event loop's thread: stdlib
logging has locks of its own, which the patching has made greenlet locks.
"""

from __future__ import annotations

import atexit
import logging
import logging.config
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ingest.logs_access import AccessLog
from ingest.logs_errors import install_hub_error_handler, install_thread_error_handlers
from ingest.logs_loggers import configure_structlog, get_logger
from ingest.logs_render import EventFormatter, clean, json_line, timestamp
from ingest.logs_writer import LogWriter

if TYPE_CHECKING:
    from ingest.metrics import Metrics

__all__ = [
    "DEFAULT_CONFIG",
    "AccessLog",
    "EventFormatter",
    "LogConfigError",
    "LogHandler",
    "LogWriter",
    "configure",
    "formatter",
    "get_logger",
    "install_hub_error_handler",
    "install_thread_error_handlers",
]

#: What applies without a logging.yaml; the shipped file says the same.
DEFAULT_CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"event": {"()": "ingest.logs.formatter"}},
    "handlers": {"writer": {"class": "ingest.logs.LogHandler", "formatter": "event"}},
    "root": {"level": "INFO", "handlers": ["writer"]},
}

#: How long the end of the process waits for lines, if nobody stopped the writer before.
EXIT_FLUSH_SECONDS = 1.0


class LogConfigError(Exception):
    """The logging configuration cannot be used; the message names the file and why."""


class _Current:
    """The process's writer: stdlib logging is process-wide, so is this."""

    writer: LogWriter | None = None


class LogHandler(logging.Handler):
    """Hands rendered records to the log writer; the handler that logging.yaml names."""

    def createLock(self) -> None:
        """No lock: nothing here is shared, and waiting for one could switch greenlets."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """As the inherited one, without taking the lock that there is not."""
        kept = bool(self.filter(record))
        if kept:
            self.emit(record)
        return kept

    def emit(self, record: logging.LogRecord) -> None:
        """Render and queue one record; never blocks."""
        writer = _Current.writer
        if writer is not None:
            writer.count(record.levelname.lower())
            writer.write(clean(self.format(record)).encode() + b"\n")


def formatter(style: str = "auto") -> EventFormatter:
    """The formatter that logging.yaml names.

    Args:
        style: `json`, `console`, or `auto`: console on a terminal, otherwise JSON.

    Raises:
        ValueError: another style, or `configure` was not called.
    """
    writer = _Current.writer
    if writer is None or style not in ("auto", "json", "console"):
        raise ValueError(f"style must be auto, json or console, not {style!r}")
    console = writer.console if style == "auto" else style == "console"
    return EventFormatter(writer.service, writer.worker, console, writer.colors)


def configure(
    log_config: Path | None,
    *,
    service: str = "ingest",
    worker: int | None = 0,
    queue_max: int = 10_000,
    metrics: Metrics | None = None,
    fd: int = 2,
) -> LogWriter:
    """Set logging up for this process; called again, it replaces what was there.

    Args:
        log_config: a YAML file with a stdlib `dictConfig`; None for the built-in one.
        service: names this program in every line.
        worker: number of this worker in every line; None for the supervisor of several.
        queue_max: most entries that wait to be written.
        metrics: counts lines by level and those lost.
        fd: descriptor the lines go to, by default stderr.

    Returns:
        the writer; `stop` it last of all at shutdown.

    Raises:
        LogConfigError: the file cannot be read, or is no such configuration.
    """
    config = DEFAULT_CONFIG if log_config is None else read_config(log_config)
    terminal = os.isatty(fd)
    writer = LogWriter(
        fd,
        queue_max=queue_max,
        report=lambda lines: _lost_line(service, worker, lines),
        service=service,
        worker=worker,
        console=terminal,
        # https://no-color.org: any value but the empty one
        colors=terminal and not os.environ.get("NO_COLOR"),
        metrics=metrics,
    )
    before, _Current.writer = _Current.writer, writer
    try:
        logging.config.dictConfig(config)
    except (ValueError, TypeError, AttributeError, ImportError) as error:
        _Current.writer = before
        reason = f"{error} ({error.__cause__})" if error.__cause__ else str(error)
        raise LogConfigError(f"{log_config}: {reason}") from error
    if before is not None:
        before.stop(EXIT_FLUSH_SECONDS)
    # Errors inside logging itself would be printed, past the writer.
    logging.raiseExceptions = False
    logging.captureWarnings(True)
    configure_structlog()
    return writer


def read_config(path: Path) -> dict[str, Any]:
    """Read a logging configuration.

    Raises:
        LogConfigError: the file cannot be read or is not a mapping in YAML.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LogConfigError(f"{path}: {error}") from error
    if not isinstance(config, dict):
        raise LogConfigError(f"{path}: must be a mapping (a dictConfig), see docs/logging.md")
    # dictConfig's own default would turn off every logger that a module made at import.
    return {"disable_existing_loggers": False, **config}


def _lost_line(service: str, worker: int | None, lines: int) -> bytes:
    event = {
        "timestamp": timestamp(time.time()),
        "level": "warning",
        "event": "logs.lines_dropped",
        "logger": __name__,
        "service": service,
        "worker": worker,
        "lines": lines,
    }
    return json_line(event).encode() + b"\n"


def _stop_at_exit() -> None:
    if _Current.writer is not None:
        _Current.writer.stop(EXIT_FLUSH_SECONDS)


atexit.register(_stop_at_exit)
