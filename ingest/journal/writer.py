"""The native thread's half of the journal: everything that blocks.

One thread owns the open segment, its position and the next offset; nobody else writes
them. The hub hands it one batch at a time and gets messages back:

    hub      commit(batch) ─┐                       ┌─▶ Written   (only if some wait for write)
    thread                  └─ frame, write, ───────┤
                               fdatasync            └─▶ Finished  (always, exactly once)

What is true after each step:
    * `next_offset` is one past the last record somebody was, or is about to be, told of.
    * A descriptor that once failed a write or an fdatasync is closed and never used again:
      after a failed fdatasync the kernel may have dropped the pages and call the next one
      a success. The next segment starts at `next_offset`, which is what makes readers pass
      over anything the failed one holds beyond.

It runs without gevent, so it must not log (the logging locks belong to the hub), count or
touch waiters: it says what happened, and the hub does that.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ingest.errors import IngestError
from ingest.journal.background import BackgroundSync, at_once
from ingest.journal.frame import mark
from ingest.journal.record import LINE_END
from ingest.journal.segment import Segment
from ingest.journal.storage import Storage

#: How often free space is looked at, segments are aged, written-only records are synced,
#: and a new segment is tried after a failure.
MAINTENANCE_SECONDS = 1.0

#: More than any commit mark has.
MARK_MAX_BYTES = 256

#: A commit of at most so many bytes is looked through for what readers could not take.
COUNTED_BYTES = 4096

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class JournalSettings(Protocol):
    """The settings the journal reads; see docs/settings.md."""

    @property
    def segment_max_bytes(self) -> int: ...
    @property
    def segment_fill_bytes(self) -> int: ...
    @property
    def segment_max_age_seconds(self) -> float: ...
    @property
    def commit_max_bytes(self) -> int: ...
    @property
    def journal_pending_max_bytes(self) -> int: ...
    @property
    def disk_reserve_bytes(self) -> int: ...


class Batch:
    """What goes into one commit: filled on the hub, then the thread's until finished.

    Attributes:
        chunks: whole lines, in order.
        size: bytes in the chunks.
        records: lines in the chunks.
        sync_waiters: to be told after fdatasync.
        write_waiters: to be told after write.
        failure: what befell `write_at_once`; `commit` sees to it.
    """

    __slots__ = ("chunks", "failure", "records", "size", "sync_waiters", "write_waiters")

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.size = 0
        self.records = 0
        self.sync_waiters: list[Any] = []
        self.write_waiters: list[Any] = []
        self.failure: Exception | None = None


class Written(NamedTuple):
    """These records are in the file, though not durable yet."""

    waiters: list[Any]


class Finished(NamedTuple):
    """A batch is done with; `waiters` have not been told yet."""

    waiters: list[Any]
    error: IngestError | None
    size: int
    records: int
    written_bytes: int
    commit_seconds: float
    sync_seconds: float


class Trouble(NamedTuple):
    """A file operation failed; `operation` is open, write, sync, rotate or close."""

    operation: str
    path: str
    error: str


class Notice(NamedTuple):
    """Something worth a log line; `level` is info, warning or error."""

    level: str
    event: str
    data: dict[str, Any]


class Synced(NamedTuple):
    """A background fdatasync succeeded."""

    seconds: float


class Opened(NamedTuple):
    """A new segment was opened."""

    path: str


class Stopped(NamedTuple):
    """The thread has closed its file and will say nothing more."""


Message = Written | Finished | Trouble | Notice | Synced | Opened | Stopped


class Writer:
    """Appends batches to the segments of one partition.

    Args:
        directory: of the partition.
        settings: sizes, age and reserve.
        storage: does the file system calls.
        segment: the recovered segment, open for appending.
        next_offset: of the next record.
        tell: takes messages for the hub; called in the thread that calls this object.
        clock: monotonic seconds.
        beside: runs a job in another thread.

    Attributes:
        refusal: why appends are refused before anything is tried, "" when they are not.
        trouble: why the last commit failed, "" when it did not.
        free_bytes: as last seen on the file system.
        reserve_bytes: with less free it takes nothing.
    """

    def __init__(
        self,
        directory: Path,
        settings: JournalSettings,
        storage: Storage,
        segment: Segment,
        next_offset: int,
        tell: Callable[[Message], None],
        clock: Callable[[], float],
        beside: Callable[[Callable[[], None]], None] = at_once,
    ) -> None:
        self._directory = directory
        self._storage = storage
        self._segment: Segment | None = segment
        self._tell = tell
        self._clock = clock
        self._segment_max_bytes = settings.segment_max_bytes
        # One commit in about 50 pays for the fill; a small segment gets no more than its size.
        self._fill = b"\n" * min(settings.segment_fill_bytes, settings.segment_max_bytes // 16)
        self._segment_max_age_seconds = settings.segment_max_age_seconds
        self.reserve_bytes = settings.disk_reserve_bytes
        self._hold_until = 0.0
        self._background = BackgroundSync(beside, lambda took: tell(Synced(took)), clock)
        self.next_offset = next_offset
        self.maintenance_at = 0.0
        self.refusal = ""
        self.trouble = ""
        self.free_bytes = 0

    # -- one commit ----------------------------------------------------------------------

    def commit(self, batch: Batch) -> None:
        """Write a batch and, if anyone waits for that, make it durable."""
        started = self._clock()
        if batch.failure is not None:
            self._give_up(batch, batch.failure, started)
            return
        self._look_at_background()
        segment = self._room_for(batch.size, started)
        if segment is None:
            self._finish(batch, self._failure("open"), started)
            return
        first = self.next_offset
        try:
            written_bytes = self._append(segment, batch, started)
        except OSError as error:
            self._broken(segment, "write", error)
            self._finish(batch, self._failure("write", error), started)
            return
        if not batch.sync_waiters:
            self.next_offset = first + batch.records
            self._finish(batch, None, started, written_bytes)
            return
        if batch.write_waiters:
            # Told of now, so these offsets are taken whatever fdatasync says.
            self.next_offset = first + batch.records
            self._tell(Written(batch.write_waiters))
            batch.write_waiters = []
        sync_started = self._clock()
        try:
            self._background.settle()
            segment.sync()
        except OSError as error:
            self._broken(segment, "sync", error)
            self._finish(batch, self._failure("sync", error), started)
            return
        self.next_offset = first + batch.records
        self._finish(batch, None, started, written_bytes, sync_started)

    def write_at_once(self, batch: Batch) -> bool:
        """Write a batch that nobody wants an fdatasync of, if that waits for nothing.

        The hub may call this while the thread has nothing to do. Bytes that are there already
        are overwritten, in the page cache: nothing is allocated, and no fdatasync is under
        way that could hold the file.

        Returns:
            False: `commit` has to, in the thread. So it does after a failure: what follows
            from one may take long.
        """
        segment = self._segment
        if (
            segment is None
            or self.trouble
            or self._background.busy
            or self._background.error is not None
            or segment.filled_left < batch.size + MARK_MAX_BYTES
            or segment.position + batch.size > self._segment_max_bytes
        ):
            return False
        started = self._clock()
        if self._aged(segment, started):
            return False
        try:
            written_bytes = self._append(segment, batch, started)
        except Exception as error:  # noqa: BLE001 - told to the thread, which makes it known
            batch.failure = error
            return False
        self.next_offset += batch.records
        self._finish(batch, None, started, written_bytes)
        return True

    def _append(self, segment: Segment, batch: Batch, now: float) -> int:
        """Write a batch; returns how many bytes it takes."""
        body = _body_of(batch)
        tail = mark(body, self.next_offset, batch.records, segment.position)
        segment.append([body, tail], now, self._fill)
        return len(body) + len(tail)

    def _give_up(self, batch: Batch, error: Exception, started: float) -> None:
        """See to what `write_at_once` met."""
        if not isinstance(error, OSError):
            raise error
        assert self._segment is not None
        self._broken(self._segment, "write", error)
        self._finish(batch, self._failure("write", error), started)

    def abandon(self, batch: Batch, error: Exception) -> None:
        """Give up a batch for a reason that is not the file system's: a fault of ours."""
        if self._segment is not None:
            self._broken(self._segment, "write", error)
        self._finish(batch, IngestError("journal_failed"), self._clock())

    def _finish(
        self,
        batch: Batch,
        error: IngestError | None,
        started: float,
        written_bytes: int = 0,
        sync_started: float = 0.0,
    ) -> None:
        now = self._clock()
        if error is None and self.trouble:
            self._out_of_trouble()
        waiters = batch.write_waiters + batch.sync_waiters
        self._tell(
            Finished(
                waiters,
                error,
                batch.size,
                batch.records,
                written_bytes,
                now - started,
                now - sync_started if sync_started else 0.0,
            )
        )

    # -- segments ----------------------------------------------------------------------------

    def _room_for(self, size: int, now: float) -> Segment | None:
        """The segment a batch of `size` bytes goes to; None when there can be none."""
        segment = self._segment
        if segment is not None:
            if not segment.position:
                return segment
            if segment.position + size <= self._segment_max_bytes and not self._aged(segment, now):
                return segment
            self._retire(segment)
        return self._open(now)

    def _aged(self, segment: Segment, now: float) -> bool:
        limit = self._segment_max_age_seconds
        return bool(limit and segment.position and now - segment.opened >= limit)

    def _open(self, now: float) -> Segment | None:
        try:
            segment = Segment.create(self._storage, self._directory, self.next_offset, now)
        except OSError as error:
            self._in_trouble("open", error)
            self._tell(Trouble("open", str(error.filename or self._directory), str(error)))
            return None
        self._segment = segment
        self._tell(Opened(str(segment.path)))
        return segment

    def _retire(self, segment: Segment) -> None:
        """Close a segment that is full or old; what it holds is durable after."""
        self._segment = None
        try:
            self._background.settle()
            if segment.unsynced_since is not None:
                segment.sync()
        except OSError as error:
            self._in_trouble("sync", error)
            self._tell(Trouble("rotate", str(segment.path), str(error)))
            self._close(segment.abandon, segment)
        else:
            self._close(segment.close, segment)

    def _broken(self, segment: Segment, operation: str, error: Exception) -> None:
        """Seal a segment that failed; the next one is tried at once."""
        self._segment = None
        self._in_trouble(operation, error)
        self._tell(Trouble(operation, str(segment.path), str(error)))
        try:
            self._background.settle()
            if operation != "sync" and segment.unsynced_since is not None:
                # Records before the failed write were answered after theirs: their fdatasync
                # is due, and no fdatasync of this descriptor has failed.
                segment.sync()
        except OSError as failure:
            if failure is not error:
                self._tell(Trouble("sync", str(segment.path), str(failure)))
        self._close(segment.abandon, segment)
        self.maintenance_at = 0.0

    def _close(self, close: Callable[[], None], segment: Segment) -> None:
        try:
            close()
        except OSError as error:
            self._tell(Trouble("close", str(segment.path), str(error)))

    # -- health --------------------------------------------------------------------------------

    def _in_trouble(self, operation: str, error: Exception) -> None:
        self.trouble = f"{operation} failed: {_words(error)}"
        self._hold_until = self._clock() + MAINTENANCE_SECONDS
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            self.refusal = "The disk is full."

    def _out_of_trouble(self) -> None:
        self.trouble = ""
        self._tell(Notice("info", "journal.works_again", {"next_offset": self.next_offset}))

    def _failure(self, operation: str, error: OSError | None = None) -> IngestError:
        """What the waiters of a failed commit are told."""
        if self.refusal:
            return IngestError("disk_full", self.refusal)
        words = _words(error) if error is not None else "no segment can be opened"
        return IngestError("journal_failed", f"The journal's {operation} failed: {words}.")

    def maintain(self, now: float) -> None:
        """What is due about once a second, whether there is traffic or not."""
        if now < self.maintenance_at:
            return
        self.maintenance_at = now + MAINTENANCE_SECONDS
        self._look_at_space(now)
        self._look_at_background()
        segment = self._segment
        if segment is None:
            segment = self._open(now)
        elif self._aged(segment, now):
            self._retire(segment)
            segment = self._open(now)
        elif segment.unsynced_since is not None:
            self._background.sync(segment)
            self._look_at_background()  # found here only where it is not done beside
        if self.trouble and segment is not None and now >= self._hold_until:
            self._out_of_trouble()

    def _look_at_background(self) -> None:
        """Seal the segment when the fdatasync beside has failed."""
        error, segment = self._background.error, self._segment
        if error is not None and segment is not None:
            self._broken(segment, "sync", error)

    def _look_at_space(self, now: float) -> None:
        try:
            self.free_bytes = free = self._storage.free_bytes(self._directory)
        except OSError as error:
            self._tell(Trouble("open", str(self._directory), str(error)))
            return
        reserve = self.reserve_bytes
        if free < reserve:
            if not self.refusal:
                data = {"free_bytes": free, "disk_reserve_bytes": reserve}
                self._tell(Notice("error", "journal.disk_full", data))
            self.refusal = f"{free} bytes are free; {reserve} are kept in reserve."
        elif self.refusal and now >= self._hold_until:
            self.refusal = ""
            self._tell(Notice("info", "journal.disk_has_room", {"free_bytes": free}))

    def close(self) -> None:
        """Make everything durable and close."""
        if self._segment is not None:
            self._retire(self._segment)
        self._tell(Stopped())


def _body_of(batch: Batch) -> bytes:
    """The bytes of a commit up to where its mark goes; what cannot be read back is refused.

    Raises:
        ValueError: the lines are not lines, or not as many as was said.
    """
    chunks = batch.chunks
    last = chunks[-1]
    if not last.endswith(LINE_END):
        raise ValueError("a record must end with '}' and a line feed")
    chunks[-1] = last[: -len(LINE_END)]
    body = b"".join(chunks)
    # Counting costs more than writing, so it is done where there is little to count: who
    # builds lines wrongly does so for small commits, too.
    if len(body) <= COUNTED_BYTES and body.count(b"\n") != batch.records - 1:
        raise ValueError(f"{batch.records} records were announced, the lines are not as many")
    return body


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return type(error).__name__
