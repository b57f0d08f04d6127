"""Damages a data directory as a disk or a cosmic ray would, and knows what may be lost by it.

A damage is one flipped bit, or a short run of bytes that became zeros, ones or noise, at a
random place of a random segment. It may cost the commits it lies in, and no other; in a
compressed segment, the records of that segment, which the tests keep to one frame.
"""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from ingest.journal.frame import Commit
from ingest.journal.reader import SegmentReader
from ingest.journal.segment import list_segments
from ingest.journal.storage import Storage
from tests.support.audit import stored_in

RUN_MAX = 64


class Flip(NamedTuple):
    """One damage.

    Attributes:
        path: of the file, below the data directory.
        start: first byte that is changed.
        end: byte after the last.
        content: of the whole file, afterwards.
        may_lose: ids of the records that it may cost.
        where: for a person.
    """

    path: str
    start: int
    end: int
    content: bytes
    may_lose: frozenset[str]
    where: str


class Stored(NamedTuple):
    """A commit of the undamaged directory; bytes of its file, or all of a compressed one."""

    path: str
    start: int
    end: int
    ids: frozenset[str]


class Undamaged:
    """A data directory, kept in memory.

    Args:
        data: the directory, of which one partition is used; nobody may be writing to it.
    """

    def __init__(self, data: Path) -> None:
        self.directory = data / "journal" / "0"
        self.stored = stored_in(self.directory)
        self.files = {
            path.name: path.read_bytes()
            for path in sorted(self.directory.iterdir())
            if path.is_file()
        }
        self._segments = [file.path for file in list_segments(Storage(), self.directory)]
        self._commits: list[Stored] = []
        for file in list_segments(Storage(), self.directory):
            plain = file.path.suffix == ".ndjson"
            with closing(SegmentReader(Storage(), file)) as reader:
                for item in reader.poll():
                    assert isinstance(item, Commit)
                    ids = frozenset(_id_of(line) for line in item.lines)
                    start, end = (item.start, item.end) if plain else (0, 1 << 62)
                    self._commits.append(Stored(file.path.name, start, end, ids))

    @property
    def segments(self) -> list[str]:
        return [path.name for path in self._segments]

    def flip(self, chance: random.Random) -> Flip:
        """A new damage."""
        sizes = [len(self.files[name]) for name in self.segments]
        # As often by file as by byte, so that small ones are hit too.
        by = sizes if chance.random() < 0.5 else [min(size, 1) for size in sizes]
        name = chance.choices(self.segments, by)[0]
        old = self.files[name]
        start = chance.randrange(len(old))
        if chance.random() < 0.6:
            new = bytes([old[start] ^ (1 << chance.randrange(8))])
            kind = "a bit"
        else:
            size = min(chance.randint(1, RUN_MAX), len(old) - start)
            new = chance.choice([bytes(size), b"\xff" * size, chance.randbytes(size)])
            kind = f"{size} bytes"
            if new == old[start : start + size]:
                return self.flip(chance)
        end = start + len(new)
        may_lose = frozenset[str]().union(
            *(c.ids for c in self._commits if c.path == name and c.start < end and start < c.end)
        )
        where = f"{kind} at {start} of {name} ({len(old)} bytes)"
        return Flip(name, start, end, old[:start] + new + old[end:], may_lose, where)

    def put(self, directory: Path, flip: Flip | None) -> None:
        """Write the partition to an empty directory, damaged."""
        for name, content in self.files.items():
            damaged = flip is not None and flip.path == name
            (directory / name).write_bytes(flip.content if flip and damaged else content)


def _id_of(line: bytes) -> str:
    start = line.index(b'"id":"') + 6
    return line[start : line.index(b'"', start)].decode()
