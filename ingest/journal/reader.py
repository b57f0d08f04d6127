"""Reading a partition back, while it is being written or not.

Only whole commits come out, in offset order, each once. A reader may be asked again and
again (`poll`) and goes on where it was, from one segment into the next.

A compressed segment reads like the one it was made from: all positions are those of the
content. The janitor may replace or remove a file at any time. Whoever has it open reads it
to its end; whoever is about to open it looks again (`open_segment`).

A commit is seen as soon as it is written, which may be before its fdatasync returned. If
that failed, its offsets are given out once more, to the records of the next segment.

This module must not know the hub, waiters or how records are written.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from ingest.journal.content import Content, open_content
from ingest.journal.frame import Commit, Damage, Scanner
from ingest.journal.locate import locate
from ingest.journal.record import head_of
from ingest.journal.seekable import Note
from ingest.journal.segment import SegmentFile, list_segments, successor_of
from ingest.journal.storage import Storage

_READ_BYTES = 1 << 20
_HEAD_BYTES = 4096
#: How often a segment is looked for again that was replaced or removed meanwhile.
_OPEN_ATTEMPTS = 8


class SegmentReader:
    """Reads one segment, as far as it goes now.

    Args:
        storage: does the file system calls.
        file: the segment.
        offset: a commit well before that of this offset may be the first to come; by
            default the segment is read from its start.
        step: bytes that are read at a time.

    Attributes:
        damage: commits that are wrong, so far.
        faults: what is wrong with the compressed file itself so far; where commits are
            lost by it, they are in `damage` or missing at the end.
    """

    def __init__(
        self, storage: Storage, file: SegmentFile, offset: int = 0, step: int = _READ_BYTES
    ) -> None:
        self._content = open_content(storage, file)
        self._step = step
        self._scanner = Scanner(file.base)
        self._faults_seen = 0
        self._tail_bytes = 0
        self.file = file
        self.damage: list[Damage] = []
        self.faults: list[Damage] = []
        if offset > file.base:
            try:
                spot = locate(self._content.read, self._content.size, file.base, offset)
            except BaseException:
                self._content.close()
                raise
            self._scanner.position, self._scanner.next_offset = spot

    def poll(self) -> Iterator[Commit | Damage]:
        """What has become whole since the last call; to be exhausted."""
        scanner = self._scanner
        read = scanner.position
        content = read  # where the last thing ends that is not fill
        while data := self._content.read(self._step, read):
            self._look_at_faults()
            written = len(data.rstrip(b"\n"))
            if written:
                content = read + min(written + 1, len(data))
            read += len(data)
            for item in scanner.feed(data):
                if isinstance(item, Damage):
                    item = self._explained(item)
                    self.damage.append(item)
                yield item
        self._look_at_faults()
        # What is no commit yet, or fill, may be written over: it is read again next time.
        scanner.rewind()
        self._tail_bytes = max(0, content - scanner.position)

    def _look_at_faults(self) -> None:
        """Take note of the compressed file's new faults, with the offset that is due there."""
        for fault in self._content.faults[self._faults_seen :]:
            reason = f"byte {fault.byte} of the compressed file: {fault.reason}"
            self.faults.append(Damage(fault.start, fault.start, self._scanner.next_offset, reason))
            self._faults_seen += 1

    def _explained(self, damage: Damage) -> Damage:
        if damage.reason:
            return damage
        reasons = [fault.reason for fault in self.faults if fault.start < damage.end]
        return damage._replace(reason=reasons[-1] if reasons else "no commit mark ends it")

    def check(self) -> str:
        """Read the stored bytes once more: what is wrong with them though all can be read."""
        fault = self._content.check()
        return fault.reason if fault is not None else ""

    def first_time(self) -> bytes | None:
        """The time of the first record, None when there is none that can be read."""
        return _first_time(self._content)

    @property
    def content_bytes(self) -> int:
        """Bytes of content when it was opened, the fill included."""
        return self._content.size

    @property
    def stored_bytes(self) -> int:
        """Bytes on the disk when it was opened."""
        return self._content.stored_size

    @property
    def note(self) -> Note | None:
        """What a compressed segment says of itself, None where that is not known."""
        return self._content.note

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
        self._content.close()

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
        self._from = 0  # records before this offset are not given out
        self._current: SegmentReader | None = None

    def poll(self) -> Iterator[Found]:
        """What has become whole since the last call; to be exhausted."""
        if self._current is None:
            self._current = self._first()
        while self._current is not None:
            reader = self._current
            successor = successor_of(self._storage, self._directory, reader.file)
            end = successor.base if successor is not None else None
            for item in _cut(reader.poll(), self._from):
                offset = item.first if isinstance(item, Commit) else item.offset
                if end is None or offset < end:
                    yield Found(reader.file, item)
            if end is None:
                return
            self._from = max(self._from, end)
            self._current = open_segment(self._storage, self._directory, end)
            reader.close()

    def seek(self, offset: int) -> None:
        """Go on with the record of this offset, or the first one there is behind it."""
        self.close()
        self._from = offset
        files = list_segments(self._storage, self._directory)
        base = max((file.base for file in files if file.base <= offset), default=0)
        self._current = open_segment(self._storage, self._directory, base, offset)

    def skip(self) -> None:
        """Go to the end of what there is now."""
        files = list_segments(self._storage, self._directory)
        if files:
            self.close()
            self._current = open_segment(self._storage, self._directory, files[-1].base)
            for _ in self.poll():
                pass

    def close(self) -> None:
        """Close the file that is being read."""
        if self._current is not None:
            self._current.close()
            self._current = None

    def _first(self) -> SegmentReader | None:
        files = list_segments(self._storage, self._directory)
        base = 0
        if self._since is not None:
            # Times only grow within a partition: skip what ends before that time.
            for file in reversed(files[1:]):
                try:
                    time = first_time(self._storage, file)
                except FileNotFoundError:  # replaced or removed since it was listed
                    continue
                if time is not None and time < self._since:
                    base = file.base
                    break
        return open_segment(self._storage, self._directory, base)


def _cut(items: Iterator[Commit | Damage], offset: int) -> Iterator[Commit | Damage]:
    """Without the records before `offset`, and without damage that concerns only them."""
    held: list[Damage] = []
    for item in items:
        if isinstance(item, Damage):
            held.append(item)  # which records are lost, the commit behind it says
            continue
        if item.first > offset:
            yield from held
        held.clear()
        if item.first >= offset:
            yield item
        elif item.first + item.records > offset:
            before = offset - item.first
            body = item.body.split(b"\n", before)[before]
            start = item.start + len(item.body) - len(body)
            yield Commit(offset, item.records - before, start, item.end, body)


def open_segment(
    storage: Storage, directory: Path, base: int, offset: int = 0
) -> SegmentReader | None:
    """Open the segment that starts at `base`, in either form, or the first one behind it.

    Args:
        offset: as for `SegmentReader`.

    Returns:
        None when there is none.

    Raises:
        OSError: it cannot be read.
    """
    for attempt in range(_OPEN_ATTEMPTS):
        files = list_segments(storage, directory)
        file = next((file for file in files if file.base >= base), None)
        if file is None:
            return None
        try:
            return SegmentReader(storage, file, offset)
        except FileNotFoundError:  # replaced or removed since it was listed
            if attempt == _OPEN_ATTEMPTS - 1:
                raise
    return None


def first_time(storage: Storage, file: SegmentFile) -> bytes | None:
    """The time of a segment's first record, None when it has none that can be read.

    Raises:
        OSError: as `open_content`.
    """
    content = open_content(storage, file)
    try:
        return _first_time(content)
    finally:
        content.close()


def _first_time(content: Content) -> bytes | None:
    head = head_of(content.head(_HEAD_BYTES))
    return head.stored_time if head is not None else None
