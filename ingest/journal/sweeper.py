"""The janitor's work: one look at everything that is stored, and what follows from it.

A sweep goes over the directories it was given. In each journal it removes what a crash has
left, then the segments that retention is done with (`retention`), then compresses at most
one closed segment (`compressor`), so that retention never waits for a long line of them.

It touches no segment that is the newest of its partition, so it needs to know nothing of
who writes: a segment is closed before its successor is created. Readers come to no harm:
they keep the file they have open, and look again for one that is gone.

It runs in a native thread without gevent, so it must not log, count or touch metrics: it
says what happened, and the hub does that (`janitor`).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

from ingest.journal.compressor import Pause, Unfit, compress_segment, settle
from ingest.journal.frame import Commit
from ingest.journal.reader import SegmentReader
from ingest.journal.record import head_of
from ingest.journal.retention import FOREVER, Retention, Stored, plan
from ingest.journal.segment import SegmentFile, compressed_path, segment_path
from ingest.journal.storage import Storage
from ingest.journal.survey import JournalDirectory, Survey, Surveyor

#: After a file operation failed, the segment is left alone for so long.
RETRY_SECONDS = 60.0
#: Read at a time while looking for types: that is done with the interpreter's lock held.
_STEP_BYTES = 64 << 10


class Compression(NamedTuple):
    """How closed segments are compressed.

    Attributes:
        on: whether they are.
        level: of zstd.
        after_seconds: how long one stays plain after it was closed.
    """

    on: bool
    level: int
    after_seconds: float


class SegmentCompressed(NamedTuple):
    """A segment was compressed."""

    journal: str
    partition: int
    path: str
    plain_bytes: int
    stored_bytes: int
    seconds: float


class SegmentRemoved(NamedTuple):
    """A segment was removed; `reason` is age or size."""

    journal: str
    partition: int
    path: str
    records: int
    bytes: int
    reason: str


class Found(NamedTuple):
    """What there is now.

    Attributes:
        journal: its name.
        segments: files of it, each segment once.
        stored_bytes: of all that belongs to it, what recovery cut off included.
        oldest: time of the oldest record, in seconds since 1970; None when there is none.
        plain: closed segments that are not compressed.
        blocked: segments that are due to go and that a checkpoint keeps.
    """

    journal: str
    segments: int
    stored_bytes: int
    oldest: float | None
    plain: int
    blocked: int


class Trouble(NamedTuple):
    """A file operation failed; `operation` is list, compress or remove."""

    journal: str
    operation: str
    path: str
    error: str


class Notice(NamedTuple):
    """Something worth a log line; `level` is info, warning or error."""

    level: str
    event: str
    data: dict[str, Any]


Message = SegmentCompressed | SegmentRemoved | Found | Trouble | Notice


class Sweeper:
    """Looks after journals.

    Args:
        journals: to look after.
        compression: whether and when.
        storage: does the file system calls.
        tell: takes messages for the hub.
        pause: called after each small step of long work; it may raise to end the sweep.
        clock: monotonic seconds.
        wall_clock: seconds since 1970, as the records' times are.
    """

    def __init__(
        self,
        journals: list[JournalDirectory],
        compression: Compression,
        storage: Storage,
        tell: Callable[[Message], None],
        pause: Pause,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._journals = journals
        #: the same ones with other retentions, from the next sweep on; another thread sets it
        self.coming: list[JournalDirectory] | None = None
        self._compression = compression
        self._storage = storage
        self._tell = tell
        self._pause = pause
        self._clock = clock
        self._wall_clock = wall_clock
        self._surveyor = Surveyor(storage, clock, wall_clock)
        self._found: dict[str, Found] = {}
        self._blockers: dict[str, frozenset[tuple[int, str]]] = {}
        self._held_until: dict[str, float] = {}
        self._missed: set[str] = set()

    def sweep(self) -> bool:
        """Do what is due now; returns whether there may be more of it."""
        if self.coming is not None:
            self._journals, self.coming = self.coming, None
            self._surveyor.forget_retention()
        more = False
        for journal in self._journals:
            if self._clock() < self._held_until.get(journal.name, 0.0):
                continue
            try:
                more |= self._sweep(journal)
                self._missed.discard(journal.name)
            except OSError as error:
                # A file that goes between two looks is normal once, and not again and again.
                if isinstance(error, FileNotFoundError) and journal.name not in self._missed:
                    self._missed.add(journal.name)
                    continue
                self._trouble(journal, "list", str(error.filename or journal.directory), error)
        return more

    def _sweep(self, journal: JournalDirectory) -> bool:
        survey = self._surveyor.look_at(journal)
        removed, blocked = self._retain(journal, survey)
        self._say_what_there_is(journal, survey, blocked)
        return self._compress_one(journal, survey) or removed

    def _trouble(
        self, journal: JournalDirectory, operation: str, path: str, error: OSError
    ) -> None:
        """Tell of it, and leave the journal alone for a while."""
        self._held_until[journal.name] = self._clock() + RETRY_SECONDS
        self._tell(Trouble(journal.name, operation, path, str(error)))

    def _say_what_there_is(self, journal: JournalDirectory, survey: Survey, blocked: int) -> None:
        stored = [one for partition in survey.stored.values() for one in partition]
        found = Found(
            journal.name,
            len(stored),
            sum(one.stored_bytes for one in stored),
            min((one.first_time for one in stored if one.first_time), default=None),
            sum(not file.compressed for files in survey.files.values() for file in files[:-1]),
            blocked,
        )
        if self._found.get(journal.name) != found:
            self._found[journal.name] = found
            self._tell(found)

    # -- retention -------------------------------------------------------------------------------

    def _retain(self, journal: JournalDirectory, survey: Survey) -> tuple[bool, int]:
        """Remove what has to go.

        Returns:
            whether anything was removed, and how many segments a checkpoint keeps.
        """
        retention = journal.retention
        if not retention.max_bytes and not retention.shortest:
            return False, 0
        self._remove_old_cuts(retention, survey)
        checkpoints = journal.checkpoints
        decided = plan(
            survey.stored,
            retention,
            self._wall_clock(),
            lambda one: self._keep_seconds(journal, survey, one),
            checkpoints.oldest if checkpoints is not None else lambda partition: None,
        )
        before = self._blockers.get(journal.name, frozenset())
        for partition, name in sorted(decided.blockers - before):
            data = {"journal": journal.name, "partition": partition, "checkpoint": name}
            self._tell(Notice("warning", "journal.retention_blocked", data))
        self._blockers[journal.name] = decided.blockers
        for one, reason in decided.remove:
            if not self._remove(journal, survey, one, reason):
                break  # what follows it must not go before it
        return bool(decided.remove), decided.blocked

    def _remove(self, journal: JournalDirectory, survey: Survey, one: Stored, reason: str) -> bool:
        """Remove a segment in all its forms; whether it is gone for good."""
        files = survey.files[one.partition]
        file = next(file for file in files if file.base == one.base)
        plain = segment_path(file.path.parent, one.base)
        # The form that counts goes last, so that a crash leaves the segment or nothing of it.
        paths = [*survey.torn[one.partition].get(one.base, ()), compressed_path(plain), plain]
        names = set(self._storage.names(plain.parent))
        try:
            for path in paths:
                if path.name in names:
                    self._storage.remove(path)
            self._storage.sync_directory(plain.parent)  # before the next: no gaps after a crash
        except OSError as error:
            self._trouble(journal, "remove", str(file.path), error)
            return False
        files.remove(file)
        assert one.end is not None
        records = one.end - one.base
        self._tell(
            SegmentRemoved(
                journal.name, one.partition, str(file.path), records, one.stored_bytes, reason
            )
        )
        return True

    def _remove_old_cuts(self, retention: Retention, survey: Survey) -> None:
        """What recovery cut off was never acknowledged; it goes by its own age."""
        if not retention.max_age_seconds:
            return
        for torn in survey.torn.values():
            for paths in torn.values():
                for path in list(paths):
                    age = self._wall_clock() - self._storage.modified(path)
                    if age > retention.max_age_seconds:
                        self._storage.remove(path)
                        paths.remove(path)

    def _keep_seconds(self, journal: JournalDirectory, survey: Survey, one: Stored) -> float:
        """How long a segment is kept for what is in it: as long as any type in it."""
        file = next(file for file in survey.files[one.partition] if file.base == one.base)
        known = self._surveyor.known(journal, file)
        if known.keep_seconds is None:
            known.keep_seconds = self._longest_in(journal.retention, file, one.end)
        return known.keep_seconds

    def _longest_in(self, retention: Retention, file: SegmentFile, end: int | None) -> float:
        ages = {name.encode(): seconds for name, seconds in retention.types.items()}
        longest = 0.0
        with SegmentReader(self._storage, file, step=_STEP_BYTES) as reader:
            for item in reader.poll():
                if not isinstance(item, Commit):
                    return retention.longest  # nobody knows what has been lost there
                if end is not None and item.first >= end:
                    break
                for line in item.lines:
                    head = head_of(line)
                    age = ages.get(head.type) if head is not None else None
                    if age is None:
                        age = retention.max_age_seconds
                    if age in (FOREVER, retention.longest):
                        return age
                    longest = max(longest, age)
                self._pause()
            return longest if reader.next_offset == end else retention.longest

    # -- compression -----------------------------------------------------------------------------

    def _compress_one(self, journal: JournalDirectory, survey: Survey) -> bool:
        """Compress the segment that has waited longest; whether there are more that wait."""
        now = self._clock()
        due = []
        for partition, files in survey.files.items():
            for file, following in pairwise(files):
                known = self._surveyor.known(journal, file)
                if file.compressed or known.left or now < known.retry_at:
                    continue
                old = now - known.closed_at >= self._compression.after_seconds
                if file.path in survey.twice or (self._compression.on and old):
                    due.append((known.closed_at, partition, file, following.base))
        if not due:
            return False
        _, partition, file, end = min(due)
        try:
            if file.path not in survey.twice:
                self._compress(journal, partition, file, end)
            else:
                self._settle(journal, partition, file, end)
        except Unfit as error:
            self._leave(journal, partition, file, str(error))
        except OSError as error:
            self._surveyor.known(journal, file).retry_at = now + RETRY_SECONDS
            self._tell(Trouble(journal.name, "compress", str(file.path), str(error)))
        return True

    def _compress(
        self, journal: JournalDirectory, partition: int, file: SegmentFile, end: int
    ) -> None:
        started = self._clock()
        level = self._compression.level
        done = compress_segment(self._storage, file, end, level, self._pause)
        self._tell(
            SegmentCompressed(
                journal.name,
                partition,
                str(done.path),
                done.plain_bytes,
                done.stored_bytes,
                self._clock() - started,
            )
        )

    def _settle(
        self, journal: JournalDirectory, partition: int, file: SegmentFile, end: int
    ) -> None:
        removed = settle(self._storage, file, end, self._pause)
        if removed is None:
            self._leave(journal, partition, file, "its compressed form holds something else")
            return
        data = {"journal": journal.name, "partition": partition, "path": str(removed)}
        self._tell(Notice("info", "journal.leftover_removed", data))

    def _leave(
        self, journal: JournalDirectory, partition: int, file: SegmentFile, reason: str
    ) -> None:
        """A segment stays plain as long as this process lives; it is said once."""
        self._surveyor.known(journal, file).left = True
        data = {
            "journal": journal.name,
            "partition": partition,
            "path": str(file.path),
            "reason": reason,
        }
        self._tell(Notice("warning", "journal.left_uncompressed", data))
