"""Reads the events of one type out of one partition, batch by batch, in journal order.

Only what the journal has told its producers of is given out: a commit is in the file before
its fdatasync has returned, and its offsets are used again when that fails. So the reader is
given a limit, the journal's `next_offset` **read before the segments are looked at**: every
record before it is settled, wherever later ones end up.

    limit = journal.next_offset          (on the hub)
    poll: which segment is next? → read  (in a native thread)
    a commit at or past the limit: forgotten, and looked for again next time

It is called by one native thread at a time, so it must not log or count: it returns what
there is to say. It works a moment and then leaves the interpreter to the event loop.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gevent.monkey import get_original

from ingest.handlers.consumers import Record
from ingest.journal.frame import Commit
from ingest.journal.reader import Found, PartitionReader
from ingest.journal.record import head_of, quoted
from ingest.journal.segment import list_segments
from ingest.journal.storage import Storage

#: A thread works so long at most before it leaves the interpreter to the event loop, and
#: then rests so many times as long.
WORK_SECONDS = 0.0005
REST_SHARE = 3
#: Records of other types after which a fetch returns, so that a stop need not wait for long.
PASSED_MAX = 200_000

# What gevent put in its place would want a hub in the thread.
_sleep = get_original("time", "sleep")


class Pace:
    """Shares the interpreter with the event loop; one for each piece of work in a thread."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def __call__(self) -> None:
        """Rest, if it is time to."""
        worked = time.monotonic() - self._since
        if worked >= WORK_SECONDS:
            _sleep(REST_SHARE * worked)
            self._since = time.monotonic()


class Gap(NamedTuple):
    """Records that are not there: removed, or damaged."""

    first: int
    records: int
    reason: str


class Fetched(NamedTuple):
    """What one look into the journal gave.

    Attributes:
        records: in order; may be none.
        next_offset: behind the last one that was looked at.
        full: whether it was the size of the batch that ended it, not that of the journal.
        gaps: what was missing on the way.
    """

    records: list[Record]
    next_offset: int
    full: bool
    gaps: list[Gap]


class BatchReader:
    """Reads on where it was.

    Args:
        storage: does the file system calls.
        directory: of the partition.
        type_name: whose events are wanted.
        start: offset to begin with.
        events_max: most in one batch.
        bytes_max: from so many bytes on a batch is full.

    Attributes:
        position: offset of the next record to be looked at.
    """

    def __init__(
        self,
        storage: Storage,
        directory: Path,
        type_name: str,
        start: int,
        events_max: int,
        bytes_max: int,
    ) -> None:
        self._storage = storage
        self._directory = directory
        self._type = quoted(type_name)[1:-1].encode()
        self._needle = b',"type":"' + self._type + b'","time":'
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._reader = PartitionReader(storage, directory)
        self._found: Iterator[Found] | None = None
        self._found_limit = 0
        self._astray = True  # the reader does not stand where `position` is
        #: of the commit that was read last: what no batch has had yet
        self._lines: deque[Record] = deque()
        self.position = start

    def behind(self, limit: int) -> bool:
        """Whether there is anything before `limit` that was not given out."""
        return bool(self._lines) or self.position < limit

    def rewind(self, offset: int) -> None:
        """Go on with the record of this offset."""
        self._lines.clear()
        self.position = offset
        self._forget()

    def fetch(self, limit: int) -> Fetched:
        """The next batch of what is before `limit`.

        Args:
            limit: the journal's `next_offset`, asked for before this is called.

        Raises:
            OSError: the journal cannot be read; to be called again.
        """
        records: list[Record] = []
        gaps: list[Gap] = []
        size = passed = 0
        pace = Pace()
        while len(records) < self._events_max and size < self._bytes_max and passed < PASSED_MAX:
            while self._lines and len(records) < self._events_max and size < self._bytes_max:
                record = self._lines.popleft()
                records.append(record)
                size += len(record.line)
            if self._lines or self.position >= limit:
                break
            commit = self._next(limit, gaps)
            if commit is None:
                break
            passed += commit.records
            self._take(commit, pace)
            pace()
        next_offset = self._lines[0].offset if self._lines else self.position
        full = bool(self._lines) or len(records) >= self._events_max or size >= self._bytes_max
        return Fetched(records, next_offset, full or passed >= PASSED_MAX, gaps)

    def _next(self, limit: int, gaps: list[Gap]) -> Commit | None:
        """The commit at `position`; None when there is none before the limit."""
        try:
            for _ in range(2):
                commit = self._poll(limit, gaps)
                if commit is not None:
                    return commit
                if self.position >= limit:
                    return None
                # The limit was a younger one than that of the poll, or files have changed.
                self._forget()
            self._pass_over_removed(limit, gaps)
        except OSError:
            self._forget()
            raise
        return None

    def _poll(self, limit: int, gaps: list[Gap]) -> Commit | None:
        if self._found is None:
            if self._astray:
                self._reader.seek(self.position)
                self._astray = False
            self._found = self._reader.poll()
            self._found_limit = limit
        damage = ""
        for found in self._found:
            item: Any = found.item
            if not isinstance(item, Commit):
                damage = item.reason
                continue
            if item.first >= self._found_limit:
                self._forget()
                return None
            if item.first > self.position:
                reason = damage or "removed by retention"
                gaps.append(Gap(self.position, item.first - self.position, reason))
            self.position = item.first + item.records
            return item
        self._found = None
        return None

    def _forget(self) -> None:
        """Look for `position` anew next time."""
        self._found = None
        self._astray = True

    def _pass_over_removed(self, limit: int, gaps: list[Gap]) -> None:
        """What is before the last segment, and was not found, is nowhere."""
        bases = [
            file.base
            for file in list_segments(self._storage, self._directory)
            if file.base <= limit
        ]
        if bases and bases[-1] > self.position:
            gaps.append(Gap(self.position, bases[-1] - self.position, "removed by retention"))
            self.position = bases[-1]

    def _take(self, commit: Commit, pace: Callable[[], None]) -> None:
        if self._needle not in commit.body:
            return
        for offset, line in enumerate(commit.lines, commit.first):
            if self._needle in line:
                head = head_of(line)
                if head is not None and head.type == self._type:
                    self._lines.append(Record(offset, line))
            pace()

    def close(self) -> None:
        """Close the file that is being read."""
        self._reader.close()
        self._forget()
