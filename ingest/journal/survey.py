"""What is stored of a journal: its segments with their sizes and times.

What does not change any more about a closed segment is looked at once and kept, so that a
look at a journal costs a listing of its directories and little else.

This module must not know what follows from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ingest.journal.checkpoints import Checkpoints
from ingest.journal.compressor import TEMPORARY_SUFFIX, remove_quietly
from ingest.journal.reader import first_time
from ingest.journal.retention import Retention, Stored, seconds_of
from ingest.journal.segment import (
    SegmentFile,
    compressed_path,
    list_partitions,
    list_segments,
)
from ingest.journal.storage import Storage

_TEMPORARY = re.compile(r"[0-9]{20}\.ndjson\.zst" + re.escape(TEMPORARY_SUFFIX))
_TORN = re.compile(r"([0-9]{20})\.ndjson(?:\.zst)?\.torn-[0-9]+")


class JournalDirectory(NamedTuple):
    """A journal to look after.

    Attributes:
        name: for logs and metrics.
        directory: of its partitions.
        retention: how long its records are kept.
        checkpoints: of its consumers; None when it has none.
    """

    name: str
    directory: Path
    retention: Retention
    checkpoints: Checkpoints | None = None


class Survey(NamedTuple):
    """One look at a journal, by partition.

    Attributes:
        files: the segments, oldest first.
        stored: the same, with what retention wants to know.
        torn: what recovery cut off, by the base of the segment it was cut off.
        twice: plain files of which the compressed form is there too.
    """

    files: dict[int, list[SegmentFile]]
    stored: dict[int, list[Stored]]
    torn: dict[int, dict[int, list[Path]]]
    twice: set[Path]


class Known:
    """What is known of a closed segment's file.

    Attributes:
        size: bytes on the disk.
        first_time: of its first record, in seconds since 1970; None when there is none.
        keep_seconds: how long it is kept for what is in it; None when nobody has looked yet.
        closed_at: when it was first seen to be closed, in monotonic seconds.
        retry_at: when something that failed may be tried again.
        left: whether it is to stay as it is.
    """

    __slots__ = ("closed_at", "first_time", "keep_seconds", "left", "retry_at", "size")

    def __init__(self, size: int, first_time: float | None, now: float) -> None:
        self.size = size
        self.first_time = first_time
        self.keep_seconds: float | None = None
        self.closed_at = self.retry_at = now
        self.left = False


class Surveyor:
    """Looks at journals, and remembers.

    Args:
        storage: does the file system calls.
        clock: monotonic seconds.
        wall_clock: seconds since 1970.
    """

    def __init__(
        self, storage: Storage, clock: Callable[[], float], wall_clock: Callable[[], float]
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._wall_clock = wall_clock
        self._known: dict[str, dict[Path, Known]] = {}

    def forget_retention(self) -> None:
        """How long files are kept is to be looked up again."""
        for files in self._known.values():
            for known in files.values():
                known.keep_seconds = None

    def look_at(self, journal: JournalDirectory) -> Survey:
        """All there is; what a crash left of a compression is removed on the way.

        Raises:
            OSError: something cannot be read.
        """
        survey = Survey({}, {}, {}, set())
        try:
            partitions = list_partitions(self._storage, journal.directory)
        except FileNotFoundError:
            partitions = []
        before = self._known.get(journal.name, {})
        known = self._known[journal.name] = {}
        for number, directory in partitions:
            names = set(self._storage.names(directory))
            torn = survey.torn[number] = self._torn(directory, names)
            files = survey.files[number] = list_segments(self._storage, directory)
            twice = (file.path for file in files if compressed_path(file.path).name in names)
            survey.twice.update(twice)
            for file in files[:-1]:
                known[file.path] = before.get(file.path) or self._new(file)
            survey.stored[number] = self._stored(journal, number, files, torn)
        return survey

    def known(self, journal: JournalDirectory, file: SegmentFile) -> Known:
        """What is known of a closed segment of the last survey."""
        return self._known[journal.name][file.path]

    def _new(self, file: SegmentFile) -> Known:
        time = seconds_of(first_time(self._storage, file))
        return Known(self._storage.size(file.path), time, self._clock())

    def _torn(self, directory: Path, names: set[str]) -> dict[int, list[Path]]:
        torn: dict[int, list[Path]] = {}
        for name in sorted(names):
            found = _TORN.fullmatch(name)
            if found:
                torn.setdefault(int(found.group(1)), []).append(directory / name)
            elif _TEMPORARY.fullmatch(name):
                remove_quietly(self._storage, directory / name)
        return torn

    def _stored(
        self,
        journal: JournalDirectory,
        partition: int,
        files: list[SegmentFile],
        torn: dict[int, list[Path]],
    ) -> list[Stored]:
        if not files:
            return []
        closed = [self.known(journal, file) for file in files[:-1]]
        sizes = [known.size for known in closed] + [self._storage.size(files[-1].path)]
        newest_time = seconds_of(first_time(self._storage, files[-1]))
        times = [known.first_time for known in closed] + [newest_time]
        stored = []
        since = 0.0
        for index, file in enumerate(files):
            size = sizes[index]
            size += sum(self._storage.size(path) for path in torn.get(file.base, ()))
            # Times only grow: one that cannot be read is not before the one it follows.
            since = max(since, times[index] or since)
            if index == len(closed):
                stored.append(Stored(partition, file.base, None, size, since, self._wall_clock()))
                continue
            # A segment is created when the one before it is closed.
            following = files[index + 1]
            until = times[index + 1] or self._storage.modified(following.path)
            stored.append(Stored(partition, file.base, following.base, size, since, until))
        return stored
