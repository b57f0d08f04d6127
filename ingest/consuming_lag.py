"""Which partitions a worker follows, and how many bytes of one are behind a record.

All of it blocks, or is called in a native thread. This module must not know consumers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ingest.followers import Followers
from ingest.journal.content import open_content
from ingest.journal.frame import Commit
from ingest.journal.locate import END
from ingest.journal.reader import SegmentReader
from ingest.journal.segment import SegmentFile, list_partitions, list_segments
from ingest.journal.storage import Storage


class Ruler:
    """Measures one partition, and remembers the sizes of files that change no more.

    Args:
        storage: does the file system calls.
        directory: of the partition.
    """

    def __init__(self, storage: Storage, directory: Path) -> None:
        self._storage = storage
        self._directory = directory
        self._sizes: dict[int, int] = {}

    def next_offset(self) -> int:
        """Offset behind the last record; of a partition that nobody writes to.

        Raises:
            OSError: a file cannot be read, or went away meanwhile.
        """
        files = list_segments(self._storage, self._directory)
        return self._end_of(files[-1])[1] if files else 0

    def bytes_behind(self, offset: int) -> int:
        """Bytes of content from the commit of a record on, without the fill.

        Raises:
            OSError: a file cannot be read, or went away meanwhile.
        """
        files = list_segments(self._storage, self._directory)
        first = max((n for n, file in enumerate(files) if file.base <= offset), default=0)
        files = files[first:]
        self._sizes = {
            file.base: self._sizes[file.base] for file in files if file.base in self._sizes
        }
        if not files:
            return 0
        total = self._end_of(files[-1])[0] - self._start_of(files[0], offset)
        return max(0, total + sum(map(self._size_of, files[:-1])))

    def _size_of(self, file: SegmentFile) -> int:
        size = self._sizes.get(file.base)
        if size is None:
            content = open_content(self._storage, file)
            try:
                size = self._sizes[file.base] = content.size
            finally:
                content.close()
        return size

    def _end_of(self, file: SegmentFile) -> tuple[int, int]:
        """The byte after a segment's last commit, and the offset."""
        with SegmentReader(self._storage, file, END) as reader:
            for _ in reader.poll():
                pass
            return reader.position, reader.next_offset

    def _start_of(self, file: SegmentFile, offset: int) -> int:
        """The byte at which a record's commit starts; the end where it is not there yet."""
        with SegmentReader(self._storage, file, offset) as reader:
            for item in reader.poll():
                if isinstance(item, Commit) and item.first + item.records > offset:
                    return item.start
            return reader.position


class Followed(NamedTuple):
    """A partition that a worker follows.

    Attributes:
        number, directory: of the partition.
        end: its next offset.
        followers: tell of commits.
    """

    number: int
    directory: Path
    end: Callable[[], int]
    followers: Followers


def followed_by(
    worker: int, workers: int, journal: Path, end: Callable[[], int], followers: Followers
) -> list[Followed]:
    """The partition that a worker writes, and its share of those that nobody writes any more.

    Args:
        worker: its number.
        workers: how many there are.
        journal: the directory of all partitions.
        end, followers: of its own partition.

    Raises:
        OSError: a file cannot be read.
    """
    found = [Followed(worker, journal / str(worker), end, followers)]
    for number, directory in list_partitions(Storage(), journal):
        if number >= workers and number % workers == worker:
            last = Ruler(Storage(), directory).next_offset()
            found.append(Followed(number, directory, lambda last=last: last, Followers()))  # type: ignore[misc]
    return found
