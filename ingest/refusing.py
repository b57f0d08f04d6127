"""The ways out of the pipeline for what is refused: answer it, give its slot back.

Nothing of a refused exchange is stored. This module must not know the journal of accepted
events, sockets or files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ingest.batch import Batch, Fault, fault_members
from ingest.codec import DecodeError
from ingest.connection import Exchange
from ingest.errors import IngestError

if TYPE_CHECKING:
    from ingest.pool import WorkPool
    from ingest.responder import Responder
    from ingest.routes import Target
    from ingest.settings import Settings


class Refusing:
    """Refuses exchanges.

    Args:
        settings: how many faults are listed.
        responder: answers.
    """

    def __init__(self, settings: Settings, responder: Responder) -> None:
        self._settings = settings
        self._responder = responder
        self.pool: WorkPool  # set by the pipeline: slots are given back to it

    def refuse(self, exchange: Exchange, error: IngestError) -> None:
        """Answer an error and give the slot back; nothing of the request is stored."""
        if error.status in (503, 507) and "Retry-After" not in error.headers:
            error = self.retryable(error)
        exchange.body = b""
        self._responder.problem(exchange, error)
        self.pool.release()

    def retryable(self, error: IngestError) -> IngestError:
        """The same error with a Retry-After."""
        headers = {**error.headers, "Retry-After": self._responder.retry_after()}
        return IngestError(error.code, error.detail, headers=headers)

    def malformed(self, exchange: Exchange, error: DecodeError) -> None:
        """The body is not JSON."""
        exchange.plan.target.rejected_malformed.value += 1
        detail = f"{error.message} at line {error.line}, column {error.column}."
        members = {"line": error.line, "column": error.column, "excerpt": error.excerpt}
        self.refuse(exchange, IngestError("malformed_json", detail, extensions=members))

    def size(self, exchange: Exchange, target: Target, size: int) -> None:
        """The event has no bytes at all, or too many."""
        if not size:
            self.refuse(exchange, IngestError("empty_body", "An event is a JSON document."))
            return
        target.rejected_too_large.value += 1
        limit = target.event_max_bytes
        self.refuse(exchange, IngestError("event_too_large", f"{size} bytes; at most {limit}."))

    def violation(self, exchange: Exchange, target: Target, value: Any) -> None:
        """The event does not match its schema."""
        target.rejected_schema.value += 1
        explained, total = target.validator.explain(value, self._settings.errors_max)
        faults = [Fault(-1, *fault) for fault in explained]
        detail = f"{faults[0].pointer or 'the event'}: {faults[0].message}" if faults else ""
        members = fault_members(faults, total)
        self.refuse(exchange, IngestError("schema_violation", detail, extensions=members))

    def batch(self, exchange: Exchange, batch: Batch) -> None:
        """None of the batch is stored: none was good, or it is atomic and one was not."""
        detail = f"{batch.rejected} of {len(batch.ids)} events are at fault; none was stored."
        members = {
            "accepted": 0,
            "rejected": len(batch.ids),
            **fault_members(batch.faults, batch.faults_total),
        }
        self.refuse(exchange, IngestError("schema_violation", detail, extensions=members))
