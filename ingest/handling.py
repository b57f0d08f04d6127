"""The handler's stage of the way of an event: run it, and check what it gives back.

This module must not know the journal, answers or batches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from structlog.contextvars import bound_contextvars

from ingest.batch import Fault, fault_members
from ingest.codec import dumps
from ingest.errors import IngestError, OffloadFull, Reject
from ingest.handlers.event import Event
from ingest.handlers.runner import HandlerFailed, HandlerTimeout, run_handler
from ingest.journal.record import time_text
from ingest.tracing import trace_names

if TYPE_CHECKING:
    from ingest.connection import Exchange
    from ingest.journal.record import IdSource
    from ingest.metrics import Metrics
    from ingest.routes import Target
    from ingest.settings import Settings


class Handling:
    """Runs the handlers of event types.

    Args:
        settings: the handler time limit and how many faults are listed.
        metrics: counters.
        ids: its millisecond is the event's time.
        decode: bytes to value, as strictly as a producer's are.
        encode: value to the bytes to store; None where the producer's own bytes are stored.
        request_id: the id of an exchange's request.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        ids: IdSource,
        decode: Callable[[bytes], Any],
        encode: Callable[[Any], bytes] | None,
        request_id: Callable[[Exchange, bytes], str],
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._ids = ids
        self._decode = decode
        self._encode = encode
        self._request_id = request_id

    def replace(
        self, exchange: Exchange, target: Target, value: Any, event_id: bytes, body: bytes
    ) -> bytes:
        """Run the type's handler; returns the bytes to store.

        Raises:
            IngestError: the handler rejected the event, failed, took too long, or
                returned something that does not match the schema.
        """
        request_id = self._request_id(exchange, event_id)
        event = Event(
            data=value,
            id=event_id.decode(),
            type=target.name,
            time=time_text(self._ids.ms),
            headers=exchange.head.headers,
            request_id=request_id,
            key=target.producer,
        )
        try:
            # What the handler logs carries them.
            names = trace_names(exchange.head.headers)
            with bound_contextvars(request_id=request_id, **names):
                replacement = run_handler(
                    target.handler, event, self._settings.handler_timeout_seconds, self._metrics
                )
        except Reject as rejected:
            raise Rejected(rejected) from rejected
        except OffloadFull as full:
            raise IngestError("overloaded", str(full)) from full
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


class Rejected(IngestError):
    """The handler's `Reject`, as an answer; a batch lists it instead."""

    def __init__(self, cause: Reject) -> None:
        fault = Fault(-1, cause.pointer, "handler", cause.reason)
        super().__init__("rejected", cause.reason, extensions=fault_members([fault], 1))
        self.pointer = cause.pointer
        self.reason = cause.reason
