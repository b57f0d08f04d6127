"""How far a replay has come, kept under a name, so that it goes on there after any end.

It is a consumer's checkpoint (`checkpoints.py`), and retention leaves alone what the replay
has yet to read. Replays of rejected events have a directory of their own: offsets there are
those of another journal.

This module must not know what is sent where.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

from ingest.journal.checkpoints import Checkpoints
from ingest.journal.storage import FILE_MODE, Storage

#: How often the place is written down while events are sent.
SAVE_SECONDS = 1.0
_LOCK = "lock"


class PlaceTaken(Exception):
    """Another replay goes by the same name; the message says so."""


class Place:
    """A replay's place in each partition.

    Args:
        directory: see `checkpoints.directory_of`.
        name: of the checkpoint; None to keep nothing.
        flush: is called before a place is written down: what is sent must have left.
        clock: seconds, as `time.monotonic`.

    Attributes:
        last: the partition and the next offset that were reached last, None at first.

    Raises:
        PlaceTaken: another process has it.
        ValueError: `name` can be none.
        OSError: it cannot be kept there.
    """

    def __init__(
        self,
        directory: Path,
        name: str | None,
        flush: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checkpoints = Checkpoints(directory, Storage())
        self._name = name
        self._flush = flush
        self._clock = clock
        self._saved_at = clock()
        self._unsaved: tuple[int, int] | None = None
        self.last: tuple[int, int] | None = None
        self._lock = -1
        if name is not None:
            self._checkpoints.load(name, 0)  # what can be no name must make no directory
            self._lock = _locked(directory / name, name)

    def load(self, partition: int) -> int | None:
        """The next offset to send, None when nothing was kept.

        Raises:
            CheckpointBroken: the file does not say.
            OSError: it cannot be read.
        """
        return self._checkpoints.load(self._name, partition) if self._name is not None else None

    def reached(self, partition: int, next_offset: int) -> None:
        """All before this offset is done; written down now and then.

        Raises:
            OSError: it cannot be written down.
        """
        self._unsaved = self.last = (partition, next_offset)
        if self._clock() - self._saved_at >= SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the place down.

        Raises:
            OSError: that failed.
        """
        self._flush()
        if self._name is not None and self._unsaved is not None:
            self._checkpoints.save(self._name, *self._unsaved)
        self._unsaved = None
        self._saved_at = self._clock()

    def close(self) -> None:
        """Let another replay have the name."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _locked(directory: Path, name: str) -> int:
    Storage().make_directory(directory)
    descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise PlaceTaken(f"another replay goes by the checkpoint {name!r}") from None
        raise
    return descriptor
