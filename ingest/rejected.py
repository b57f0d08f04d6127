"""The rejected journal: events that were refused, kept with the reason.

For types with `x-ingest.on_reject: keep`. It is a journal like the one of accepted events, in
`data/rejected`, with a native thread and bounds of its own, so that a flood of bad events
neither slows nor endangers good ones. Nobody waits for it: the answer leaves at once, and what
it cannot take is counted and gone.

A record is a CloudEvents line like any other, with the reason in extension attributes:

    {…,"dataschema":"…","rejectedcode":"schema","rejectedpointer":"/price",
     "rejectedkeyword":"minimum","rejectedreason":"…","rejectedcount":2,
     "rejectedby":"192.0.2.7","rejectedrequest":"…","data":…}

What is no JSON stands in `data_base64` instead of `data`; of what is longer than
`rejected_event_max_bytes` the beginning stands there, and `rejectedsize` says how long it was.

With `kafka_rejected_topic` a topic stands in its place, and `data/rejected` is not used.

This module must not know sockets or how records are committed.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import orjson

from ingest.cloudevents import escaped, lead_of
from ingest.codec import dumps, one_line
from ingest.errors import IngestError
from ingest.journal import Journal
from ingest.journal.record import LINE_END, LINE_START, IdSource, middle, time_text
from ingest.metrics import Metrics
from ingest.peer import client_address
from ingest.tracing import traceparent_of

if TYPE_CHECKING:
    from ingest.cloudevents import CloudEvent
    from ingest.connection import Exchange
    from ingest.metrics_cells import Cell
    from ingest.routes import Target
    from ingest.settings import Settings

Told = Callable[[list[Any], IngestError | None], None]

_DATA = b',"data":'
_BASE64 = b',"data_base64":"'


class Reason(NamedTuple):
    """Why an event was refused.

    Attributes:
        code: malformed, schema, handler, too_large or handler_error.
        pointer: JSON Pointer of the first fault.
        keyword: of the schema that failed, or what else judged.
        message: for a person.
        faults: how many there are.
    """

    code: str
    pointer: str
    keyword: str
    message: str
    faults: int = 1


@dataclass(frozen=True)
class _Sizes:
    """The rejected journal's settings, as a journal asks for them."""

    segment_max_bytes: int
    segment_fill_bytes: int
    segment_max_age_seconds: float
    commit_max_bytes: int
    journal_pending_max_bytes: int
    disk_reserve_bytes: int


class Store(Protocol):
    """Where records go; it makes their ids."""

    @property
    def id_source(self) -> IdSource: ...
    def start(self) -> None: ...
    def close(self, timeout: float) -> bool: ...
    def append(self, lines: bytes, count: int, waiter: Any, sync: bool = True) -> None: ...


class RejectedEvents:
    """Keeps refused events.

    Args:
        directory: `data/rejected`.
        partition: the worker's.
        settings: sizes, and the `source` of records.
        metrics: where kept and dropped events are counted. The journal itself counts
            elsewhere: its families belong to the journal of accepted events.
        new_store: makes what takes the place of the journal, given what it tells; None for none.
    """

    def __init__(
        self,
        directory: Path,
        partition: int,
        settings: Settings,
        metrics: Metrics,
        new_store: Callable[[Told], Store] | None = None,
    ) -> None:
        self._metrics = metrics
        self._source = settings.source
        self._event_max_bytes = settings.rejected_event_max_bytes
        self._journal: Journal | None = None
        if new_store is not None:
            self._store = new_store(self._committed)
            return
        sizes = _Sizes(
            segment_max_bytes=settings.segment_max_bytes,
            segment_fill_bytes=settings.segment_fill_bytes,
            segment_max_age_seconds=settings.segment_max_age_seconds,
            commit_max_bytes=settings.commit_max_bytes,
            journal_pending_max_bytes=settings.rejected_pending_max_bytes,
            disk_reserve_bytes=settings.disk_reserve_bytes,
        )
        own = Metrics()
        self._journal = Journal(
            directory, partition, settings=sizes, metrics=own, on_commit=self._committed
        )
        self._store = self._journal
        metrics.rejected_journal_failures.set_function(
            lambda: sum(cell.value for _, cell in own.journal_failures.items())
        )

    def open(self) -> None:
        """Recover the journal, where it is one; blocks.

        Raises:
            OSError: the directory cannot be made, read or written; `filename` says where.
        """
        if self._journal is not None:
            self._journal.open()

    def start(self) -> None:
        """Start taking events."""
        self._store.start()

    def close(self, timeout: float) -> None:
        """Store what is pending."""
        self._store.close(timeout)

    def keep(
        self,
        exchange: Exchange,
        target: Target,
        raw: bytes,
        reason: Reason,
        request_id: str,
        event: CloudEvent | None = None,
    ) -> None:
        """Keep one event, or count it as dropped; never raises, never waits.

        Args:
            raw: the event as it was sent.
            request_id: of the request it came in.
            event: the attributes it came with, which the record keeps.
        """
        lead = self._lead(exchange, target, event)
        line = self._line(exchange, lead, raw, reason, request_id)
        kept = self._metrics.rejected_kept.cell(target.name, reason.code)
        try:
            self._store.append(line, 1, kept, False)
        except IngestError as error:
            self._metrics.rejected_dropped.cell(error.code).value += 1

    def _lead(self, exchange: Exchange, target: Target, event: CloudEvent | None) -> bytes:
        """A line up to what says why it is there."""
        stored_id = self._store.id_source.next()
        time = time_text(self._store.id_source.ms)
        if event is not None:
            schema, producer = target.dataschema, target.producer
            lead = escaped(event.id) + lead_of(event, stored_id, time, schema, producer)
        else:
            trace = traceparent_of(exchange.head.headers)
            between = middle(
                self._source, target.name, time, target.dataschema, trace, target.producer
            )
            lead = stored_id + between[: -len(_DATA)]
        return LINE_START + lead

    def _line(
        self,
        exchange: Exchange,
        lead: bytes,
        raw: bytes,
        reason: Reason,
        request_id: str,
    ) -> bytes:
        members: dict[str, Any] = {
            "rejectedcode": reason.code,
            "rejectedpointer": reason.pointer,
            "rejectedkeyword": reason.keyword,
            "rejectedreason": reason.message,
            "rejectedcount": reason.faults,
            "rejectedby": str(client_address(exchange.connection, exchange.head.headers)[0]),
            "rejectedrequest": request_id,
        }
        if len(raw) > self._event_max_bytes:
            members["rejectedsize"] = len(raw)
            raw = raw[: self._event_max_bytes]
        start = lead + b"," + dumps(members)[1:-1]
        if "rejectedsize" not in members and _is_json(raw):
            return start + _DATA + one_line(raw) + LINE_END
        return start + _BASE64 + b64encode(raw) + b'"' + LINE_END

    def _committed(self, waiters: list[Cell], error: IngestError | None) -> None:
        if error is None:
            for kept in waiters:
                kept.value += 1
        else:
            self._metrics.rejected_dropped.cell(error.code).value += len(waiters)


def _is_json(raw: bytes) -> bool:
    """Whether readers of the journal can take it as it is."""
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError:
        return False
    return True
