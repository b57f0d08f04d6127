"""`setup()` and `teardown()` of handler files: once in each worker, at its start and end.

    setup of a.py, b.py, c.py … serving … teardown of c.py, b.py, a.py

When one setup fails, those before it are torn down again and the worker does not start. This
module must not know requests, the pool or what the functions do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from time import monotonic
from typing import Any

import gevent

from ingest.handlers.loader import Handler, HandlerProblem, HandlersError, describe, line_of
from ingest.logs import get_logger
from ingest.metrics import Metrics

log = get_logger(__name__)

#: What even the last teardown gets.
SHORTEST_SECONDS = 0.1


class Lifecycle:
    """Begins and ends what handlers hold: connection pools, clients, caches.

    Args:
        handlers: in the order of their setup.
        timeout_seconds: how long one setup may wait.
        metrics: counts teardowns that fail.
    """

    def __init__(
        self, handlers: Iterable[Handler], timeout_seconds: float, metrics: Metrics
    ) -> None:
        self._handlers = list(handlers)
        self._timeout = timeout_seconds
        self._metrics = metrics
        self._begun: list[Handler] = []

    def setup(self) -> None:
        """Call every `setup()`; blocks.

        Raises:
            HandlersError: one raised or took too long; nothing is left set up.
        """
        for handler in self._handlers:
            try:
                _call(handler.setup, self._timeout)
            except _TooLong:
                self._undo(handler, 0, f"setup() took longer than {self._timeout:g} s")
            except Exception as error:  # reported with its file and line
                log.error("handler.setup_failed", handler=handler.type, exc_info=error)
                line = line_of(error, Path(handler.file))
                self._undo(handler, line, f"setup() failed: {describe(error)}", error)
            self._begun.append(handler)

    def _undo(
        self, handler: Handler, line: int, message: str, cause: Exception | None = None
    ) -> None:
        self.teardown(self._timeout)
        raise HandlersError([HandlerProblem(handler.file, line, message)]) from cause

    def teardown(self, timeout_seconds: float) -> None:
        """Call `teardown()` of whatever was set up, the last one first; never raises.

        Args:
            timeout_seconds: for all of them together; those that are left then get a moment.
        """
        deadline = monotonic() + timeout_seconds
        while self._begun:
            handler = self._begun.pop()
            left = max(SHORTEST_SECONDS, deadline - monotonic())
            try:
                _call(handler.teardown, left)
            except _TooLong:
                self._failed(handler)
                log.warning("handler.teardown_timeout", handler=handler.type, timeout_seconds=left)
            except Exception as error:  # the others have to end as well
                self._failed(handler)
                log.error("handler.teardown_failed", handler=handler.type, exc_info=error)

    def _failed(self, handler: Handler) -> None:
        self._metrics.handler_errors.cell(handler.type).value += 1


class _TooLong(Exception):
    """A function did not return in time."""


def _call(function: Callable[[], Any] | None, timeout_seconds: float) -> None:
    if function is None:
        return
    timeout = gevent.Timeout(timeout_seconds)
    timeout.start()
    try:
        function()
    except gevent.Timeout as late:
        if late is not timeout:
            raise RuntimeError(f"gevent.Timeout: {late}") from late  # one of its own
        raise _TooLong from late
    finally:
        timeout.close()
