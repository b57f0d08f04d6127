"""Reading a partition back, while it is being written or not.

Only whole commits come out, in offset order, each once. A reader may be asked again and
again (`poll`) and goes on where it was, from one segment into the next.

A commit is seen as soon as it is written, which may be before its fdatasync returned. If
that failed, its offsets are given out once more, to the records of the next segment.

This module must not know the hub, waiters or how records are written.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from ingest.journal.frame import Commit, Damage, Scanner
from ingest.journal.record import head_of
from ingest.journal.segment import SegmentFile, list_segments, successor_of
from ingest.journal.storage import Storage

_READ_BYTES = 1 << 20
_HEAD_BYTES = 4096


class SegmentReader:
    """Reads one segment from its start, as far as it goes now.

    Attributes:
        damage: what was wrong so far.
    """

    def __init__(self, storage: Storage, file: SegmentFile) -> None:
        self._storage = storage
        self._descriptor = storage.open_read(file.path)
        self._scanner = Scanner(file.base)
        self._tail_bytes = 0
        self.file = file
        self.damage: list[Damage] = []

    def poll(self) -> Iterator[Commit | Damage]:
        """What has become whole since the last call; to be exhausted."""
        scanner = self._scanner
        read = scanner.position
        content = read  # where the last thing ends that is not fill
        while data := self._storage.read(self._descriptor, _READ_BYTES, read):
            written = len(data.rstrip(b"\n"))
            if written:
                content = read + min(written + 1, len(data))
            read += len(data)
            for item in scanner.feed(data):
                if isinstance(item, Damage):
                    self.damage.append(item)
                yield item
        # What is no commit yet, or fill, may be written over: it is read again next time.
        scanner.rewind()
        self._tail_bytes = max(0, content - scanner.position)

    @property
    def position(self) -> int:
        """Byte after the last whole commit."""
        return self._scanner.position

    @property
    def next_offset(self) -> int:
        """Offset after the last whole commit."""
        return self._scanner.next_offset

    @property
    def tail_bytes(self) -> int:
        """Bytes after the last whole commit, without the fill."""
        return self._tail_bytes

    @property
    def tail_reason(self) -> str:
        """Why the tail is not a commit."""
        return self._scanner.reason or "no commit mark ends it"

    def close(self) -> None:
        """Close the file."""
        self._storage.close(self._descriptor)

    def __enter__(self) -> SegmentReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Found(NamedTuple):
    """A commit, or damage, and the segment it stands in."""

    file: SegmentFile
    item: Commit | Damage


class PartitionReader:
    """Reads the segments of a partition one after the other.

    Args:
        storage: does the file system calls.
        directory: of the partition.
        since: start with the segment that may hold the first record of this time or
            later, in the form of `record.time_text`; earlier records may still come.
    """

    def __init__(self, storage: Storage, directory: Path, since: bytes | None = None) -> None:
        self._storage = storage
        self._directory = directory
        self._since = since
        self._current: SegmentReader | None = None

    def poll(self) -> Iterator[Found]:
        """What has become whole since the last call; to be exhausted."""
        if self._current is None:
            first = self._first()
            if first is None:
                return
            self._current = SegmentReader(self._storage, first)
        while True:
            reader = self._current
            successor = successor_of(self._storage, self._directory, reader.file)
            for item in reader.poll():
                offset = item.first if isinstance(item, Commit) else item.offset
                if successor is None or offset < successor.base:
                    yield Found(reader.file, item)
            if successor is None:
                return
            reader.close()
            self._current = SegmentReader(self._storage, successor)

    def skip(self) -> None:
        """Go to the end of what there is now."""
        files = list_segments(self._storage, self._directory)
        if files:
            self.close()
            self._current = SegmentReader(self._storage, files[-1])
            for _ in self.poll():
                pass

    def close(self) -> None:
        """Close the file that is being read."""
        if self._current is not None:
            self._current.close()
            self._current = None

    def _first(self) -> SegmentFile | None:
        files = list_segments(self._storage, self._directory)
        if not files:
            return None
        if self._since is not None:
            # Times only grow within a partition: skip what ends before that time.
            for file in reversed(files[1:]):
                time = first_time(self._storage, file)
                if time is not None and time < self._since:
                    return file
        return files[0]


def first_time(storage: Storage, file: SegmentFile) -> bytes | None:
    """The time of a segment's first record, None when it has none that can be read."""
    descriptor = storage.open_read(file.path)
    try:
        head = head_of(storage.read(descriptor, _HEAD_BYTES, 0))
    finally:
        storage.close(descriptor)
    return head.time if head is not None else None
