"""The way of many events in one request: one pass, one append, one answer.

Each event goes the way that `pipeline.py` draws for one. This module must not know sockets
or files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ingest.batch import Batch, split_lines
from ingest.codec import DecodeError, dumps, one_line, split_array
from ingest.connection import Exchange
from ingest.errors import IngestError
from ingest.handling import Handling, Rejected
from ingest.journal.record import LINE_END, LINE_START, lines_of
from ingest.refusing import Refusing
from ingest.rejected import Reason

if TYPE_CHECKING:
    from ingest.journal import Journal
    from ingest.metrics import Metrics
    from ingest.pool import WorkPool
    from ingest.responder import Responder
    from ingest.routes import Target
    from ingest.settings import Settings

#: Events of one batch between two turns of the event loop: about half a millisecond.
YIELD_EVENTS = 256
#: Events that are judged and joined at a time.
TOGETHER_EVENTS = 128


class Batches:
    """Works on requests of many events.

    Args:
        settings: how many events and faults.
        journal: where accepted events go.
        responder: answers.
        metrics: counters; those of each type hang on its `Target`.
        refusing: the ways out.
        handling: runs handlers.
        decode: bytes to value.
        decode_many: many at once, where each is good; None where that cannot be done.
        encode: value to the bytes to store; None where the producer's own are.
        middle: the part of a line between id and data.
    """

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        responder: Responder,
        metrics: Metrics,
        refusing: Refusing,
        handling: Handling,
        decode: Callable[[bytes], Any],
        decode_many: Callable[[Sequence[bytes]], list[Any] | None] | None,
        encode: Callable[[Any], bytes] | None,
        middle: Callable[[Exchange, Target], bytes],
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._responder = responder
        self._metrics = metrics
        self._refusing = refusing
        self._handling = handling
        self._ids = journal.id_source
        self._decode = decode
        self._decode_many = decode_many
        self._encode = encode
        self._middle = middle
        self.pool: WorkPool  # set by the pipeline

    def lines(self, exchange: Exchange) -> None:
        """NDJSON: one event a line; empty lines are passed over."""
        body = exchange.body
        self._metrics.request_bytes.value += len(body)
        if not body:
            self._refusing.refuse(exchange, IngestError("empty_body"))
            return
        limit = self._settings.batch_events_max
        lines = split_lines(body, limit)
        if lines is None:
            self._refuse_too_many(exchange)
        else:
            self._batch(exchange, lines, None)

    def _refuse_too_many(self, exchange: Exchange) -> None:
        limit = self._settings.batch_events_max
        self._refusing.refuse(exchange, IngestError("batch_too_large", f"At most {limit} events."))

    def array(self, exchange: Exchange) -> None:
        """A JSON array: one event an element, each stored with the bytes it was sent in."""
        body = exchange.body
        self._metrics.request_bytes.value += len(body)
        if not body:
            self._refusing.refuse(exchange, IngestError("empty_body"))
            return
        target = exchange.plan.target
        if target.typed is not None and target.typed.accepts_array(body):
            raws = split_array(body)
            longest = max(map(len, raws), default=0)
            if 0 < len(raws) <= self._settings.batch_events_max and (
                longest <= target.event_max_bytes
            ):
                self._judged(exchange, raws)
                return
        try:
            values = self._decode(body)
        except DecodeError as error:
            self._refusing.malformed(exchange, error)
            return
        if not isinstance(values, list):
            self._refusing.refuse(
                exchange, IngestError("not_a_batch", "The body is not a JSON array.")
            )
            return
        if len(values) > self._settings.batch_events_max:
            self._refuse_too_many(exchange)
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
            self._refusing.refuse(exchange, error)
            return
        batch.count(plan.target)
        exchange.context = batch
        accepted = len(raws) - batch.rejected
        if batch.rejected and (plan.atomic or not accepted):
            self._refusing.batch(exchange, batch)
        elif not accepted:
            self._responder.send(exchange, 202, batch.answer(plan.list_ids))
            self.pool.release()
        else:
            self._append(exchange, lines, accepted)

    def _judged(self, exchange: Exchange, raws: Sequence[bytes]) -> None:
        """Store the events of a batch that are known to be good, all of them."""
        exchange.body = b""
        exchange.context = batch = Batch(self._settings.errors_max, len(raws))
        lines = []
        for start in range(0, len(raws), TOGETHER_EVENTS):
            if start and not start % YIELD_EVENTS:
                self.pool.yield_turn()
            some = raws[start : start + TOGETHER_EVENTS]
            lines.append(self._joined(exchange, batch, start, some, b"".join(some)))
        self._append(exchange, lines, len(raws))

    def _append(self, exchange: Exchange, lines: list[bytes], count: int) -> None:
        """Give the lines of a batch to the journal; `exchange.context` is the batch."""
        try:
            target = exchange.plan.target
            target.append(b"".join(lines), count, exchange, target.sync)
        except IngestError as error:
            self._refusing.refuse(exchange, error)

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
        lines: list[bytes] = []
        simple = exchange.plan.target.handler is None and self._encode is None
        for start in range(0, len(raws), TOGETHER_EVENTS):
            if start and not start % YIELD_EVENTS:
                self.pool.yield_turn()
            end = start + TOGETHER_EVENTS
            some = raws[start:end]
            some_values = values[start:end] if values is not None else None
            together = self._all_good(exchange, batch, start, some, some_values) if simple else None
            if together is not None:
                lines.append(together)
            else:
                lines += self._one_by_one(exchange, batch, start, some, some_values)
        return lines

    def _all_good(
        self,
        exchange: Exchange,
        batch: Batch,
        start: int,
        raws: Sequence[bytes],
        values: Sequence[Any] | None,
    ) -> bytes | None:
        """The lines of some events of a batch, worked on together.

        Returns:
            None when that cannot be, or one of them is at fault; then nothing was done.
        """
        target = exchange.plan.target
        text = b"".join(raws)
        if len(text) > target.event_max_bytes < max(map(len, raws)):
            return None
        if values is not None or target.typed is None or not target.typed.accepts(raws):
            if values is None:
                values = self._decode_many(raws) if self._decode_many is not None else None
            if values is None or not all(map(target.is_valid, values)):
                return None
        return self._joined(exchange, batch, start, raws, text)

    def _joined(
        self, exchange: Exchange, batch: Batch, start: int, raws: Sequence[bytes], text: bytes
    ) -> bytes:
        """The lines of good events, with new ids, which are noted in the batch.

        Args:
            text: all of them joined.
        """
        ids = self._ids.run(len(raws))
        batch.stored_as(start, ids)
        if 13 in text or 10 in text:
            raws = [one_line(raw) for raw in raws]
        return lines_of(ids, self._middle(exchange, exchange.plan.target), raws)

    def _one_by_one(
        self,
        exchange: Exchange,
        batch: Batch,
        start: int,
        raws: Sequence[bytes],
        values: Sequence[Any] | None,
    ) -> list[bytes]:
        """The lines of those of some events that are good; what is wrong with the others is
        noted in the batch."""
        target = exchange.plan.target
        decode, is_valid, encode = self._decode, target.is_valid, self._encode
        next_id, middle_of, handler = self._ids.next, self._middle, target.handler
        event_max_bytes = target.event_max_bytes
        keeps, keep = target.keeps_rejected, self._refusing.keep
        ids = batch.ids
        lines: list[bytes] = []
        for index, raw in enumerate(raws, start):
            if len(raw) > event_max_bytes:
                batch.too_large(index, len(raw), event_max_bytes)
                if keeps:
                    message = f"{len(raw)} bytes; at most {event_max_bytes}"
                    keep(exchange, raw, Reason("too_large", "", "max_event_bytes", message))
                continue
            try:
                value = decode(raw) if values is None else values[index - start]
            except DecodeError as error:
                batch.malformed(index, error)
                if keeps:
                    keep(exchange, raw, Reason("malformed", "", "json", error.message))
                continue
            if not is_valid(value):
                fault = batch.violation(index, target.validator, value)
                if keeps:
                    keep(exchange, raw or dumps(value), Reason("schema", *fault[1:]))
                continue
            event_id = next_id()
            if handler is not None:
                try:
                    raw = self._handling.replace(exchange, target, value, event_id, raw)
                except Rejected as rejected:
                    batch.handler_rejected(index, rejected.pointer, rejected.reason)
                    if keeps:
                        why = Reason("handler", rejected.pointer, "handler", rejected.reason)
                        keep(exchange, raw or dumps(value), why)
                    continue
                except IngestError as error:
                    if keeps:
                        why = Reason("handler_error", "", "handler", str(error))
                        keep(exchange, raw or dumps(value), why)
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
