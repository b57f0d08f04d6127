"""What is shown of the journal to readers beside the writer: lists, pages of records, files.

Only what counts is shown. Of a segment that has a successor, these are the commits up to its
successor's base. Of the newest segment it depends on who writes it:

- this process: up to `durable`, one past the last record anybody was told of;
- another process (a partition of another worker): all whole commits but the newest one, which
  counts once another follows it or a second has passed since the file was written to. A
  commit is written only after the one before it is done with, so all but the newest are.

Everything here blocks; it is called in native threads, several at a time. This module must
not know the hub, HTTP or who writes.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from google_crc32c import value as checksum

from ingest.journal.content import SUFFIXES, Content, open_content
from ingest.journal.frame import Damage
from ingest.journal.locate import END, Spot, locate, scan
from ingest.journal.reader import first_time
from ingest.journal.segment import SegmentFile, list_partitions, list_segments
from ingest.journal.storage import Storage

T = TypeVar("T")

#: Since a file was written to: then its newest commit counts, whoever wrote it.
SETTLED_SECONDS = 1.0
#: A segment may be compressed or removed between the listing and the opening.
_TRIES = 5
#: Bytes at the start of a segment by which entity tags tell journals apart.
_TAG_BYTES = 256
#: Kept of closed segments, because it never changes: first times, and where they end.
_KEPT_MAX = 100_000
#: Kept places where pages ended.
_MARKS_MAX = 1024

#: What is read only for the page cache goes here, from any thread; nobody looks at it.
_NOWHERE = memoryview(bytearray(64 << 10))


class OffsetOutOfRange(Exception):
    """There is no record at an offset, and none will come there.

    Args:
        offset: that was asked for.
        first_offset: of the oldest record there is.
        next_offset: of the record that comes next.
    """

    def __init__(self, offset: int, first_offset: int, next_offset: int) -> None:
        super().__init__(f"offset {offset}; there are {first_offset} to {next_offset - 1}")
        self.offset = offset
        self.first_offset = first_offset
        self.next_offset = next_offset


class Page(NamedTuple):
    """Records in a row.

    Attributes:
        offset: of the first of them.
        next_offset: to go on at.
        end_offset: where the partition ends for now.
        body: whole lines, without commit marks.
    """

    offset: int
    next_offset: int
    end_offset: int
    body: bytes


class SegmentInfo(NamedTuple):
    """One file; `bytes` is what can be read of it."""

    segment: str
    first_offset: int
    next_offset: int
    bytes: int
    first_time: str | None
    open: bool


class PartitionInfo(NamedTuple):
    """One partition and its files, oldest first."""

    partition: int
    first_offset: int
    next_offset: int
    segments: list[SegmentInfo]


class OpenSegment:
    """A segment that is being sent; its descriptor lives as long as somebody refers to it.

    Attributes:
        descriptor: of the file as it is on the disk.
        length: bytes of it that count.
        tag: strong entity tag, without quotes: commits are only added, so the start of a
            segment and a length tell what is in it.
        modified: seconds since 1970.
        growing: whether it is the newest of its partition.
    """

    __slots__ = ("descriptor", "growing", "length", "modified", "tag")

    def __init__(self, descriptor: int, length: int, growing: bool) -> None:
        self.descriptor = descriptor
        self.length = length
        self.growing = growing
        self.modified = int(os.fstat(descriptor).st_mtime)
        start = os.pread(descriptor, min(length, _TAG_BYTES), 0)
        self.tag = f"{checksum(start):08x}-{length:x}"

    def fetch(self, position: int, size: int) -> None:
        """Get bytes into the page cache, and the next ones under way; returns when they are."""
        os.posix_fadvise(self.descriptor, position, 2 * size, os.POSIX_FADV_WILLNEED)
        parts = -(-size // len(_NOWHERE))
        os.preadv(self.descriptor, [_NOWHERE] * parts, position)

    def __del__(self) -> None:
        os.close(self.descriptor)


class Pages:
    """Reads a journal, or the rejected one.

    Args:
        directory: of its partitions.
        storage: does the file system calls.
    """

    def __init__(self, directory: Path, storage: Storage) -> None:
        self._directory = directory
        self._storage = storage
        self._times: dict[Path, str | None] = {}
        self._ends: dict[tuple[Path, int], int] = {}
        #: where the last page of a partition ended, for whoever goes on there
        self._marks: dict[tuple[Path, int], int] = {}

    # -- lists --------------------------------------------------------------------------------

    def partitions(self) -> list[int]:
        """The numbers of the partitions."""
        return [number for number, _ in list_partitions(self._storage, self._directory)]

    def describe(self, partition: int, durable: int | None) -> PartitionInfo:
        """The segments of a partition.

        Raises:
            FileNotFoundError: there is no such partition.
        """
        return self._again(lambda: self._describe(partition, durable))

    def _describe(self, partition: int, durable: int | None) -> PartitionInfo:
        files = self._files(partition)
        infos = []
        for index, file in enumerate(files):
            with self._opened(file) as content:
                end = self._shown(content, file, files[index + 1 :], durable)
            time_ = self._first_time(file) if end.position else None
            growing = index + 1 == len(files)
            infos.append(
                SegmentInfo(file.path.name, file.base, end.offset, end.position, time_, growing)
            )
        first, following = (infos[0].first_offset, infos[-1].next_offset) if infos else (0, 0)
        return PartitionInfo(partition, first, following, infos)

    def _first_time(self, file: SegmentFile) -> str | None:
        if file.path not in self._times:
            found = first_time(self._storage, file)
            if len(self._times) >= _KEPT_MAX:
                self._times.clear()
            self._times[file.path] = found.decode() if found is not None else None
        return self._times[file.path]

    # -- pages --------------------------------------------------------------------------------

    def bounds(self, partition: int, durable: int | None) -> tuple[int, int]:
        """The offsets of the oldest record and of the one that comes next.

        Raises:
            FileNotFoundError: there is no such partition.
        """
        return self._again(lambda: self._bounds(self._files(partition), durable))

    def _bounds(self, files: list[SegmentFile], durable: int | None) -> tuple[int, int]:
        if not files:
            return 0, 0
        if durable is not None:
            return files[0].base, durable
        with self._opened(files[-1]) as content:
            return files[0].base, self._end(content, files[-1], [], None).offset

    def page(
        self, partition: int, offset: int, limit: int, max_bytes: int, durable: int | None
    ) -> Page:
        """Records from `offset` on, without a gap between them.

        Args:
            limit: most records.
            max_bytes: most bytes, unless the first record alone is longer.
            durable: see above; None for another process's partition.

        Raises:
            OffsetOutOfRange: `offset` was removed, or lies beyond the end.
            FileNotFoundError: there is no such partition.
        """
        return self._again(lambda: self._page(partition, offset, limit, max_bytes, durable))

    def _page(
        self, partition: int, offset: int, limit: int, max_bytes: int, durable: int | None
    ) -> Page:
        files = self._files(partition)
        first_offset, end_offset = self._bounds(files, durable)
        if not first_offset <= offset <= end_offset:
            raise OffsetOutOfRange(offset, first_offset, end_offset)
        taken = _Taken(offset, limit, max_bytes)
        index = bisect_right(files, offset, key=lambda file: file.base) - 1
        while 0 <= index < len(files) and not taken.full:
            file = files[index]
            index += 1
            bound = files[index].base if index < len(files) else end_offset
            if taken.next_offset < bound:
                with self._opened(file) as content:
                    self._take(content, file, bound, taken)
            if taken.next_offset < bound and not taken.full:
                taken.skip(bound)  # what is missing at the end of a segment will not come
        return Page(taken.offset, taken.next_offset, end_offset, b"".join(taken.parts))

    def _take(self, content: Content, file: SegmentFile, bound: int, taken: _Taken) -> None:
        """Take records of one segment up to offset `bound`."""
        known = self._marks.pop((file.path, taken.next_offset), None)
        if known is not None:
            spot = Spot(known, taken.next_offset)
        else:
            spot = locate(content.read, content.size, file.base, taken.next_offset)
        for item in scan(content.read, spot):
            if isinstance(item, Damage) or item.first + item.records <= taken.next_offset:
                continue
            if item.first >= bound:
                break
            if item.first > taken.next_offset:
                taken.skip(item.first)
            if not taken.full:
                taken.add(item.body, item.first, item.records)
            if taken.next_offset == item.first + item.records:
                spot = Spot(item.end, taken.next_offset)
            if taken.full:
                break
        if spot.offset == taken.next_offset:
            if len(self._marks) >= _MARKS_MAX:
                self._marks.clear()
            self._marks[file.path, spot.offset] = spot.position

    # -- files --------------------------------------------------------------------------------

    def open(self, partition: int, name: str, durable: int | None) -> OpenSegment:
        """Open a segment to be sent as it is.

        Args:
            name: of the file.

        Raises:
            FileNotFoundError: there is no such segment (any more).
        """
        files = self._files(partition)
        names = [file.path.name for file in files]
        if name not in names:
            raise FileNotFoundError(name)
        index = names.index(name)
        with self._opened(files[index]) as content:
            end = self._shown(content, files[index], files[index + 1 :], durable)
            growing = index + 1 == len(files)
            return OpenSegment(os.dup(content.descriptor), end.position, growing)

    # -- what they share ------------------------------------------------------------------------

    def _files(self, partition: int) -> list[SegmentFile]:
        return list_segments(self._storage, self._directory / str(partition))

    @contextmanager
    def _opened(self, file: SegmentFile) -> Iterator[Content]:
        content = open_content(self._storage, file)
        try:
            yield content
        finally:
            content.close()

    def _again(self, look: Callable[[], T]) -> T:
        for _ in range(_TRIES - 1):
            try:
                return look()
            except FileNotFoundError as error:
                if not str(error.filename).endswith(SUFFIXES):
                    raise  # not a segment: there is no such partition
        return look()

    def _shown(
        self, content: Content, file: SegmentFile, later: list[SegmentFile], durable: int | None
    ) -> Spot:
        """How much of a file is shown, in bytes as they are stored, and the offset after it."""
        if not later:
            return self._end(content, file, later, durable)
        if not content.plain:
            return Spot(content.stored_size, later[0].base)
        # It changes no more, but the fill may be cut off it still.
        key = (file.path, content.size)
        if key not in self._ends:
            if len(self._ends) >= _KEPT_MAX:
                self._ends.clear()
            self._ends[key] = self._end(content, file, later, durable).position
        return Spot(self._ends[key], later[0].base)

    def _end(
        self, content: Content, file: SegmentFile, later: list[SegmentFile], durable: int | None
    ) -> Spot:
        """Where what counts of a segment ends."""
        own = later or durable is not None
        bound = later[0].base if later else durable if durable is not None else END
        end = locate(content.read, content.size, file.base, bound)
        before: Spot | None = None
        for item in scan(content.read, end):
            if isinstance(item, Damage):
                continue
            if item.first >= bound:
                break
            before, end = end, Spot(item.end, item.first + item.records)
        if own or not end.position or time.time() - content.modified >= SETTLED_SECONDS:
            return end
        if before is None:  # the search ended right behind the newest commit
            before = locate(content.read, end.position - 1, file.base, END)
            for item in scan(content.read, before):
                if not isinstance(item, Damage) and item.end < end.position:
                    before = Spot(item.end, item.first + item.records)
        return before


class _Taken:
    """Collects the records of a page."""

    def __init__(self, offset: int, limit: int, max_bytes: int) -> None:
        self.offset = self.next_offset = offset
        self.parts: list[bytes] = []
        self.full = False
        self._limit = limit
        self._max_bytes = max_bytes

    def skip(self, offset: int) -> None:
        """Go on behind a gap; a page with records ends before it."""
        if self.parts:
            self.full = True
        else:
            self.offset = self.next_offset = offset

    def add(self, body: bytes, first: int, records: int) -> None:
        """Take what is wanted of a commit and there is room for."""
        text = body + b"}\n"
        if self.next_offset == first and records <= self._limit and len(text) <= self._max_bytes:
            self._count(text, records)
            return
        for line in text.split(b"\n")[self.next_offset - first : -1]:
            if self.full or (self.parts and len(line) >= self._max_bytes):
                self.full = True
                return
            self._count(line + b"\n", 1)

    def _count(self, text: bytes, records: int) -> None:
        self.parts.append(text)
        self.next_offset += records
        self._limit -= records
        self._max_bytes -= len(text)
        self.full = self._limit <= 0 or self._max_bytes <= 0
