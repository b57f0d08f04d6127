"""Single events that wait at the same time are worked on together.

Under load the pool's queue holds many requests whenever one of its greenlets gets to run.
Those with the same plan are decoded, checked and appended by a few calls for all of them,
which costs a third less than each by itself. Whatever is not plain (a document that is no
JSON, a large one, a decoder that rewrites) is left to `Pipeline.event`, one by one; that is
also where every refusal is made.

This module must not know sockets or files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from ingest.codec import one_line
from ingest.connection import Exchange
from ingest.errors import IngestError
from ingest.journal.record import LINE_END, LINE_START

if TYPE_CHECKING:
    from ingest.journal.record import IdSource
    from ingest.metrics import Metrics
    from ingest.refusing import Refusing
    from ingest.routes import Target

#: As many at most hold the event loop up at a time; more would gain nothing.
RUN_EVENTS = 64
#: A longer body costs so much itself that it is not worth while.
RUN_BODY_BYTES = 8192

_BETWEEN_LINES = LINE_END + LINE_START


class Runs:
    """Takes runs of requests off the pool's queue.

    Args:
        ids: makes ids of events.
        metrics: counters.
        refusing: answers when the journal takes none.
        decode_list: see `codec.make_list_decoder`.
        middle: the part of a line between id and data.
        event: how a request is worked on alone; only plans that run this are taken.
    """

    def __init__(
        self,
        ids: IdSource,
        metrics: Metrics,
        refusing: Refusing,
        decode_list: Callable[[Sequence[bytes], bytes], list[Any] | None] | None,
        middle: Callable[[Exchange, Target], bytes],
        event: Callable[[Exchange], None],
    ) -> None:
        self._metrics = metrics
        self._refusing = refusing
        self._decode_list = decode_list
        self._middle = middle
        self._event = event
        self._ids = ids

    def take(self, work: deque[Exchange]) -> int:
        """Do the first pieces of work together, if they lend themselves to that.

        Nothing happens in between: no other greenlet runs before this returns.

        Args:
            work: what waits, at least two pieces; those that are done are taken off it.

        Returns:
            how many of what is first now are to be done one by one.
        """
        first = work[0]
        plan = first.plan
        if self._decode_list is None or plan.run != self._event:
            return 1
        target = plan.target
        limit = min(target.event_max_bytes, RUN_BODY_BYTES)
        run = []
        bodies = []
        for exchange in islice(work, RUN_EVENTS):
            body = exchange.body
            if exchange.plan is not plan or not exchange.head.cacheable:
                break
            if not 0 < len(body) <= limit:
                break
            run.append(exchange)
            bodies.append(body)
        if len(run) < 2:
            return 1
        text = b"".join(bodies)
        taken = len(run)
        wrong = []
        if target.typed is None or not target.typed.accepts(bodies):
            values = self._decode_list(bodies, text)
            if values is None:
                return taken
            verdicts = list(map(target.is_valid, values))
            if False in verdicts:
                wrong = [e for e, good in zip(run, verdicts, strict=True) if not good]
                run = [e for e, good in zip(run, verdicts, strict=True) if good]
                bodies = [exchange.body for exchange in run]
        if 10 in text or 13 in text:
            bodies = list(map(one_line, bodies))
        ids = self._ids.take(len(run)) if run else []
        between = self._middle(first, target)
        parts = [event_id + between + body for event_id, body in zip(ids, bodies, strict=True)]
        lines = b"%b%b%b" % (LINE_START, _BETWEEN_LINES.join(parts), LINE_END)
        # Up to here it could fail, and each would be tried by itself.
        if taken == len(work):
            work.clear()
        else:
            for _ in range(taken):
                work.popleft()
        work.extendleft(reversed(wrong))
        if run:
            self._append(target, run, ids, lines)
        return len(wrong)

    def _append(self, target: Target, run: list[Exchange], ids: list[bytes], lines: bytes) -> None:
        """Give valid events to the journal."""
        size = 0
        for exchange, event_id in zip(run, ids, strict=True):
            size += len(exchange.body)
            exchange.body = b""
            exchange.context = event_id
        self._metrics.request_bytes.value += size
        try:
            target.append_each(lines, run, target.sync)
        except IngestError as error:
            for exchange in run:
                exchange.context = None
                self._refusing.refuse(exchange, error)
