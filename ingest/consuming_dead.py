"""Dead letters: events that `consume()` could not process, put aside with the reason.

They are in a journal like the one of accepted events, in `data/dead`. Unlike for rejected
events somebody waits: the consumer goes on only when its dead letter is durable.

A record is that of the event with some attributes more:

    {"specversion":"1.0","id":…,"source":…,"type":…,"time":…,
     "ingestid":…,"ingesttime":…,                       of the dead letter
     "ingestdeaderror":"ValueError: …","ingestdeadattempts":10,
     "ingestdeadpartition":0,"ingestdeadoffset":4711,   of the event in data/journal
     …,"data":…}

This module must not know how events are consumed or how records are committed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gevent.event import AsyncResult

from ingest.codec import dumps
from ingest.errors import IngestError
from ingest.handlers.consumers import Record
from ingest.journal import Journal, RecoveryReport
from ingest.journal.record import head_of, time_text
from ingest.journal.storage import Storage
from ingest.metrics import Metrics

if TYPE_CHECKING:
    from ingest.settings import Settings

#: How much is kept of an error's words.
ERROR_MAX_CHARACTERS = 1000

#: Ours of an event that has its producer's; the dead letter's come in their place.
_OURS = re.compile(rb'"ingestid":"[^"]*","ingesttime":"[^"]*",')
_TIME = b',"time":"'


@dataclass(frozen=True)
class _Sizes:
    """The settings of the journal of dead letters, as a journal asks for them."""

    segment_max_bytes: int
    segment_fill_bytes: int
    segment_max_age_seconds: float
    commit_max_bytes: int
    journal_pending_max_bytes: int
    disk_reserve_bytes: int


class DeadLetters:
    """Puts events aside.

    Args:
        directory: `data/dead`.
        partition: the worker's.
        settings: sizes.
        storage: does the file system calls.
    """

    def __init__(
        self,
        directory: Path,
        partition: int,
        settings: Settings,
        storage: Storage | None = None,
    ) -> None:
        sizes = _Sizes(
            segment_max_bytes=settings.segment_max_bytes,
            segment_fill_bytes=0,  # few are written, and one at a time
            segment_max_age_seconds=settings.segment_max_age_seconds,
            commit_max_bytes=settings.commit_max_bytes,
            journal_pending_max_bytes=settings.journal_pending_max_bytes,
            disk_reserve_bytes=settings.disk_reserve_bytes,
        )
        # Metrics of its own: those of the worker belong to the journal of accepted events.
        self.journal = Journal(
            directory,
            partition,
            settings=sizes,
            metrics=Metrics(),
            on_commit=_committed,
            storage=storage,
        )

    def open(self) -> RecoveryReport:
        """Recover the journal; blocks.

        Raises:
            OSError: the directory cannot be made, read or written; `filename` says where.
        """
        return self.journal.open()

    def start(self) -> None:
        """Start taking events."""
        self.journal.start()

    def close(self, timeout: float) -> None:
        """Store what is pending."""
        self.journal.close(timeout)

    def put(self, partition: int, record: Record, error: BaseException, attempts: int) -> None:
        """Put one event aside, and wait until that is durable.

        Args:
            partition: of the journal in which the event is.
            error: what the last attempt ended with.
            attempts: how often it was tried.

        Raises:
            IngestError: it could not be.
        """
        stored: AsyncResult[None] = AsyncResult()
        self.journal.append(self._line(partition, record, error, attempts), 1, stored)
        stored.get()

    def _line(self, partition: int, record: Record, error: BaseException, attempts: int) -> bytes:
        stored_id = self.journal.id_source.next()
        members = {
            "ingestid": stored_id.decode(),
            "ingesttime": time_text(self.journal.id_source.ms),
            "ingestdeaderror": described(error)[:ERROR_MAX_CHARACTERS],
            "ingestdeadattempts": attempts,
            "ingestdeadpartition": partition,
            "ingestdeadoffset": record.offset,
        }
        head = head_of(record.line)
        assert head is not None  # or it would not have been found to be of this type
        ours = record.line.index(_TIME + head.time) + len(_TIME + head.time) + 2
        rest = _OURS.sub(b"", record.line[ours:], 1) if head.ingestid else record.line[ours:]
        return record.line[:ours] + dumps(members)[1:-1] + b"," + rest + b"\n"


def described(error: BaseException) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {error}"


def _committed(waiters: list[AsyncResult], error: IngestError | None) -> None:
    for waiter in waiters:
        if error is None:
            waiter.set(None)
        else:
            waiter.set_exception(error)
