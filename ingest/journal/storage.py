"""Every file system call of the journal, and nothing else.

One object, so that a test can hand in one that fails the Nth write with EIO or fills the
disk. No call here is retried and none swallows an error: what a failure means is decided
by the callers. All of them block; under load only the journal's native thread calls them.

Errors are `OSError` with `filename` set, so that a message can name the place.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

#: Events are for the service and for who is in its group (a shipper, an analyst), never for all
#: users of the machine; a umask may take the group's part away.
DIRECTORY_MODE = 0o750
FILE_MODE = 0o640


class Storage:
    """The real file system."""

    def make_directory(self, path: Path) -> None:
        """Create a directory and those above it; each new entry is made durable.

        So is the entry of one that was there: who made it may have died before that.
        """
        wanted = path
        missing = []
        while not path.is_dir():
            missing.append(path)
            if path.parent == path:
                break
            path = path.parent
        for path in reversed(missing):
            try:
                os.mkdir(path, DIRECTORY_MODE)
            except FileExistsError:  # another process was faster, or it is no directory
                if not path.is_dir():
                    raise
            self.sync_directory(path.parent)
        if not missing:
            try:
                self.sync_directory(wanted.parent)
            except PermissionError:
                pass  # what is above belongs to somebody else, who made the entry then

    def require_writable(self, directory: Path) -> None:
        """See that files can be made in a directory; otherwise the first rotation would tell.

        Raises:
            OSError: none can be (EACCES, EROFS).
        """
        if not os.access(directory, os.W_OK | os.X_OK):
            read_only = os.statvfs(directory).f_flag & os.ST_RDONLY
            code = errno.EROFS if read_only else errno.EACCES
            raise OSError(code, os.strerror(code), str(directory))

    def open_write(self, path: Path, *, create: bool) -> int:
        """Open a file for writing; with `create` it must not exist yet."""
        flags = os.O_WRONLY | os.O_CLOEXEC
        if create:
            flags |= os.O_CREAT | os.O_EXCL
        return os.open(path, flags, FILE_MODE)

    def write(self, descriptor: int, parts: Sequence[bytes], position: int) -> None:
        """Write all parts one after the other from `position` on, in one call as a rule.

        Raises:
            OSError: not all was written; how much of it was is not known.
        """
        size = sum(map(len, parts))
        done = os.pwritev(descriptor, parts, position)
        while done < size:  # the kernel may stop short, for example at a full disk
            done += os.pwrite(descriptor, b"".join(parts)[done:], position + done)

    def shorten(self, descriptor: int, size: int) -> None:
        """Cut an open file to `size` bytes, not necessarily durably."""
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        """Make the file's content durable (fdatasync)."""
        os.fdatasync(descriptor)

    def close(self, descriptor: int) -> None:
        """Close; the descriptor is gone even when this raises."""
        os.close(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Make creations, renames and removals in a directory durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError as error:
            error.filename = str(path)
            raise
        finally:
            os.close(descriptor)

    def truncate(self, path: Path, size: int) -> None:
        """Cut a file to `size` bytes and make that durable."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(descriptor, size)
            os.fsync(descriptor)
        except OSError as error:
            error.filename = str(path)
            raise
        finally:
            os.close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        """Rename within a directory; the caller syncs the directory."""
        os.rename(old, new)

    def remove(self, path: Path) -> None:
        """Remove a file; the caller syncs the directory."""
        os.unlink(path)

    def remove_directory(self, path: Path) -> None:
        """Remove an empty directory; the caller syncs the one above."""
        os.rmdir(path)

    def names(self, directory: Path) -> list[str]:
        """The names in a directory, in no order."""
        return os.listdir(directory)

    def size(self, path: Path) -> int:
        """Bytes in a file."""
        return os.stat(path).st_size

    def modified(self, path: Path) -> float:
        """When a file was last written to, in seconds since 1970."""
        return os.stat(path).st_mtime

    def open_read(self, path: Path) -> int:
        """Open a file for reading."""
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, descriptor: int, size: int, position: int) -> bytes:
        """Up to `size` bytes from `position`; b"" at the end of the file."""
        return os.pread(descriptor, size, position)

    def free_bytes(self, path: Path) -> int:
        """Bytes an unprivileged process may still write on the file system of `path`."""
        status = os.statvfs(path)
        return status.f_bavail * status.f_frsize
