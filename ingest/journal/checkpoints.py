"""How far consumers have come: for each consumer and partition the next offset it needs.

    data/checkpoints/<name>/<partition>      "<offset> <CRC-32C of the offset, 8 hex digits>\\n"

A consumer saves the offset behind the last record that it is done with. Retention leaves
alone what a consumer still needs, so whoever gives one up removes its checkpoint.

A file is replaced whole, so that a crash leaves the old offset or the new one. One that is
broken nonetheless is told to who loads it; to retention it means that everything is needed.

This module must not know who the consumers are. One process and thread saves a checkpoint
at a time; any may read. Who reads the rejected events has them in `data/checkpoints-rejected`:
offsets there are those of another journal, and its retention waits for nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from google_crc32c import value as checksum

from ingest.journal.storage import Storage

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CONTENT = re.compile(rb"(0|[1-9][0-9]{0,19}) ([0-9a-f]{8})\n")
_READ_BYTES = 64
_TEMPORARY = ".tmp"


class CheckpointBroken(Exception):
    """A checkpoint does not say an offset; the message names the file."""


def directory_of(data: Path, journal: str) -> Path:
    """Where checkpoints are.

    Args:
        data: the data directory.
        journal: name of a journal in it: `journal`, `rejected` or `dead`.
    """
    return data / ("checkpoints" if journal == "journal" else f"checkpoints-{journal}")


class Checkpoints:
    """The checkpoints of a data directory.

    Args:
        directory: see `directory_of`; made when the first one is saved.
        storage: does the file system calls.
    """

    def __init__(self, directory: Path, storage: Storage) -> None:
        self._directory = directory
        self._storage = storage

    def names(self) -> list[str]:
        """The consumers that have saved one, in order of their names."""
        return sorted(name for name in self._listed(self._directory) if _NAME.fullmatch(name))

    def load(self, name: str, partition: int) -> int | None:
        """The next offset a consumer needs, None when it has saved none.

        Raises:
            CheckpointBroken: the file does not say.
            ValueError: `name` can be none.
            OSError: the file cannot be read.
        """
        path = self._path(name, partition)
        try:
            descriptor = self._storage.open_read(path)
        except FileNotFoundError:
            return None
        try:
            content = self._storage.read(descriptor, _READ_BYTES, 0)
        finally:
            self._storage.close(descriptor)
        found = _CONTENT.fullmatch(content)
        if found is None or int(found.group(2), 16) != checksum(found.group(1)):
            raise CheckpointBroken(f"{path} is broken; remove it, or save that checkpoint again")
        return int(found.group(1))

    def save(self, name: str, partition: int, next_offset: int) -> None:
        """Put down durably which offset a consumer needs next.

        Raises:
            ValueError: `name` can be none.
            OSError: it is not saved, or not for certain; the old one may still stand.
        """
        path = self._path(name, partition)
        temporary = path.with_name(path.name + _TEMPORARY)
        self._storage.make_directory(path.parent)
        number = b"%d" % next_offset
        try:
            descriptor = self._storage.open_write(temporary, create=True)
        except FileExistsError:  # a crash left it
            self._storage.remove(temporary)
            descriptor = self._storage.open_write(temporary, create=True)
        try:
            self._storage.write(descriptor, [b"%b %08x\n" % (number, checksum(number))], 0)
            self._storage.sync(descriptor)
        finally:
            self._storage.close(descriptor)
        self._storage.rename(temporary, path)
        self._storage.sync_directory(path.parent)

    def oldest(self, partition: int) -> tuple[str, int] | None:
        """The consumer that is farthest behind in a partition, and the offset it needs.

        A broken checkpoint counts as offset 0. None when there is no checkpoint.

        Raises:
            OSError: a file cannot be read.
        """
        found = []
        for name in self.names():
            try:
                offset = self.load(name, partition)
            except CheckpointBroken:
                offset = 0
            if offset is not None:
                found.append((offset, name))
        if not found:
            return None
        offset, name = min(found)
        return name, offset

    def broken(self) -> Iterator[Path]:
        """The files of those that are broken.

        Raises:
            OSError: a file cannot be read.
        """
        for name in self.names():
            for file in sorted(self._listed(self._directory / name)):
                if file.isdecimal() and file.isascii():
                    try:
                        self.load(name, int(file))
                    except CheckpointBroken:
                        yield self._path(name, int(file))

    def remove(self, name: str) -> None:
        """Forget a consumer; does nothing when there is none of that name.

        Raises:
            ValueError: `name` can be none.
            OSError: it is not removed, or not for certain.
        """
        directory = self._path(name, 0).parent
        files = self._listed(directory)
        for file in files:
            self._storage.remove(directory / file)
        if name in self._listed(self._directory):
            self._storage.remove_directory(directory)
            self._storage.sync_directory(self._directory)

    def _path(self, name: str, partition: int) -> Path:
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"{name!r} can be no checkpoint's name: {_NAME.pattern}")
        return self._directory / name / str(partition)

    def _listed(self, directory: Path) -> list[str]:
        try:
            return self._storage.names(directory)
        except (FileNotFoundError, NotADirectoryError):
            return []
