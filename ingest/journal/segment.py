"""Segment files: their names, which there are, and one that is being appended to.

`<base offset, 20 digits>.ndjson`, so that names sort as offsets do, and `.ndjson.zst` when
it was closed and compressed (`seekable`, `compressor`). A segment ends where the next
one's base says: records at or past that were never acknowledged (their commit
failed and the journal went on in the next file), and readers pass over them.

Ahead of its end, an open segment is filled with line feeds. fdatasync after writing over
bytes that are there needs no commit of the file system's own journal, which takes half of
its time on a quiet disk and most of it on a busy one; and empty lines are no records to
any reader of NDJSON. The fill is cut off when the segment is closed, and passed over where
a crash left it. See docs/decisions/0001-fill-segments-with-line-feeds.md.

This module must not know threads, waiters or metrics.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from ingest.journal.storage import Storage

SUFFIX = ".ndjson"
COMPRESSED_SUFFIX = ".zst"
_NAME = re.compile(r"([0-9]{20})\.ndjson(?:\.zst)?")


class SegmentFile(NamedTuple):
    """A segment on disk: the offset of its first record, and where it is."""

    base: int
    path: Path

    @property
    def compressed(self) -> bool:
        """Whether the file is the compressed form; it is never written to."""
        return self.path.suffix == COMPRESSED_SUFFIX


def segment_path(directory: Path, base: int) -> Path:
    """Where the segment that starts at offset `base` belongs."""
    return directory / f"{base:020d}{SUFFIX}"


def compressed_path(path: Path) -> Path:
    """Where the compressed form of the plain segment at `path` belongs."""
    return path.with_name(path.name + COMPRESSED_SUFFIX)


def list_segments(storage: Storage, directory: Path) -> list[SegmentFile]:
    """The segments of a partition's directory, oldest first, each once.

    Where both forms of one are there, the plain one counts: a crash came before it was
    removed, and the janitor will see to it.
    """
    found: dict[int, str] = {}
    for name in sorted(storage.names(directory)):  # the plain form comes first
        match = _NAME.fullmatch(name)
        if match:
            found.setdefault(int(match.group(1)), name)
    return [SegmentFile(base, directory / found[base]) for base in sorted(found)]


def successor_of(storage: Storage, directory: Path, file: SegmentFile) -> SegmentFile | None:
    """The segment that follows `file`, None while it is the newest."""
    files = list_segments(storage, directory)
    return next((other for other in files if other.base > file.base), None)


def list_partitions(storage: Storage, journal: Path) -> list[tuple[int, Path]]:
    """The partitions under `data/journal`, by number."""
    names = (name for name in storage.names(journal) if name.isdecimal() and name.isascii())
    return sorted((int(name), journal / name) for name in names)


class Segment:
    """A segment open for appending, owned by one thread at a time.

    Attributes:
        base: offset of its first record.
        position: bytes in it, without the fill.
        unsynced_since: when the oldest byte was written that fdatasync has not covered,
            by the caller's clock; None when all of it is durable.
    """

    def __init__(
        self, storage: Storage, file: SegmentFile, descriptor: int, position: int, opened: float
    ) -> None:
        self._storage = storage
        self._descriptor = descriptor
        self.base = file.base
        self.path = file.path
        self.position = position
        self._filled = position
        self.opened = opened
        self.unsynced_since: float | None = None

    @classmethod
    def create(cls, storage: Storage, directory: Path, base: int, now: float) -> Segment:
        """Create an empty segment whose name is durable before anything is written to it.

        A file that has the name already holds only records at or past `base`, none of
        them acknowledged, or `base` would be higher: it is replaced.

        Raises:
            OSError: nothing is open then.
        """
        file = SegmentFile(base, segment_path(directory, base))
        try:
            descriptor = storage.open_write(file.path, create=True)
        except FileExistsError:
            storage.remove(file.path)
            descriptor = storage.open_write(file.path, create=True)
        try:
            storage.sync_directory(directory)
        except OSError:
            storage.close(descriptor)
            raise
        return cls(storage, file, descriptor, 0, now)

    @classmethod
    def reopen(cls, storage: Storage, file: SegmentFile, position: int, now: float) -> Segment:
        """Open a recovered segment of `position` bytes; what it holds is made durable first."""
        descriptor = storage.open_write(file.path, create=False)
        try:
            storage.sync(descriptor)
        except OSError as error:
            storage.close(descriptor)
            error.filename = str(file.path)
            raise
        segment = cls(storage, file, descriptor, position, now)
        segment._filled = storage.size(file.path)  # what a crash left of the fill
        return segment

    @property
    def filled_left(self) -> int:
        """Bytes of fill behind what is in it: to overwrite those allocates nothing."""
        return self._filled - self.position

    def append(self, parts: list[bytes], now: float, fill: bytes = b"") -> None:
        """Write at the end. After an OSError only `close` may be called.

        Args:
            now: monotonic seconds.
            fill: line feeds to write behind, where there are none left.
        """
        end = self.position + sum(map(len, parts))
        if end > self._filled:
            parts = [*parts, fill]
            self._filled = end + len(fill)
        self._storage.write(self._descriptor, parts, self.position)
        self.position = end
        if self.unsynced_since is None:
            self.unsynced_since = now

    def sync(self) -> None:
        """Make all of it durable. After an OSError only `close` may be called."""
        self.flush()
        self.unsynced_since = None

    def flush(self) -> None:
        """fdatasync and nothing else; may be called while another thread appends."""
        self._storage.sync(self._descriptor)

    def abandon(self) -> None:
        """Close the descriptor of a segment that failed, and ask nothing else of it."""
        self._storage.close(self._descriptor)

    def close(self) -> None:
        """Cut the fill off and close the descriptor; it is gone even when this raises."""
        try:
            if self._filled > self.position:
                self._storage.shorten(self._descriptor, self.position)
        finally:
            self._storage.close(self._descriptor)
