"""One process per data directory.

An flock on `ingest.lock`: the kernel drops it with the process, however that ends, so
there is no stale lock to clean up. The file holds the owner's pid for people.

This module must not know what the directory holds.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from ingest.journal.storage import FILE_MODE, Storage

LOCK_NAME = "ingest.lock"


class DataDirectoryLocked(Exception):
    """Another process holds the data directory; the message names it."""


class DirectoryLock:
    """The exclusive lock on a data directory.

    Args:
        directory: the data directory; created by `acquire` if it is missing.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor = -1

    def acquire(self, inherited: int | None = None) -> None:
        """Take the lock, or say at once who has it.

        Args:
            inherited: the open lock file of the process that became this one, which holds the
                lock already.

        Raises:
            DataDirectoryLocked: another process holds it.
            OSError: the directory or the lock file cannot be made or opened.
        """
        storage = Storage()
        storage.make_directory(self._directory)  # durably: the journal will stand in it
        storage.require_writable(self._directory)
        path = self._directory / LOCK_NAME
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        if inherited is not None:
            if os.path.sameopenfile(inherited, descriptor):
                os.close(descriptor)
                descriptor = inherited
            else:
                os.close(inherited)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise DataDirectoryLocked(
                f"data directory {self._directory} is in use by process {owner or 'unknown'}; "
                "stop it, or name another directory with --data"
            ) from None
        except OSError as error:
            os.close(descriptor)
            error.filename = str(path)
            raise
        self._descriptor = descriptor
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        except OSError:
            pass  # a full disk: the lock is what counts, the pid only helps people

    def readable_by_all(self) -> bool:
        """Whether every user of this machine can look into the directory."""
        return bool(self._directory.stat().st_mode & (stat.S_IROTH | stat.S_IXOTH))

    @property
    def descriptor(self) -> int:
        """The open lock file: as long as any process holds a copy, the lock is held."""
        return self._descriptor

    def release(self) -> None:
        """Give the lock back; does nothing when it is not held."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
