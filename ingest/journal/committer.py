"""The hub's half of the journal: collects records, hands them over, tells the waiters.

    greenlets  append ─▶ batch                          on_commit ─▶ answers
                           │  (end of the loop turn)        ▲
    committer  ────────────┴─▶ queue          messages ─────┘
                                 │                ▲ async wake-up
    thread                       └─ write+fdatasync ┘

What nobody wants an fdatasync of is written by the committer itself, if that waits for nothing
(docs/decisions/0003): to hand it over and back costs more than the write.

One batch is with the thread at a time; whatever arrives meanwhile is the next one, so a
commit grows with the load and costs no added delay when there is none. The thread gets its
next batch before the waiters of the last one are told: the disk works while answers leave.

Bounds: what is appended and not yet finished is at most `journal_pending_max_bytes`; one
commit is at most `commit_max_bytes` (or one append, if that is larger).

This module must not know HTTP, events or what a waiter is.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty
from typing import Any

import gevent
from gevent.event import Event
from gevent.hub import get_hub
from gevent.monkey import get_original

from ingest.errors import IngestError
from ingest.journal.record import IdSource
from ingest.journal.recovery import RecoveryReport, recover
from ingest.journal.storage import Storage
from ingest.journal.writer import (
    Batch,
    Finished,
    JournalSettings,
    Message,
    Notice,
    Opened,
    Synced,
    Trouble,
    Writer,
    Written,
)
from ingest.logs import get_logger
from ingest.metrics import Metrics

log = get_logger(__name__)

#: A commit that takes longer than this makes readyz say so.
STUCK_SECONDS = 10.0

#: Up to so many bytes are written by the hub: they are copied in less than 0.1 ms.
AT_ONCE_MAX_BYTES = 128 << 10
#: After a write that held the hub up for longer, the thread writes for a while.
AT_ONCE_SLOW_SECONDS = 0.002
AT_ONCE_PAUSE_SECONDS = 10.0

# The thread is a native one and must wait like one: what gevent put in their place would
# want a hub there.
_start_thread = get_original("_thread", "start_new_thread")
_new_lock = get_original("_thread", "allocate_lock")
_SimpleQueue = get_original("queue", "SimpleQueue")


class Journal:
    """One partition of the durable log.

    Use: construct, `open`, `start`, `append`…, `close`. All of it on one hub.

    Args:
        directory: `data/journal`; the partition's directory is made below it.
        partition: its number.
        settings: sizes, age, reserve; read once.
        metrics: the worker's.
        on_commit: called on the hub, in the committer greenlet, with the waiters of a
            commit and the error that befell it, or None. It should not block: the next
            answers wait for it (the disk does not).
        storage: does the file system calls.

    Attributes:
        id_source: makes the ids of records; continues after the last one found by `open`.
        pending_bytes: appended and not finished.
    """

    def __init__(
        self,
        directory: Path,
        partition: int,
        *,
        settings: JournalSettings,
        metrics: Metrics,
        on_commit: Callable[[list[Any], IngestError | None], None],
        storage: Storage | None = None,
    ) -> None:
        self._directory = directory / str(partition)
        self._partition = partition
        self._settings = settings
        self._metrics = metrics
        self._on_commit = on_commit
        self._storage = storage or Storage()
        self._pending_max_bytes = settings.journal_pending_max_bytes
        self._commit_max_bytes = settings.commit_max_bytes
        self.id_source = IdSource(time.time, random.SystemRandom().getrandbits)
        self.pending_bytes = 0
        self._segments = 0
        self._batch = Batch()
        self._full: deque[Batch] = deque()
        self._committing: Batch | None = None
        self._committing_since: float | None = None
        self._closing = False
        self._stop_sent = False
        self._scheduled = False
        self._parked = False
        self._greenlet: gevent.Greenlet | None = None
        self._stopped = Event()
        self._messages: deque[Message] = deque()
        self._queue: Any = _SimpleQueue()
        self._writer: Writer | None = None
        self._wake: Any = None
        #: held by whoever uses the writer while no batch is with the thread
        self._using = _new_lock()
        #: the hub writes, and looks at messages next
        self._at_once = False
        self._at_once_from = 0.0

    # -- life ------------------------------------------------------------------------------

    def open(self) -> RecoveryReport:
        """Recover the partition and open it for appending; blocks.

        Raises:
            OSError: the directory cannot be made, read or written; `filename` says where.
        """
        report, segment = recover(self._storage, self._directory, time.monotonic())
        if report.last_id is not None and self.id_source.resume(report.last_id):
            log.warning("journal.clock_behind", last_id=report.last_id.decode())
        self._segments = report.segments
        self._writer = Writer(
            self._directory,
            self._settings,
            self._storage,
            segment,
            report.next_offset,
            self._tell,
            time.monotonic,
            lambda job: _start_thread(job, ()),
        )
        self._metrics.journal_torn_bytes.value += report.torn_bytes
        log_recovery(self._partition, report)
        self._show_gauges()
        return report

    def start(self) -> None:
        """Start the committer greenlet and the native thread; after `open`."""
        if self._writer is None:
            raise RuntimeError("open() comes before start()")
        self._loop = get_hub().loop
        self._wake = self._loop.async_()
        self._wake.start(self._schedule)
        self._greenlet = gevent.spawn(self._run)
        _start_thread(_serve, (self._writer, self._queue, self._using))

    def close(self, timeout: float) -> bool:
        """Refuse further appends, commit what is pending, close the file.

        Args:
            timeout: seconds to wait.

        Returns:
            whether all of it was done in time.
        """
        self._closing = True
        if self._greenlet is None:
            if self._writer is not None:
                self._writer.close()
            return True
        self._schedule()
        if not self._stopped.wait(timeout):
            log.error("journal.close_timed_out", pending_records=self.pending_records)
            return False
        return True

    # -- append ----------------------------------------------------------------------------

    def append(self, lines: bytes, count: int, waiter: Any, sync: bool = True) -> None:
        """Take records for the next commit; returns at once. Hub only.

        Args:
            lines: whole lines, each a JSON object that ends with `}` and a line feed.
            count: how many.
            waiter: given to `on_commit` once, together with others.
            sync: told after fdatasync; otherwise after write.

        Raises:
            IngestError: disk_full, overloaded, draining; nothing was taken.
        """
        self._take(lines, count, sync).append(waiter)

    def append_each(self, lines: bytes, waiters: Sequence[Any], sync: bool = True) -> None:
        """The same for as many records as waiters; each is given to `on_commit`."""
        self._take(lines, len(waiters), sync).extend(waiters)

    def _take(self, lines: bytes, count: int, sync: bool) -> list[Any]:
        """Put lines into a batch; returns its list of those who wait for what."""
        size = len(lines)
        pending = self.pending_bytes + size
        if (
            self._closing
            or pending > self._pending_max_bytes
            or self._writer is None
            or self._writer.refusal
        ):
            self._judge_append()
        batch = self._batch
        if batch.size + size > self._commit_max_bytes and batch.records:
            self._full.append(batch)
            batch = self._batch = Batch()
        batch.chunks.append(lines)
        batch.size += size
        batch.records += count
        self.pending_bytes = pending
        if self._committing_since is None and not self._scheduled:
            self._schedule()
        return batch.sync_waiters if sync else batch.write_waiters

    def _judge_append(self) -> None:
        """Raise what stands against an append. One alone is never too large: it could
        not be accepted later either, and what sends it is bounded."""
        if self._writer is None:
            raise RuntimeError("open() comes before append()")
        if self._closing:
            raise IngestError("draining", "The journal is closing.")
        if self._writer.refusal:
            raise IngestError("disk_full", self._writer.refusal)
        if self.pending_bytes:
            raise IngestError("overloaded", "Too many events are waiting for the disk.")

    # -- state -----------------------------------------------------------------------------

    def segments_removed(self, count: int) -> None:
        """Somebody has removed that many of the closed segments."""
        self._segments -= count

    @property
    def next_offset(self) -> int:
        """Offset after the last record anyone was told of."""
        return self._writer.next_offset if self._writer is not None else 0

    @property
    def pending_records(self) -> int:
        """Appended and not finished."""
        waiting = sum(batch.records for batch in self._full) + self._batch.records
        return waiting + (self._committing.records if self._committing is not None else 0)

    def healthy(self) -> str | None:
        """Why events are not being stored, or None; for readyz."""
        writer = self._writer
        if writer is None or self._stopped.is_set():
            return "the journal is not open"
        if writer.refusal or writer.trouble:
            return writer.refusal or writer.trouble
        since = self._committing_since
        if since is not None and time.monotonic() - since > STUCK_SECONDS:
            return f"a commit has not returned for {time.monotonic() - since:.0f} s"
        return None

    def keep_free(self, reserve_bytes: int) -> None:
        """Take nothing from now on with less free space than this."""
        if self._writer is not None:
            self._writer.reserve_bytes = reserve_bytes
            self._metrics.journal_reserve_bytes.value = reserve_bytes

    def _show_gauges(self) -> None:
        metrics, writer = self._metrics, self._writer
        assert writer is not None
        metrics.journal_pending_records.set_function(lambda: self.pending_records)
        metrics.journal_pending_bytes.set_function(lambda: self.pending_bytes)
        metrics.journal_segments.set_function(lambda: self._segments)
        metrics.journal_next_offset.set_function(lambda: writer.next_offset)
        metrics.journal_free_bytes.set_function(lambda: writer.free_bytes)
        metrics.journal_reserve_bytes.value = writer.reserve_bytes

    # -- the committer greenlet ------------------------------------------------------------

    def _tell(self, message: Message) -> None:
        """Called by the thread: leave a message and wake the hub."""
        self._messages.append(message)
        if self._wake is not None and not self._at_once:
            self._wake.send()

    def _schedule(self) -> None:
        """When the committer runs: at the end of this turn of the loop, so that all
        that was read in one turn goes into one commit."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.run_callback(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if self._parked and self._greenlet is not None:
            self._parked = False
            self._greenlet.switch()

    def _run(self) -> None:
        hub = get_hub()
        while not self._stopped.is_set():
            messages = list(self._messages)
            for message in messages:
                self._messages.popleft()
                if type(message) is Finished:
                    self._committing = self._committing_since = None
            self._start_commit()
            for message in messages:
                self._handle(message)
            if not self._messages and not self._stopped.is_set():
                self._parked = True
                hub.switch()
        # Not closed: the thread may be about to send for its last message.
        self._wake.stop()

    def _start_commit(self) -> None:
        """Policy: a commit starts as soon as the last one is done and something waits."""
        if self._committing_since is not None:
            return
        if self._full:
            batch = self._full.popleft()
        elif self._batch.records:
            batch, self._batch = self._batch, Batch()
        else:
            if self._closing and not self._stop_sent:
                self._stop_sent = True
                self._queue.put(None)
            return
        self._committing = batch
        self._committing_since = now = time.monotonic()
        if batch.sync_waiters or not self._write_at_once(batch, now):
            self._queue.put(batch)

    def _write_at_once(self, batch: Batch, now: float) -> bool:
        """Write a batch from here, if that waits for nothing; False: the thread has to."""
        if batch.size > AT_ONCE_MAX_BYTES or now < self._at_once_from:
            return False
        if not self._using.acquire(False):
            return False
        assert self._writer is not None
        self._at_once = True
        try:
            done = self._writer.write_at_once(batch)
        finally:
            self._at_once = False
            self._using.release()
        ended = time.monotonic()
        if ended - now > AT_ONCE_SLOW_SECONDS:
            self._at_once_from = ended + AT_ONCE_PAUSE_SECONDS
            self._metrics.journal_slow_writes.value += 1
        return done

    def _handle(self, message: Message) -> None:
        metrics = self._metrics
        if type(message) is Finished:
            self.pending_bytes -= message.size
            if message.error is None:
                metrics.journal_commits.value += 1
                metrics.journal_records.value += message.records
                metrics.journal_bytes.value += message.written_bytes
                metrics.journal_commit_records.observe(message.records)
                metrics.journal_commit_bytes.observe(message.written_bytes)
                metrics.journal_commit_seconds.observe(message.commit_seconds)
                if message.sync_seconds:
                    metrics.journal_sync_seconds.observe(message.sync_seconds)
            self._tell_waiters(message.waiters, message.error)
        elif type(message) is Written:
            self._tell_waiters(message.waiters, None)
        elif type(message) is Trouble:
            metrics.journal_failures.cell(message.operation).value += 1
            log.error("journal.failure", partition=self._partition, **message._asdict())
        elif type(message) is Notice:
            getattr(log, message.level)(message.event, partition=self._partition, **message.data)
        elif type(message) is Synced:
            metrics.journal_sync_seconds.observe(message.seconds)
        elif type(message) is Opened:
            self._segments += 1
            metrics.journal_segments_closed.value += 1  # the one before it, whatever became of it
            log.info("journal.segment_opened", partition=self._partition, path=message.path)
        else:
            self._stopped.set()

    def _tell_waiters(self, waiters: list[Any], error: IngestError | None) -> None:
        try:
            self._on_commit(waiters, error)
        except Exception:
            # Nobody else can tell these waiters; the next ones must still be told.
            self._metrics.unhandled_errors.cell("journal").value += 1
            log.exception("journal.on_commit_failed", waiters=len(waiters))


def _serve(writer: Writer, queue: Any, using: Any) -> None:
    """The native thread: batches until None comes, maintenance in between."""
    while True:
        with using:
            writer.maintain(time.monotonic())
        try:
            batch = queue.get(True, max(0.0, writer.maintenance_at - time.monotonic()))
        except Empty:
            continue
        if batch is None:
            writer.close()
            return
        try:
            writer.commit(batch)
        except Exception as error:  # noqa: BLE001 - told to the hub, which logs and counts it
            writer.abandon(batch, error)


def log_recovery(partition: int, report: RecoveryReport) -> None:
    """Log what recovery found in a partition."""
    log.info(
        "journal.recovered",
        partition=partition,
        segments=report.segments,
        next_offset=report.next_offset,
        torn_bytes=report.torn_bytes,
    )
    if report.torn_bytes:
        log.warning(
            "journal.torn_tail_cut" if report.torn_path else "journal.torn_tail_left",
            partition=partition,
            segment=str(report.segment),
            bytes=report.torn_bytes,
            kept_as=str(report.torn_path) if report.torn_path else None,
        )
    for damage in report.damage:
        log.error(
            "journal.damage_found",
            partition=partition,
            segment=str(report.segment),
            **damage._asdict(),
        )
