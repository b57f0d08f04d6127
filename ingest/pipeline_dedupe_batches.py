"""Many events in one request, for types with `x-ingest.dedupe`.

This module must not know sockets or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ingest.batch import Batch
from ingest.codec import DecodeError, dumps
from ingest.connection import Exchange
from ingest.dedupe_records import event_member, with_members
from ingest.errors import IngestError
from ingest.pipeline_batches import Batches
from ingest.pipeline_dedupe_held import Events, Request, now_ms
from ingest.rejected import Reason

if TYPE_CHECKING:
    from ingest.routes import Target

#: Marks an answer that was given before.
REPLAYED = {"Idempotency-Replayed": "true"}


class RequestBatches(Batches):
    """Batches with an Idempotency-Key: as all others, but for the key in the first line."""

    def _batch(
        self, exchange: Exchange, raws: Sequence[bytes], values: Sequence[Any] | None
    ) -> None:
        exchange.body = b""
        plan = exchange.plan
        held: Request = exchange.context
        batch = Batch(self._settings.errors_max, len(raws))
        try:
            lines = self._lines_of(exchange, batch, raws, values)
            batch.count(plan.target)
            accepted = len(raws) - batch.rejected
            if batch.rejected and (plan.atomic or not accepted):
                self._refusing.batch(exchange, batch)
            elif not accepted:  # nothing is stored, so nothing can be stored twice
                held.give_up()
                self._responder.send(exchange, 202, batch.answer(plan.list_ids))
                self.pool.release()
            else:
                whole_max_bytes = self._settings.dedupe_answer_max_bytes
                member = held.member(batch, plan.list_ids, whole_max_bytes)
                lines[0] = with_members(lines[0], member)
                self._journal.append(b"".join(lines), accepted, exchange, plan.target.sync)
        except IngestError as error:
            self._refusing.refuse(exchange, error)


class EventBatches(Batches):
    """Batches whose events have keys of their own."""

    def _batch(
        self, exchange: Exchange, raws: Sequence[bytes], values: Sequence[Any] | None
    ) -> None:
        exchange.body = b""
        plan = exchange.plan
        target = plan.target
        batch = Batch(self._settings.errors_max, len(raws))
        held = Events(exchange, batch, target.dedupe.window, self._finish)
        exchange.context = held
        try:
            lines = self._lines_of(exchange, batch, raws, values)
            if held.error is not None:  # what it refers to failed while it was looked at
                raise held.error
            batch.count(target)
            if batch.rejected and (plan.atomic or batch.rejected == batch.size):
                self._refusing.batch(exchange, batch)
                return
            if lines:
                self._journal.append(b"".join(lines), len(lines), exchange, target.sync)
        except IngestError as error:
            self._refusing.refuse(exchange, error)
            return
        if not lines:
            held.less()  # there is no commit to wait for

    def _finish(self, held: Events) -> None:
        exchange, batch = held.exchange, held.batch
        if held.error is not None:
            self._refusing.refuse(exchange, held.error)
            return
        target = exchange.plan.target
        accepted = batch.size - batch.rejected
        target.accepted.value += accepted - held.duplicates
        target.dedupe.hits.value += held.duplicates
        self._responder.send(
            exchange,
            207 if batch.rejected else 202,
            batch.answer(exchange.plan.list_ids, held.duplicates),
            headers=REPLAYED if accepted and held.duplicates == accepted else None,
        )
        self.pool.release()

    def _all_good(self, *_: Any) -> None:
        """Each event has a key of its own, so they are worked on one by one."""

    def _one_by_one(
        self,
        exchange: Exchange,
        batch: Batch,
        start: int,
        raws: Sequence[bytes],
        values: Sequence[Any] | None,
    ) -> list[bytes]:
        """Look at the key of each event first; those that are new go the way of all others."""
        keys = exchange.plan.target.dedupe
        held: Events = exchange.context
        now = now_ms()
        lines: list[bytes] = []
        for index, raw in enumerate(raws, start):
            good = self._good(exchange.plan.target, raw, values, index - start)
            digest = keys.digest_of(good[0]) if good is not None else None
            if good is not None and digest is None and keys.required:
                self._without_key(exchange, batch, index, raw, good[0])
                continue
            if digest is not None and held.take(digest, index, now):
                continue
            given = good if good is not None or values is None else [values[index - start]]
            made = super()._one_by_one(exchange, batch, index, [raw], given)
            if digest is None:
                lines += made
            elif made:
                held.name(digest, index)
                lines.append(with_members(made[0], event_member(digest)))
            else:
                held.give_back(digest)
        return lines

    def _good(
        self, target: Target, raw: bytes, values: Sequence[Any] | None, at: int
    ) -> tuple[Any] | None:
        """An event's value; None when it will be refused, which is not seen to here."""
        if len(raw) > target.event_max_bytes:
            return None
        try:
            value = self._decode(raw) if values is None else values[at]
        except DecodeError:
            return None
        return (value,) if target.is_valid(value) else None

    def _without_key(
        self, exchange: Exchange, batch: Batch, index: int, raw: bytes, value: Any
    ) -> None:
        target = exchange.plan.target
        fault = batch.violation(index, target.dedupe, value)
        if target.keeps_rejected:
            self._refusing.keep(exchange, raw or dumps(value), Reason("schema", *fault[1:]))
