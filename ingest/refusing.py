"""The ways out of the pipeline for what is refused: answer it, give its slot back.

Nothing of a refused exchange is stored. This module must not know the journal of accepted
events, sockets or files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ingest.batch import Batch, Fault, fault_members
from ingest.codec import DecodeError
from ingest.connection import Exchange
from ingest.dedupe import Held
from ingest.errors import IngestError
from ingest.handling import Rejected
from ingest.rejected import Reason

if TYPE_CHECKING:
    from ingest.cloudevents import CloudEvent
    from ingest.pool import WorkPool
    from ingest.rejected import RejectedEvents
    from ingest.responder import Responder
    from ingest.routes import Target
    from ingest.settings import Settings


def malformed_json(error: DecodeError) -> IngestError:
    """What a decoder refused, as an answer."""
    detail = f"{error.message} at line {error.line}, column {error.column}."
    members = {"line": error.line, "column": error.column, "excerpt": error.excerpt}
    return IngestError("malformed_json", detail, extensions=members)


class Refusing:
    """Refuses exchanges.

    Args:
        settings: how many faults are listed.
        responder: answers.
        rejected: keeps the events of types that want it; None when no type does.
    """

    def __init__(
        self, settings: Settings, responder: Responder, rejected: RejectedEvents | None
    ) -> None:
        self._settings = settings
        self._responder = responder
        self.rejected = rejected
        self.pool: WorkPool  # set by the pipeline: slots are given back to it

    def refuse(self, exchange: Exchange, error: IngestError) -> None:
        """Answer an error and give the slot back; nothing of the request is stored."""
        error = self.explained(error)
        exchange.body = b""
        held = exchange.context
        self._responder.problem(exchange, error)
        self.pool.release()
        if isinstance(held, Held):
            held.dropped(error)

    def keep(self, exchange: Exchange, raw: bytes, reason: Reason) -> None:
        """Put an event of a type that wants it into the rejected journal."""
        self.keep_as(exchange, exchange.plan.target, raw, reason, None)

    def keep_as(
        self,
        exchange: Exchange,
        target: Target,
        raw: bytes,
        reason: Reason,
        event: CloudEvent | None,
    ) -> None:
        """The same for an event of a type of its own, with the attributes it came with."""
        if self.rejected is not None:
            request_id = self._responder.request_id(exchange)
            self.rejected.keep(exchange, target, raw, reason, request_id, event)

    def handler(self, exchange: Exchange, raw: bytes, error: IngestError) -> None:
        """The type's handler did not want the event, or failed."""
        target = exchange.plan.target
        unwanted = isinstance(error, Rejected)
        if unwanted:
            target.rejected_handler.value += 1
        if target.keeps_rejected:
            pointer = error.pointer if isinstance(error, Rejected) else ""
            code = "handler" if unwanted else "handler_error"
            self.keep(exchange, raw, Reason(code, pointer, "handler", str(error)))
        self.refuse(exchange, error)

    def explained(self, error: IngestError) -> IngestError:
        """An error with a Retry-After where it may pass."""
        if error.status in (503, 507) and "Retry-After" not in error.headers:
            return self.retryable(error)
        return error

    def retryable(self, error: IngestError) -> IngestError:
        """The same error with a Retry-After."""
        headers = {**error.headers, "Retry-After": self._responder.retry_after()}
        return IngestError(error.code, error.detail, headers=headers)

    def malformed(self, exchange: Exchange, error: DecodeError) -> None:
        """The body is not JSON."""
        target = exchange.plan.target
        target.rejected_malformed.value += 1
        if target.keeps_rejected:
            self.keep(exchange, exchange.body, Reason("malformed", "", "json", error.message))
        self.refuse(exchange, malformed_json(error))

    def size(self, exchange: Exchange, target: Target, size: int) -> None:
        """The event has no bytes at all, or too many."""
        if not size:
            self.refuse(exchange, IngestError("empty_body", "An event is a JSON document."))
            return
        target.rejected_too_large.value += 1
        limit = target.event_max_bytes
        if target.keeps_rejected:
            message = f"{size} bytes; at most {limit}"
            self.keep(exchange, exchange.body, Reason("too_large", "", "max_event_bytes", message))
        self.refuse(exchange, IngestError("event_too_large", f"{size} bytes; at most {limit}."))

    def violation(self, exchange: Exchange, target: Target, value: Any) -> None:
        """The event does not match its schema."""
        target.rejected_schema.value += 1
        explained, total = target.validator.explain(value, self._settings.errors_max)
        faults = [Fault(-1, *fault) for fault in explained]
        detail = f"{faults[0].pointer or 'the event'}: {faults[0].message}" if faults else ""
        members = fault_members(faults, total)
        if target.keeps_rejected:
            pointer, keyword, message = faults[0][1:] if faults else ("", "", detail)
            self.keep(exchange, exchange.body, Reason("schema", pointer, keyword, message, total))
        self.refuse(exchange, IngestError("schema_violation", detail, extensions=members))

    def batch(self, exchange: Exchange, batch: Batch) -> None:
        """None of the batch is stored: none was good, or it is atomic and one was not."""
        detail = f"{batch.rejected} of {batch.size} events are at fault; none was stored."
        members = {
            "accepted": 0,
            "rejected": batch.size,
            **fault_members(batch.faults, batch.faults_total),
        }
        self.refuse(exchange, IngestError("schema_violation", detail, extensions=members))
