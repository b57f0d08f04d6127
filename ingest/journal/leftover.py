"""Partitions that nobody writes: those of an earlier run with more workers.

They stay readable and are looked after like others. What the process that wrote them left
behind when it died is put in order as for a partition that is opened (`recovery`): a torn tail
is kept aside, the newest segment is made durable and its fill is cut off. Nothing is ever
appended to them.

This module must not know workers or metrics.
"""

from __future__ import annotations

from pathlib import Path

from ingest.journal.recovery import RecoveryReport, recover
from ingest.journal.segment import list_partitions, list_segments
from ingest.journal.storage import Storage


def settle(storage: Storage, journal: Path, writers: int) -> list[tuple[int, RecoveryReport]]:
    """Put the partitions from number `writers` on in order; blocks. Under the lock only.

    Args:
        journal: `data/journal` or `data/rejected`.
        writers: how many partitions have a writer: those below this number.

    Returns:
        by partition, what was found, where there was something to look at.

    Raises:
        OSError: a file cannot be read or written; `filename` says which.
    """
    if not journal.is_dir():
        return []
    found = []
    for number, directory in list_partitions(storage, journal):
        if number < writers:
            continue
        files = list_segments(storage, directory)
        if not files or files[-1].compressed:
            continue  # it was closed, and all of it is durable
        report, segment = recover(storage, directory, 0.0)
        segment.close()
        found.append((number, report))
    return found
