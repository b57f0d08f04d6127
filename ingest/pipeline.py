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

import re
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ingest.batch import Batch, Fault, fault_members, split_lines
from ingest.codec import DecodeError, dumps, make_decoder, make_encoder, one_line, split_array
from ingest.connection import Exchange
from ingest.errors import IngestError, Reject
from ingest.handlers.event import Event
from ingest.handlers.runner import HandlerFailed, HandlerTimeout, run_handler
from ingest.inflating import Inflater
from ingest.journal.record import LINE_END, LINE_START, middle, time_text

if TYPE_CHECKING:
    from ingest.journal import Journal
    from ingest.metrics import Metrics
    from ingest.pool import WorkPool
    from ingest.responder import Responder
    from ingest.routes import Target
    from ingest.settings import Settings

#: Events of one batch between two turns of the event loop: about a millisecond.
YIELD_EVENTS = 256

#: W3C Trace Context section 3.2: version ff and all-zero ids are invalid.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)


class Pipeline:
    """Takes exchanges from decode to commit.

    Args:
        settings: sizes, decoder, handler time limit.
        journal: where accepted events go; it calls `committed` back.
        responder: answers.
        metrics: counters; those of each type hang on its `Target`.
    """

    def __init__(
        self, settings: Settings, journal: Journal, responder: Responder, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._journal = journal
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
        self.pool: WorkPool  # set by the service: the pool's work is this object's

    def process(self, exchange: Exchange) -> None:
        """Do the work of one exchange; called by the pool."""
        exchange.plan.run(exchange)

    def coded(self, exchange: Exchange) -> None:
        """A body with a content coding is inflated, then goes the way of one without."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._inflater.inflated(exchange, self.pool.yield_turn))
            except IngestError as error:
                self._refuse(exchange, error)
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
            self._refuse_size(exchange, target, len(body))
            return
        try:
            value = self._decode(body)
        except DecodeError as error:
            target.rejected_malformed.value += 1
            self._refuse(exchange, _malformed(error))
            return
        if not target.is_valid(value):
            self._refuse_violation(exchange, target, value)
            return
        event_id = self._ids.next()
        if target.handler is not None:
            try:
                body = self._handled(exchange, target, value, event_id, body)
            except IngestError as error:
                if isinstance(error, Rejected):
                    target.rejected_handler.value += 1
                self._refuse(exchange, error)
                return
        elif self._encode is not None:
            body = self._encode(value)
        if 10 in body or 13 in body:  # LF, CR; an int is found seven times as fast as bytes
            body = one_line(body)
        line = b"".join((LINE_START, event_id, self._middle(exchange, target), body, LINE_END))
        exchange.body = b""
        exchange.context = event_id
        try:
            self._journal.append(line, 1, exchange, target.sync)
        except IngestError as error:
            self._refuse(exchange, error)

    def _middle(self, exchange: Exchange, target: Target) -> bytes:
        """The part of the line between id and data; made once a millisecond and type."""
        ms = self._ids.ms
        if target.middle_ms != ms:
            target.middle = middle(self._source, target.name, time_text(ms), target.dataschema)
            target.middle_ms = ms
        if exchange.head.cacheable:  # heads with fields of one request only are not
            return target.middle
        traceparent = exchange.head.headers.get("traceparent")
        if traceparent is not None and _TRACEPARENT.fullmatch(traceparent):
            return middle(self._source, target.name, time_text(ms), target.dataschema, traceparent)
        return target.middle

    # -- handlers -----------------------------------------------------------------------

    def _handled(
        self, exchange: Exchange, target: Target, value: Any, event_id: bytes, body: bytes
    ) -> bytes:
        """Run the type's handler; returns the bytes to store.

        Raises:
            IngestError: the handler rejected the event, failed, took too long, or
                returned something that does not match the schema.
        """
        event = Event(
            data=value,
            id=event_id.decode(),
            type=target.name,
            time=time_text(self._ids.ms),
            headers=exchange.head.headers,
            request_id=self._responder.request_id(exchange, event_id),
        )
        try:
            replacement = run_handler(
                target.handler, event, self._settings.handler_timeout_seconds, self._metrics
            )
        except Reject as rejected:
            raise Rejected(rejected) from rejected
        except HandlerTimeout as late:
            raise IngestError("handler_timeout", str(late)) from late
        except HandlerFailed as failed:
            raise IngestError("handler_error") from failed
        if replacement is None:
            return body if self._encode is None else self._encode(value)
        return self._replacement(target, replacement)

    def _replacement(self, target: Target, replacement: Any) -> bytes:
        """The bytes of what a handler returned, checked as an event is."""
        try:
            raw = dumps(replacement)
            value = self._decode(raw)
        except (TypeError, ValueError, OverflowError) as error:
            self._metrics.handler_errors.cell(target.name).value += 1
            raise IngestError(
                "handler_error", f"The handler returned something that is not JSON: {error}"
            ) from error
        if not target.is_valid(value):
            self._metrics.handler_errors.cell(target.name).value += 1
            faults, total = target.validator.explain(value, self._settings.errors_max)
            raise IngestError(
                "handler_error",
                "What the handler returned does not match the schema.",
                extensions=fault_members([Fault(-1, *fault) for fault in faults], total),
            )
        return raw

    # -- many events --------------------------------------------------------------------

    def lines(self, exchange: Exchange) -> None:
        """NDJSON: one event a line; empty lines are passed over."""
        body = exchange.body
        self._metrics.request_bytes.value += len(body)
        if not body:
            self._refuse(exchange, IngestError("empty_body"))
            return
        if self._too_many(exchange, body.count(b"\n")):
            return
        self._batch(exchange, split_lines(body), None)

    def _too_many(self, exchange: Exchange, count: int) -> bool:
        """Refuse a request of too many events before an object is made for each."""
        limit = self._settings.batch_events_max
        if count <= limit:
            return False
        self._refuse(
            exchange, IngestError("batch_too_large", f"{count} events; at most {limit} a request.")
        )
        return True

    def array(self, exchange: Exchange) -> None:
        """A JSON array: one event an element, each stored with the bytes it was sent in."""
        body = exchange.body
        self._metrics.request_bytes.value += len(body)
        if not body:
            self._refuse(exchange, IngestError("empty_body"))
            return
        try:
            values = self._decode(body)
        except DecodeError as error:
            exchange.plan.target.rejected_malformed.value += 1
            self._refuse(exchange, _malformed(error))
            return
        if not isinstance(values, list):
            self._refuse(exchange, IngestError("not_a_batch", "The body is not a JSON array."))
            return
        if self._too_many(exchange, len(values)):
            return
        raws = split_array(body) if self._encode is None else [b""] * len(values)
        self._batch(exchange, raws, values)

    def _batch(
        self, exchange: Exchange, raws: Sequence[bytes], values: Sequence[Any] | None
    ) -> None:
        exchange.body = b""
        plan = exchange.plan
        batch = Batch(self._settings.errors_max, len(raws))
        try:
            lines = self._lines_of(exchange, batch, raws, values)
        except IngestError as error:
            self._refuse(exchange, error)
            return
        batch.count(plan.target)
        exchange.context = batch
        if batch.rejected and (plan.atomic or not lines):
            self._refuse_batch(exchange, batch)
        elif not lines:
            self._responder.send(exchange, 202, batch.answer(plan.list_ids))
            self.pool.release()
        else:
            try:
                self._journal.append(b"".join(lines), len(lines), exchange, plan.target.sync)
            except IngestError as error:
                self._refuse(exchange, error)

    def _lines_of(
        self,
        exchange: Exchange,
        batch: Batch,
        raws: Sequence[bytes],
        values: Sequence[Any] | None,
    ) -> list[bytes]:
        """Check every event of a batch; returns the journal lines of the good ones.

        Raises:
            IngestError: the handler failed for one of them; then none is stored.
        """
        target = exchange.plan.target
        decode, is_valid, encode = self._decode, target.is_valid, self._encode
        next_id, middle_of, handler = self._ids.next, self._middle, target.handler
        event_max_bytes = target.event_max_bytes
        ids = batch.ids
        lines: list[bytes] = []
        for index, raw in enumerate(raws):
            if index % YIELD_EVENTS == YIELD_EVENTS - 1:
                self.pool.yield_turn()
            if len(raw) > event_max_bytes:
                batch.too_large(index, len(raw), event_max_bytes)
                continue
            try:
                value = decode(raw) if values is None else values[index]
            except DecodeError as error:
                batch.malformed(index, error)
                continue
            if not is_valid(value):
                batch.violation(index, target.validator, value)
                continue
            event_id = next_id()
            if handler is not None:
                try:
                    raw = self._handled(exchange, target, value, event_id, raw)
                except Rejected as rejected:
                    batch.handler_rejected(index, rejected.pointer, rejected.reason)
                    continue
                except IngestError as error:
                    raise IngestError(
                        error.code, error.detail, extensions={**error.extensions, "index": index}
                    ) from error
            elif encode is not None:
                raw = encode(value)
            if 10 in raw or 13 in raw:
                raw = one_line(raw)
            ids[index] = event_id
            lines.append(LINE_START + event_id + middle_of(exchange, target) + raw + LINE_END)
        return lines

    # -- answers ---------------------------------------------------------------------

    def committed(self, exchanges: list[Exchange], error: IngestError | None) -> None:
        """A commit has finished; called by the journal's committer, on the hub.

        Args:
            exchanges: those whose events it carried, in order of append.
            error: why it failed; None when the events are durable.
        """
        if error is not None:
            for exchange in exchanges:
                self._responder.problem(exchange, self._retryable(error))
        else:
            singles = []
            for exchange in exchanges:
                context = exchange.context
                if type(context) is bytes:
                    exchange.plan.target.accepted.value += 1
                    singles.append(exchange)
                else:
                    self._answer_batch(exchange, context)
            if singles:
                self._responder.accepted(singles)
        self.pool.release(len(exchanges))

    def _answer_batch(self, exchange: Exchange, batch: Batch) -> None:
        plan = exchange.plan
        plan.target.accepted.value += len(batch.ids) - batch.rejected
        status = 207 if batch.rejected else 202
        self._responder.send(exchange, status, batch.answer(plan.list_ids))

    def _retryable(self, error: IngestError) -> IngestError:
        headers = {**error.headers, "Retry-After": self._responder.retry_after()}
        return IngestError(error.code, error.detail, headers=headers)

    def _refuse(self, exchange: Exchange, error: IngestError) -> None:
        """Answer an error and give the slot back; nothing of the request is stored."""
        if error.status in (503, 507) and "Retry-After" not in error.headers:
            error = self._retryable(error)
        exchange.body = b""
        self._responder.problem(exchange, error)
        self.pool.release()

    def failed(self, exchange: Exchange, error: BaseException) -> None:
        """The pool caught what nobody expected; it is logged and counted already."""
        if exchange.answer is None:
            self._refuse(exchange, IngestError("internal_error"))

    def _refuse_size(self, exchange: Exchange, target: Target, size: int) -> None:
        if not size:
            self._refuse(exchange, IngestError("empty_body", "An event is a JSON document."))
            return
        target.rejected_too_large.value += 1
        limit = target.event_max_bytes
        self._refuse(exchange, IngestError("event_too_large", f"{size} bytes; at most {limit}."))

    def _refuse_violation(self, exchange: Exchange, target: Target, value: Any) -> None:
        target.rejected_schema.value += 1
        explained, total = target.validator.explain(value, self._settings.errors_max)
        faults = [Fault(-1, *fault) for fault in explained]
        detail = f"{faults[0].pointer or 'the event'}: {faults[0].message}" if faults else ""
        members = fault_members(faults, total)
        self._refuse(exchange, IngestError("schema_violation", detail, extensions=members))

    def _refuse_batch(self, exchange: Exchange, batch: Batch) -> None:
        """None of the batch is stored: none was good, or it is atomic and one was not."""
        detail = f"{batch.rejected} of {len(batch.ids)} events are at fault; none was stored."
        members = {
            "accepted": 0,
            "rejected": len(batch.ids),
            **fault_members(batch.faults, batch.faults_total),
        }
        self._refuse(exchange, IngestError("schema_violation", detail, extensions=members))


class Rejected(IngestError):
    """The handler's `Reject`, as an answer; a batch lists it instead."""

    def __init__(self, cause: Reject) -> None:
        fault = Fault(-1, cause.pointer, "handler", cause.reason)
        super().__init__("rejected", cause.reason, extensions=fault_members([fault], 1))
        self.pointer = cause.pointer
        self.reason = cause.reason


def _malformed(error: DecodeError) -> IngestError:
    return IngestError(
        "malformed_json",
        f"{error.message} at line {error.line}, column {error.column}.",
        extensions={"line": error.line, "column": error.column, "excerpt": error.excerpt},
    )
