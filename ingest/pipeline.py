"""The way of an event: decode → validate → handle → append; answered when committed.

    event ── decode ── is_valid ──(handler)── line ──▶ journal.append
                │          │          │                     │ write + fdatasync
              400 ◀──── 422 ◀──── 422/500/504               ▼
                                                   committed() ──▶ 202

Runs in greenlets of the pool: the resident ones for types without a handler, a greenlet
of its own for each request to a type with one. Data goes one way; every exchange that
enters leaves exactly once, through the responder, and gives its slot back there.

This module must not know sockets or files.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ingest.batch import Batch
from ingest.codec import (
    DecodeError,
    make_decoder,
    make_encoder,
    make_list_decoder,
    make_many_decoder,
    one_line,
)
from ingest.connection import Exchange
from ingest.dedupe import Held
from ingest.errors import IngestError
from ingest.handling import Handling
from ingest.inflating import Inflater
from ingest.journal.record import LINE_END, LINE_START, middle, time_text
from ingest.pipeline_batches import Batches
from ingest.pipeline_cloudevents import CloudEvents
from ingest.pipeline_dedupe import Deduping
from ingest.pipeline_runs import Runs
from ingest.refusing import Refusing
from ingest.tracing import traceparent_of

if TYPE_CHECKING:
    from ingest.journal import Journal
    from ingest.metrics import Metrics
    from ingest.pool import WorkPool
    from ingest.rejected import RejectedEvents
    from ingest.responder import Responder
    from ingest.routes import Target
    from ingest.settings import Settings


class Pipeline:
    """Takes exchanges from decode to commit.

    Args:
        settings: sizes, decoder, handler time limit.
        journal: where accepted events go; it calls `committed` back.
        responder: answers.
        metrics: counters; those of each type hang on its `Target`.
        rejected: keeps refused events; None when no type wants that.
    """

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        responder: Responder,
        metrics: Metrics,
        rejected: RejectedEvents | None,
    ) -> None:
        self._settings = settings
        self._responder = responder
        self._metrics = metrics
        self._ids = journal.id_source
        self._decode = make_decoder(
            settings.json_decoder, settings.json_depth_max, settings.duplicate_keys
        )
        # What a strict decoder accepted is stored as it was sent; what a lenient one
        # accepted need not be JSON, so it is encoded anew.
        self._encode = make_encoder(settings.json_decoder)
        self._inflater = Inflater(settings, metrics)
        self._source = settings.source
        self._refusing = Refusing(settings, responder, rejected)
        self._handling = Handling(
            settings, metrics, self._ids, self._decode, self._encode, responder.request_id
        )
        parts = (
            settings,
            journal,
            responder,
            metrics,
            self._refusing,
            self._handling,
            self._decode,
            make_many_decoder(
                settings.json_decoder, settings.json_depth_max, settings.duplicate_keys
            ),
            self._encode,
            self._middle,
        )
        self.batches = Batches(*parts)
        self.deduping = Deduping(*parts)
        self.cloudevents = CloudEvents(*parts[:7], self._encode, self.coded)
        self.runs = Runs(
            journal.id_source,
            metrics,
            self._refusing,
            make_list_decoder(
                settings.json_decoder, settings.json_depth_max, settings.duplicate_keys
            ),
            self._middle,
            self.event,
        )
        self.pool: WorkPool

    def attach(self, pool: WorkPool) -> None:
        """Take the pool whose work is this object's; it cannot be made before."""
        self.pool = self._refusing.pool = self.batches.pool = self.cloudevents.pool = pool
        self.deduping.attach(pool)

    def settings_changed(self) -> None:
        """Take over what was derived from the settings."""
        self._inflater.bound(self._settings)
        self.cloudevents.settings_changed()

    def keep_rejected(self, rejected: RejectedEvents) -> None:
        """Keep refused events of types that want it, now that there is one."""
        self._refusing.rejected = rejected

    def refuse(self, exchange: Exchange, error: IngestError) -> None:
        """Answer an exchange that was refused before it came here; its slot is given back."""
        self._refusing.refuse(exchange, error)

    def process(self, exchange: Exchange) -> None:
        """Do the work of one exchange; called by the pool."""
        exchange.plan.run(exchange)

    def coded(self, exchange: Exchange) -> None:
        """A body with a content coding is inflated, then goes the way of one without."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._inflater.inflated(exchange, self.pool.yield_turn))
            except IngestError as error:
                self._refusing.refuse(exchange, error)
            else:
                exchange.plan.way(exchange)

    # -- one event ------------------------------------------------------------------

    def event(self, exchange: Exchange) -> None:
        """One JSON document is one event."""
        plan = exchange.plan
        target = plan.target
        body = exchange.body
        self._metrics.request_bytes.value += len(body)
        if len(body) > target.event_max_bytes or not body:
            self._refusing.size(exchange, target, len(body))
            return
        value = None
        if target.typed is None or not target.typed.accepts((body,)):
            try:
                value = self._decode(body)
            except DecodeError as error:
                self._refusing.malformed(exchange, error)
                return
            if not target.is_valid(value):
                self._refusing.violation(exchange, target, value)
                return
        event_id = self._ids.next()
        if target.handler is not None:
            try:
                body = self._handling.replace(exchange, target, value, event_id, body)
            except IngestError as error:
                self._refusing.handler(exchange, exchange.body, error)
                return
        elif self._encode is not None:
            body = self._encode(value)
        if 10 in body or 13 in body:  # LF, CR; an int is found seven times as fast as bytes
            body = one_line(body)
        if target.middle_ms == self._ids.ms and exchange.head.cacheable:
            between = target.middle
        else:
            between = self._middle(exchange, target)
        line = b"".join((LINE_START, event_id, between, body, LINE_END))
        exchange.body = b""
        exchange.context = event_id
        try:
            target.append(line, 1, exchange, target.sync)
        except IngestError as error:
            self._refusing.refuse(exchange, error)

    def _middle(self, exchange: Exchange, target: Target) -> bytes:
        """The part of the line between id and data; made once a millisecond and type."""
        ms = self._ids.ms
        if target.middle_ms != ms:
            target.middle = middle(
                self._source, target.name, time_text(ms), target.dataschema, None, target.producer
            )
            target.middle_ms = ms
        if exchange.head.cacheable:  # heads with fields of one request only are not
            return target.middle
        traceparent = traceparent_of(exchange.head.headers)
        if traceparent is not None:
            schema, producer = target.dataschema, target.producer
            time = time_text(ms)
            return middle(self._source, target.name, time, schema, traceparent, producer)
        return target.middle

    # -- answers ---------------------------------------------------------------------

    def committed(self, exchanges: list[Exchange], error: IngestError | None) -> None:
        """A commit has finished; called by the journal's committer, on the hub.

        Args:
            exchanges: those whose events it carried, in order of append.
            error: why it failed; None when the events are durable.
        """
        elsewhere = 0  # how many of them somebody else answers and gives the slot of back
        if error is not None:
            for exchange in exchanges:
                self._responder.problem(exchange, self._refusing.explained(error))
                if isinstance(exchange.context, Held):
                    exchange.context.dropped(error)
        else:
            singles = [exchange for exchange in exchanges if type(exchange.context) is bytes]
            for exchange in exchanges if len(singles) < len(exchanges) else ():
                context = exchange.context
                if type(context) is bytes:
                    continue
                if isinstance(context, Batch):
                    self._answer_batch(exchange, context)
                elif (event_id := context.stored()) is not None:
                    exchange.context = event_id
                    singles.append(exchange)
                else:
                    elsewhere += 1
            if singles:
                self._responder.accepted(singles)
        self.pool.release(len(exchanges) - elsewhere)

    def partly(self, exchange: Exchange, failures: Mapping[int, IngestError]) -> None:
        """Of a request of many events some are not durable, and the others are.

        Args:
            failures: why, by their number among those that were accepted.
        """
        exchange.context.not_stored(failures)
        self.committed([exchange], None)

    def _answer_batch(self, exchange: Exchange, batch: Batch) -> None:
        plan = exchange.plan
        plan.target.accepted.value += batch.size - batch.rejected
        status = 207 if batch.rejected else 202
        self._responder.send(exchange, status, batch.answer(plan.list_ids))

    def failed(self, exchange: Exchange, error: BaseException) -> None:
        """The pool caught what nobody expected; it is logged and counted already."""
        if exchange.answer is None:
            self._refusing.refuse(exchange, IngestError("internal_error"))
