"""Errors that ended a greenlet or a thread and that nobody caught: logged and counted.

Without this they are printed to stderr as text, past the log writer, which blocks the
event loop when nobody reads stderr.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gevent.exceptions import HubDestroyed

from ingest.logs_loggers import get_logger

if TYPE_CHECKING:
    from gevent.hub import Hub

    from ingest.metrics import Metrics

log = get_logger("ingest.errors")


def install_hub_error_handler(hub: Hub, metrics: Metrics) -> None:
    """Log and count what greenlets and callbacks of this hub raise and nobody catches.

    GreenletExit and SystemExit are no errors, and KeyboardInterrupt is the user's wish:
    neither is counted. What the hub does about an error stays as it was.

    Args:
        hub: of the thread that serves.
        metrics: `unhandled_errors{where="hub"}` counts them.
    """
    original = hub.handle_error

    def handle_error(context: Any, kind: Any, value: Any, trace: Any) -> None:
        kind = type(value) if kind is None else kind
        if issubclass(kind, HubDestroyed):
            original(context, kind, value, trace)
            return
        if not issubclass(kind, (*hub.NOT_ERROR, KeyboardInterrupt)):
            metrics.unhandled_errors.cell("hub").value += 1
            error = value if isinstance(value, BaseException) else kind(value)
            _log("hub.unhandled_error", error, trace, context=context)
        if context is None or issubclass(kind, hub.SYSTEM_ERROR):
            hub.handle_system_error(kind, value, trace)

    hub.handle_error = handle_error  # type: ignore[assignment, method-assign]


def install_thread_error_handlers(metrics: Metrics) -> Callable[[], None]:
    """Log and count what threads and finalisers raise and nobody catches.

    Args:
        metrics: `unhandled_errors` with `where` `thread` or `finaliser` counts them.

    Returns:
        puts the handlers back that were there before.
    """
    before = threading.excepthook, sys.unraisablehook

    def thread_error(args: Any) -> None:
        if issubclass(args.exc_type, SystemExit):
            return
        metrics.unhandled_errors.cell("thread").value += 1
        _log("thread.unhandled_error", args.exc_value, args.exc_traceback, context=args.thread)

    def finaliser_error(args: Any) -> None:
        metrics.unhandled_errors.cell("finaliser").value += 1
        _log(
            "finaliser.unhandled_error",
            args.exc_value,
            args.exc_traceback,
            context=args.object,
            message=args.err_msg,
        )

    def undo() -> None:
        threading.excepthook, sys.unraisablehook = before

    threading.excepthook, sys.unraisablehook = thread_error, finaliser_error
    return undo


def _log(event: str, error: Any, trace: Any, **data: Any) -> None:
    log.error(event, exc_info=(type(error), error, trace), **data)
