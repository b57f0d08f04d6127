"""The way of CloudEvents: what their producers say of them is checked, kept and stored.

    request ── mode ── attributes ── type ── data: size, decode, validate ── handle ── append
                                                                  │
                                                                  └── seen before: answered

From the data on it is the way that `pipeline.py` draws for every event; here it is one for
single events and for those of a batch, each of which may be of another type.

This module must not know sockets or files.

Source: CloudEvents 1.0.2: JSON event format, HTTP protocol binding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ingest.batch import Batch, Fault, fault_members
from ingest.cloudevents import (
    escaped,
    lead_of,
)
from ingest.codec import DecodeError, one_line, split_array
from ingest.connection import Exchange
from ingest.dedupe import Claim, event_digest
from ingest.dedupe_records import event_member
from ingest.errors import IngestError
from ingest.handling import Rejected
from ingest.journal.record import LINE_END, LINE_START, time_text
from ingest.pipeline_batches import YIELD_EVENTS
from ingest.pipeline_cloudevents_held import DATA_POINTER, Many, Refused, Sent, Single
from ingest.pipeline_cloudevents_reading import Reading
from ingest.pipeline_dedupe_batches import REPLAYED
from ingest.rejected import Reason
from ingest.routes import not_atomic

if TYPE_CHECKING:
    from ingest.handling import Handling
    from ingest.journal import Journal
    from ingest.metrics import Metrics
    from ingest.metrics_cells import Cell
    from ingest.pool import WorkPool
    from ingest.refusing import Refusing
    from ingest.responder import Responder
    from ingest.routes_cloudevents import CloudEventRouter
    from ingest.settings import Settings

_DATA = b',"data":'


class CloudEvents:
    """Works on requests with CloudEvents.

    Args:
        settings: how many events and faults.
        journal: where accepted events go.
        responder: answers.
        metrics: counters; those of each type hang on its `Target`.
        refusing: the ways out.
        handling: runs handlers.
        decode: bytes to value.
        encode: value to the bytes to store; None where the producer's own are.
        coded: comes first where the body has a content coding.
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
        encode: Callable[[Any], bytes] | None,
        coded: Callable[[Exchange], None],
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._responder = responder
        self._metrics = metrics
        self._refusing = refusing
        self._handling = handling
        self._ids = journal.id_source
        self._decode = decode
        self._encode = encode
        self.coded = coded
        self.pool: WorkPool  # set by the pipeline
        self._reading = Reading(settings.errors_max, decode, encode is None)

    def settings_changed(self) -> None:
        """Take over what was derived from the settings."""
        self._reading.errors_max = self._settings.errors_max

    # -- the three modes ---------------------------------------------------------------

    def binary(self, exchange: Exchange) -> None:
        """Attributes in header fields; the body is the data."""
        self._metrics.request_bytes.value += len(exchange.body)
        self._one(exchange, self._reading.from_request_fields)

    def structured(self, exchange: Exchange) -> None:
        """All of one event as a JSON object."""
        self._metrics.request_bytes.value += len(exchange.body)
        self._one(exchange, self._reading.from_body)

    def batched(self, exchange: Exchange) -> None:
        """An array of such objects."""
        body = exchange.body
        self._metrics.request_bytes.value += len(body)
        if not body:
            self._refusing.refuse(exchange, IngestError("empty_body"))
            return
        try:
            values = self._decode(body)
        except DecodeError as error:
            self._refusing.malformed(exchange, error)
            return
        most = self._settings.batch_events_max
        if not isinstance(values, list):
            unfit = IngestError("not_a_batch", "The body is not a JSON array.")
            self._refusing.refuse(exchange, unfit)
        elif len(values) > most:
            unfit = IngestError("batch_too_large", f"At most {most} events.")
            self._refusing.refuse(exchange, unfit)
        else:
            raws = split_array(body) if self._encode is None else [b""] * len(values)
            exchange.body = b""
            work = partial(self._many, raws=raws, values=values)
            if any(target and target.handler for target in map(exchange.plan.router.known, values)):
                self.pool.spawn(work, exchange)
            else:
                work(exchange)

    # -- one event ---------------------------------------------------------------------

    def _one(self, exchange: Exchange, read: Callable[[Exchange], Sent]) -> None:
        try:
            sent = read(exchange)
        except Refused as refused:
            self._refuse_one(exchange, refused)
            return
        plan, principal = exchange.plan, exchange.plan.principal
        router: CloudEventRouter = plan.router
        try:
            sent = sent._replace(target=router.own(sent.target, principal))
        except IngestError as error:
            self._refusing.refuse(exchange, error)
            return
        exchange.body = b""
        exchange.plan = router.of_type(sent.target, principal)
        if sent.target.handler is not None and plan.target.handler is None:
            # Until now nobody knew that it needs a greenlet of its own.
            self.pool.spawn(partial(self._store, sent=sent), exchange)
        else:
            self._store(exchange, sent)

    def _store(self, exchange: Exchange, sent: Sent) -> None:
        event_id = sent.event.id
        held = Single(exchange, event_id, self._stored_one)
        try:
            self._judge(sent, self._settings.errors_max)
            digest = self._digest(sent)
            if digest is not None:
                found = held.take(sent.target.dedupe.window, digest)
                if isinstance(found, Claim):
                    found.waiters.append(partial(self._first_is, exchange, event_id))
                    return
                if found is not None:
                    self._replay(exchange, event_id)
                    return
            exchange.context = held
            line, stored_id = self._line(exchange, sent, digest)
        except Refused as refused:
            self._refuse_one(exchange, refused)
            return
        held.name(stored_id)
        try:
            sent.target.append(line, 1, exchange, sent.target.sync)
        except IngestError as error:
            self._refusing.refuse(exchange, error)

    def _refuse_one(self, exchange: Exchange, refused: Refused) -> None:
        if refused.target is not None:
            exchange.plan = exchange.plan.router.of_type(refused.target, exchange.plan.principal)
        cell = refused.count()
        if cell is not None:
            cell.value += 1
        self._keep(exchange, refused)
        self._refusing.refuse(exchange, refused.error)

    def _keep(self, exchange: Exchange, refused: Refused) -> None:
        target = refused.target
        # What should have been signed and is not leaves nothing behind.
        if target is not None and target.keeps_rejected and target.webhook is None:
            self._refusing.keep_as(exchange, target, refused.raw, refused.reason, refused.event)

    def _stored_one(self, exchange: Exchange, event_id: str) -> None:
        exchange.plan.target.accepted.value += 1
        self._responder.send(exchange, 202, b'{"accepted":1,"id":"%s"}\n' % escaped(event_id))
        self.pool.release()

    def _first_is(self, exchange: Exchange, event_id: str, error: IngestError | None) -> None:
        """The first event with the key of this exchange is stored, or is not."""
        if error is None:
            self._replay(exchange, event_id)
        else:
            self._refusing.refuse(exchange, error)

    def _replay(self, exchange: Exchange, event_id: str) -> None:
        """It came before: answer as the first was."""
        exchange.plan.target.dedupe.hits.value += 1
        body = b'{"accepted":1,"id":"%s"}\n' % escaped(event_id)
        self._responder.send(exchange, 202, body, headers=REPLAYED)
        self.pool.release()

    # -- many events -------------------------------------------------------------------

    def _many(self, exchange: Exchange, raws: Sequence[bytes], values: Sequence[Any]) -> None:
        plan = exchange.plan
        batch = Batch(self._settings.errors_max, len(raws))
        held = exchange.context = Many(exchange, batch, self._finish_many)
        try:
            lines = self._lines(held, raws, values)
            if held.error is not None:  # what came first failed while the others were looked at
                raise held.error
            if batch.rejected and (plan.atomic or batch.rejected == batch.size):
                self._refusing.batch(exchange, batch)
                return
            if lines:
                self._append(held, lines)
        except Refused as refused:
            self._keep(exchange, refused)
            self._refusing.refuse(exchange, refused.error)
            return
        except IngestError as error:
            self._refusing.refuse(exchange, error)
            return
        if not lines:
            held.less()  # there is no commit to wait for

    def _append(self, held: Many, lines: list[bytes]) -> None:
        """Give the lines of a batch to the journal, or to what some of its types have instead.

        Raises:
            IngestError: none was taken.
        """
        sync = any(target.sync for target in held.accepted)
        remote = next((t.remote for t in held.accepted if t.remote is not None), None)
        if remote is None:
            self._journal.append(b"".join(lines), len(lines), held.exchange, sync)
            return
        if held.exchange.plan.atomic:
            raise not_atomic(remote.route.name)
        entries = [
            (target.remote, line[:-1]) for (_, target), line in zip(held.placed, lines, strict=True)
        ]
        remote.append_all(entries, held.exchange, sync)

    def _lines(self, held: Many, raws: Sequence[bytes], values: Sequence[Any]) -> list[bytes]:
        """The lines of the events that are good; what is wrong with the others is noted.

        Raises:
            Refused: the handler of one of them failed; none is stored then.
        """
        exchange, batch = held.exchange, held.batch
        lines: list[bytes] = []
        counts: list[Cell] = []
        for index, (raw, value) in enumerate(zip(raws, values, strict=True)):
            if index and not index % YIELD_EVENTS:
                self.pool.yield_turn()
            try:
                sent = self._reading.from_json(raw, value, exchange.plan.router)
                sent = self._of_sender(exchange, sent)
                line = self._new(held, sent)
            except Refused as refused:
                if refused.whole:
                    error = refused.error
                    members = {**error.extensions, "index": index}
                    refused.error = IngestError(error.code, error.detail, extensions=members)
                    raise
                batch.refused(index, refused.faults, refused.reason.faults)
                counts.append(refused.count() or exchange.plan.router.any_type.rejected_schema)
                self._keep(exchange, refused)
            else:
                batch.ids[index] = escaped(sent.event.id)
                if line is None:
                    held.duplicates[sent.target] += 1
                else:
                    held.accepted[sent.target] += 1
                    held.placed.append((index, sent.target))
                    lines.append(line)
        for cell in counts:
            cell.value += 1
        return lines

    def _of_sender(self, exchange: Exchange, sent: Sent) -> Sent:
        """An event of a batch as one of who sent it.

        Raises:
            Refused: those may not be sent; then none of the batch is stored.
        """
        try:
            target = exchange.plan.router.own(sent.target, exchange.plan.principal)
        except IngestError as error:
            reason = Reason("schema", "/type", error.code, error.detail)
            raise Refused(error, reason, whole=True) from None
        return sent._replace(target=target)

    def _new(self, held: Many, sent: Sent) -> bytes | None:
        """The line of an event of a batch; None if it came before.

        Raises:
            Refused
        """
        self._judge(sent, held.batch.room)
        digest = self._digest(sent)
        if digest is None:
            return self._line(held.exchange, sent, None)[0]
        if held.take(sent.target.dedupe.window, digest):
            return None
        try:
            line, stored_id = self._line(held.exchange, sent, digest)
        except Refused:
            held.give_back(digest)
            raise
        held.name(digest, stored_id)
        return line

    def _finish_many(self, held: Many) -> None:
        batch, exchange = held.batch, held.exchange
        if held.error is not None:
            self._refusing.refuse(exchange, held.error)
            return
        for target, count in held.accepted.items():
            target.accepted.value += count
        for target, count in held.duplicates.items():
            target.dedupe.hits.value += count
        self._responder.send(
            exchange,
            207 if batch.rejected else 202,
            batch.answer(exchange.plan.list_ids, held.duplicates.total()),
            headers=REPLAYED if held.duplicates and not held.accepted else None,
        )
        self.pool.release()

    # -- what its type says ------------------------------------------------------------

    def _judge(self, sent: Sent, list_max: int) -> None:
        """See whether the data matches its schema.

        Args:
            list_max: faults to list.

        Raises:
            Refused
        """
        if not sent.target.is_valid(sent.value):
            explained: tuple[Sequence[tuple[str, str, str]], int] = ([], 1)
            if list_max > 0:  # explaining costs 100 times the verdict
                explained = sent.target.validator.explain(sent.value, list_max)
            raise self._violation(sent, *explained)

    def _digest(self, sent: Sent) -> bytes | None:
        """Of what tells that the event came before; None where nothing does.

        Raises:
            Refused: it needs a key and has none.
        """
        event, target, raw, value = sent
        keys = target.dedupe
        if keys is None:
            return None
        if keys.by == "cloudevents":
            return event_digest(target.name, event.source, event.id)
        if keys.by == "pointer":
            digest: bytes | None = keys.digest_of(value)
            if digest is None and keys.required:
                raise self._violation(sent, *keys.explain(value, 1))
            return digest
        if keys.required:
            message = f"Events of the type {target.name} are taken with an Idempotency-Key only."
            raise Refused(
                IngestError("idempotency_key_required", f"{message} Send them to their own call."),
                Reason("schema", "", "dedupe", message),
                target=target,
                raw=raw,
                event=event,
            )
        return None

    def _line(self, exchange: Exchange, sent: Sent, digest: bytes | None) -> tuple[bytes, bytes]:
        """Handle an event; returns its line and our id of it.

        Args:
            digest: of its key, which stands in the line.

        Raises:
            Refused
        """
        event, target, raw, value = sent
        if target.handler is not None:
            raw = self._handled(exchange, sent)
        elif self._encode is not None:
            raw = self._encode(value)
        if 10 in raw or 13 in raw:
            raw = one_line(raw)
        stored_id = self._ids.next()  # behind the handler, so that ids are in the lines' order
        self._responder.request_id(exchange, stored_id)
        lead = lead_of(
            event, stored_id, time_text(self._ids.ms), target.dataschema, target.producer
        )
        key = b"" if digest is None else event_member(digest)
        parts = (LINE_START, escaped(event.id), lead, key, _DATA, raw, LINE_END)
        return b"".join(parts), stored_id

    def _violation(
        self, sent: Sent, explained: Sequence[tuple[str, str, str]], total: int
    ) -> Refused:
        faults = [(DATA_POINTER + pointer, keyword, text) for pointer, keyword, text in explained]
        first = faults[0] if faults else (DATA_POINTER, "", "It does not match the schema.")
        members = fault_members([Fault(-1, *fault) for fault in faults], total)
        return Refused(
            IngestError("schema_violation", f"{first[0]}: {first[2]}", extensions=members),
            Reason("schema", *first, max(1, total)),
            faults=faults,
            target=sent.target,
            raw=sent.raw,
            event=sent.event,
        )

    def _handled(self, exchange: Exchange, sent: Sent) -> bytes:
        """Run the type's handler; returns the data to store.

        Raises:
            Refused
        """
        event, target, raw, value = sent
        self._responder.request_id(exchange)  # not the producer's id, which may be any text
        try:
            return self._handling.replace(exchange, target, value, event.id.encode(), raw)
        except Rejected as unwanted:
            reason = Reason("handler", DATA_POINTER + unwanted.pointer, "handler", unwanted.reason)
            members = fault_members([Fault(-1, *reason[1:4])], 1)
            error: IngestError = IngestError("rejected", unwanted.reason, extensions=members)
            whole = False
        except IngestError as failed:
            reason = Reason("handler_error", "", "handler", str(failed))
            error, whole = failed, True
        raise Refused(error, reason, target=target, raw=raw, event=event, whole=whole)
