"""Tells one state of a file from another, for those who look whether it has changed."""

from __future__ import annotations

import os
from pathlib import Path


def stamp(path: str | Path) -> tuple[int, int, int, int] | None:
    """What changes with a file, or with what a symbolic link leads to; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode
