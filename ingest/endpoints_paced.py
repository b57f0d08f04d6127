"""Endpoints whose answer is dear get a share of the event loop's time, and no more.

Making an exposition takes milliseconds. A thousand clients that ask for it at once must not
hold up the events, and none of them may be shown an old one. So those that ask while the
share is used up wait, and then all of them get one that is made after the last of them
asked.

This module must not know what the answers are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent

from ingest.connection import Exchange
from ingest.errors import IngestError
from ingest.logs import get_logger
from ingest.metrics import Metrics
from ingest.responder import Responder

log = get_logger(__name__)

#: The endpoint may take one of so many parts of the time.
SHARE = 10
#: Most that wait; beyond it 503.
WAITING_MAX = 4096
#: Seconds after which it stops for now, though more exchanges wait; one is always answered.
SLICE_SECONDS = 0.002


class Paced:
    """An endpoint around a dear one.

    Args:
        answer: answers an exchange. The dict is the same for all that are answered with
            one making: what is costly is kept in there.
        responder: answers for it when it fails.
        metrics: where that is counted.
    """

    def __init__(
        self,
        answer: Callable[[Exchange, dict[Any, Any]], None],
        responder: Responder,
        metrics: Metrics,
    ) -> None:
        self._answer = answer
        self._responder = responder
        self._metrics = metrics
        #: who asked since the last making, and who is answered with it
        self._asking: deque[Exchange] = deque()
        self._served: deque[Exchange] = deque()
        self._made: dict[Any, Any] = {}
        self._free_at = 0.0
        self._scheduled = False

    def __call__(self, exchange: Exchange) -> None:
        """Answer now, or soon if it has had its share for now.

        Raises:
            IngestError: overloaded; too many wait.
        """
        now = monotonic()
        if self._scheduled or now < self._free_at:
            if len(self._asking) >= WAITING_MAX:
                raise self._responder.overloaded("Too many ask for this at once.")
            self._asking.append(exchange)
            if not self._scheduled:
                self._schedule(self._free_at - now)
            return
        try:
            self._answer(exchange, {})
        finally:
            self._free_at = monotonic() + (monotonic() - now) * (SHARE - 1)

    def _schedule(self, seconds: float) -> None:
        self._scheduled = True
        gevent.spawn_later(seconds, self._work)

    def _work(self) -> None:
        began = now = monotonic()
        if not self._served:
            self._served, self._asking = self._asking, self._served
            self._made = {}
        while self._served and now - began < SLICE_SECONDS:
            exchange = self._served.popleft()
            try:
                self._answer(exchange, self._made)
            except Exception as error:
                self._metrics.unhandled_errors.cell("endpoint").value += 1
                log.error("endpoint.unhandled_error", exc_info=error)
                self._responder.problem(exchange, IngestError("internal_error"))
            now = monotonic()
        pause = (now - began) * (SHARE - 1)
        self._free_at = now + pause
        self._scheduled = False
        if self._served or self._asking:
            self._schedule(pause)
