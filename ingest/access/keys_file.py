"""Where the keys are: read with its mode checked, written whole or not at all."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingest.access.keys import Keys, KeysError

#: Digests give no key away, but who may write this file may let himself in.
MODE = 0o600


def path_of(setting: str) -> Path | None:
    """The file that the setting `keys_file` names; None where keys are off."""
    return None if setting == "off" else Path(setting)


def load(path: Path) -> Keys:
    """Read a keys file.

    Raises:
        KeysError: it cannot be read, says nothing of use, or others may write it.
    """
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o022:
                raise KeysError(
                    [f"{path}: others may write it (mode {mode:04o}); chmod 600 {path}"]
                )
            text = file.read()
    except OSError as error:
        raise KeysError([f"{path}: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise KeysError([f"{path}: it is not UTF-8 text"]) from None
    try:
        return Keys.parse(text)
    except KeysError as error:
        raise KeysError([f"{path}: {problem}" for problem in error.problems]) from None


@contextmanager
def changing(path: Path) -> Iterator[Keys]:
    """Hold a keys file that is about to be changed; one that is missing has no keys.

    Raises:
        KeysError: it cannot be used.
        OSError: it cannot be locked.
    """
    # Not the file itself: that is replaced, and a lock would stay with the old one.
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield load(path) if path.exists() else Keys()
    finally:
        os.close(lock)


def save(path: Path, keys: Keys) -> None:
    """Replace a keys file, durably.

    Raises:
        OSError: it cannot be written; then the old one is there.
    """
    new = Path(f"{path}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, MODE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), MODE)
        file.write(keys.text())
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
