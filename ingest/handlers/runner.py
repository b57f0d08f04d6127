"""Calls a handler for one event, within its time limit, and names its failures.

This module must not know requests or answers.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

import gevent

from ingest.errors import OffloadFull, Reject
from ingest.handlers.event import Event
from ingest.handlers.loader import Handler
from ingest.logs import get_logger
from ingest.metrics import Metrics

log = get_logger(__name__)


class Latest:
    """The handler that was called last, and when: who to suspect if the event loop was held."""

    handler: Handler | None = None
    called = 0.0

    @classmethod
    def read(cls) -> tuple[Handler | None, float]:
        """Both; any thread may ask."""
        return cls.handler, cls.called


class HandlerFailed(Exception):
    """The handler raised something other than Reject; it is logged already."""


class HandlerTimeout(Exception):
    """The handler did not return within its time limit; it is logged already."""


def run_handler(handler: Handler, event: Event, timeout_seconds: float, metrics: Metrics) -> Any:
    """Call `handler.handle(event)`.

    Args:
        timeout_seconds: after it, `gevent.Timeout` is raised at the handler's next
            cooperative wait. The handler's own limit goes before it.

    Returns:
        what the handler returned; None keeps the event as it is.

    Raises:
        Reject: the handler does not want the event.
        OffloadFull: what it hands to other threads or processes is too much for now.
        HandlerTimeout: it took too long.
        HandlerFailed: it raised anything else.
    """
    if handler.timeout_seconds is not None:
        timeout_seconds = handler.timeout_seconds
    started = monotonic()
    Latest.handler, Latest.called = handler, started
    timeout = gevent.Timeout(timeout_seconds)
    timeout.start()
    try:
        assert handler.handle is not None  # a type without one does not come here
        return handler.handle(event)
    except (Reject, OffloadFull):
        raise
    except gevent.Timeout as late:
        if late is not timeout:
            raise _failed(event, metrics, late) from late  # one of the handler's own
        metrics.timeouts.cell("handler").value += 1
        log.warning(
            "handler.timeout",
            type=event.type,
            request_id=event.request_id,
            timeout_seconds=timeout_seconds,
        )
        raise HandlerTimeout(f"The handler took longer than {timeout_seconds:g} s.") from late
    except Exception as error:  # logged with its traceback, counted, answered
        raise _failed(event, metrics, error) from error
    finally:
        timeout.close()
        metrics.handler_seconds.cell(event.type).observe(monotonic() - started)


def _failed(event: Event, metrics: Metrics, error: BaseException) -> HandlerFailed:
    metrics.handler_errors.cell(event.type).value += 1
    log.error("handler.failed", type=event.type, request_id=event.request_id, exc_info=error)
    return HandlerFailed(str(error))
