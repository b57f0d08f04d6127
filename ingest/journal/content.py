"""The content of a segment, whichever way it is stored, read at any place.

This module must not know commits or records.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from ingest.journal.seekable import Fault, Note, SeekableFile
from ingest.journal.segment import COMPRESSED_SUFFIX, SUFFIX, SegmentFile
from ingest.journal.storage import Storage

SUFFIXES = (SUFFIX, SUFFIX + COMPRESSED_SUFFIX)


class Content(Protocol):
    """A segment opened for reading.

    Attributes:
        descriptor: of the file as it is stored.
        plain: whether it is stored as it is.
        size: bytes of content.
        stored_size: bytes on the disk.
        modified: when it was written to, in seconds since 1970.
        note: what a compressed segment says of itself, None where that is not known.
        faults: what was found wrong with a compressed file so far.
    """

    descriptor: int
    plain: bool
    size: int
    stored_size: int
    modified: float
    note: Note | None
    faults: list[Fault]

    def read(self, size: int, position: int) -> bytes:
        """Up to `size` bytes from `position`; b"" at the end."""

    def head(self, size: int) -> bytes:
        """The first bytes, at most `size`, at little cost."""

    def check(self) -> Fault | None:
        """What is wrong with the file although its content can be read; reads all of it."""

    def close(self) -> None:
        """Close the file."""


class _PlainFile:
    """What is stored as it is."""

    def __init__(self, storage: Storage, path: Path) -> None:
        self._storage = storage
        self.descriptor = storage.open_read(path)
        status = os.fstat(self.descriptor)
        self.plain = True
        self.size = self.stored_size = status.st_size
        self.modified = status.st_mtime
        self.note: Note | None = None
        self.faults: list[Fault] = []

    def read(self, size: int, position: int) -> bytes:
        return self._storage.read(self.descriptor, size, position)

    def head(self, size: int) -> bytes:
        return self.read(size, 0)

    def check(self) -> Fault | None:
        return None  # its commits have checksums, and nothing else is in it

    def close(self) -> None:
        self._storage.close(self.descriptor)


def open_content(storage: Storage, file: SegmentFile) -> Content:
    """Open a segment.

    Raises:
        FileNotFoundError: it was compressed or removed meanwhile.
        OSError: it cannot be read.
    """
    return SeekableFile(storage, file.path) if file.compressed else _PlainFile(storage, file.path)
