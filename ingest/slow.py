"""The slow-request log: one line for each request that took too long, with where the time went.

    started ── wait ──▶ slot ── pool ──▶ begun ── work ──▶ done ── commit ──▶ answered
              in line          in queue        decode, check, handle      write, fdatasync

Off, none of this module is in the way of a request: the service is then built without it.
On, each stage notes the time on the exchange. What has not happened has no phase: a refusal is
answered within its work, what is answered from memory has none at all.

How long a request took to arrive is not part of it: its clients' networks decide that, and the
time limits for it have metrics of their own.

This module must not know sockets, JSON or the journal.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from time import monotonic
from typing import Any

from ingest.connection import Exchange
from ingest.logs import get_logger
from ingest.pipeline_runs import RUN_EVENTS
from ingest.responder import Responder

log = get_logger(__name__)

#: Most lines in one second; further ones are counted, and the next line says how many.
LINES_PER_SECOND = 50

#: What lies between each two moments that are noted, beginning with the request's last byte.
PHASES = ("wait_seconds", "pool_seconds", "work_seconds", "commit_seconds")

Work = Callable[[Any], None]


class Stages:
    """Puts the noting of times around the stages of the pool."""

    def submit(self, submit: Work) -> Work:
        """Around what hands an exchange, which holds a slot, to the resident greenlets."""

        def noting(exchange: Exchange) -> None:
            exchange.times = [monotonic()]
            submit(exchange)

        return noting

    def spawn(self, spawn: Callable[[Work, Any], None]) -> Callable[[Work, Any], None]:
        """Around what runs an exchange's work in a greenlet of its own."""

        def noting(run: Work, exchange: Exchange) -> None:
            exchange.times = [monotonic()]
            spawn(self.process(run), exchange)

        return noting

    def process(self, process: Work) -> Work:
        """Around the work on one exchange."""

        def noting(exchange: Exchange) -> None:
            times = exchange.times
            times.append(monotonic())
            try:
                process(exchange)
            finally:
                times.append(monotonic())

        return noting

    def together(
        self, together: Callable[[deque[Exchange]], int]
    ) -> Callable[[deque[Exchange]], int]:
        """Around the work on several that wait at the same time; see `Runs.take`."""

        def noting(work: deque[Exchange]) -> int:
            begun, before = monotonic(), len(work)
            first = list(islice(work, RUN_EVENTS))
            singly = together(work)
            done = before - len(work)
            if done:
                ended = monotonic()
                left = set(map(id, islice(work, singly)))
                for exchange in first[: done + singly]:
                    if id(exchange) not in left:
                        exchange.times += (begun, ended)
            return singly

        return noting


class SlowResponder(Responder):
    """A responder that also says which answers took longer than `slow_request_seconds`."""

    _second = 0
    _lines = 0
    _suppressed = 0

    def accepted(self, exchanges: Sequence[Exchange]) -> None:
        """As the inherited one."""
        super().accepted(exchanges)
        now = monotonic()
        limit = self._settings.slow_request_seconds
        for exchange in exchanges:
            if now - exchange.started > limit:
                self._log(exchange, 202, now)

    def _account(self, exchange: Exchange, status: int, size: int, request_id: str) -> None:
        super()._account(exchange, status, size, request_id)
        now = monotonic()
        slow = now - exchange.started > self._settings.slow_request_seconds
        if slow and not exchange.plan.alone:  # how long those take is their clients' choice
            self._log(exchange, status, now)

    def _log(self, exchange: Exchange, status: int, now: float) -> None:
        started = exchange.started
        exchange.started = math.inf  # each is judged once
        if int(now) != self._second:
            self._second, self._lines = int(now), 0
        self._lines += 1
        if self._lines > LINES_PER_SECOND:
            self._suppressed += 1
            return
        context = exchange.context
        if not exchange.request_id and type(context) is bytes:
            exchange.request_id = context.decode()  # it was answered with the event's id
        about: dict[str, Any] = self.about(exchange)
        if self._suppressed:
            about["suppressed"], self._suppressed = self._suppressed, 0
        log.warning(
            "http.slow_request",
            method=exchange.head.method,
            target=exchange.head.target,
            status=status,
            duration_seconds=round(now - started, 6),
            **phases(started, getattr(exchange, "times", ()), now),
            **about,
        )


def phases(started: float, times: Sequence[float], answered: float) -> dict[str, float]:
    """Seconds of each phase that there was.

    Args:
        started: when the request was complete.
        times: when it got its slot, when its work began, when that was done; as far as it got.
        answered: when its answer was on its way.
    """
    moments = [started, *times[: len(PHASES) - 1], answered]
    if len(moments) == 2:
        return {}
    return {
        name: round(later - earlier, 6)
        for name, earlier, later in zip(PHASES, moments, moments[1:], strict=False)
    }
