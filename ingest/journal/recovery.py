"""What is done to a partition before anything is appended to it.

Only the newest segment can have been written to when the process died. In it:

    all of it is whole commits          → append after them
    bytes after the last whole commit   → they were never acknowledged after fdatasync: moved
                                          to `<segment>.torn-<n>`, and the segment is cut
    damage before a whole commit        → the disk's or a person's doing. Nothing is thrown
                                          away: what follows it was acknowledged. Appending
                                          goes on in a new segment, readers pass over it
    it is compressed                    → it was closed; never written to again. Appending
                                          goes on in a new segment behind all that it held

Then the segment is made durable before its records count: the process that wrote them may
have died between write and fdatasync.

This module must not know threads, waiters, logs or metrics; it reports.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ingest.journal.frame import Commit, Damage
from ingest.journal.reader import SegmentReader
from ingest.journal.record import head_of
from ingest.journal.segment import Segment, SegmentFile, list_segments
from ingest.journal.storage import Storage

_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class RecoveryReport:
    """What was found and done.

    Attributes:
        segments: files there are now.
        next_offset: of the next record.
        last_id: of the last record, None when there is none.
        segment: the file that was looked at.
        torn_bytes: after the last whole commit.
        torn_path: where they are now; None when there was no room to keep them: then they
            were left, and appending goes on in a new segment.
        damage: wrong bytes before a whole commit.
    """

    segments: int
    next_offset: int
    last_id: bytes | None = None
    segment: Path | None = None
    torn_bytes: int = 0
    torn_path: Path | None = None
    damage: tuple[Damage, ...] = ()


def recover(storage: Storage, directory: Path, now: float) -> tuple[RecoveryReport, Segment]:
    """Bring a partition's directory into a state that can be appended to.

    Args:
        storage: does the file system calls.
        directory: of the partition; made if missing.
        now: monotonic seconds, from which the segment's age counts.

    Raises:
        OSError: the directory cannot be made, read or written.
    """
    storage.make_directory(directory.parent)
    storage.make_directory(directory)
    storage.require_writable(directory)
    files = list_segments(storage, directory)
    if not files:
        return RecoveryReport(segments=1, next_offset=0), Segment.create(storage, directory, 0, now)
    newest = files[-1]
    last, reader = _last_commit(storage, newest)
    if newest.compressed:
        return _behind_compressed(storage, directory, newest, last, reader, now)
    position = reader.position
    torn_bytes = reader.tail_bytes
    torn_path = _keep_tail(storage, newest, position, torn_bytes) if torn_bytes else None
    if torn_path is not None and not position:  # the whole file was moved away
        segment = Segment.create(storage, directory, reader.next_offset, now)
    else:
        segment = Segment.reopen(storage, newest, position, now)
        if reader.damage or (torn_bytes and torn_path is None):
            segment.abandon()
            segment = Segment.create(storage, directory, reader.next_offset, now)
    storage.sync_directory(directory)
    files = list_segments(storage, directory)
    report = RecoveryReport(
        segments=len(files),
        next_offset=reader.next_offset,
        last_id=_last_id(storage, files, last),
        segment=newest.path,
        torn_bytes=torn_bytes,
        torn_path=torn_path,
        damage=tuple(reader.damage),
    )
    return report, segment


def _behind_compressed(
    storage: Storage,
    directory: Path,
    newest: SegmentFile,
    last: Commit | None,
    reader: SegmentReader,
    now: float,
) -> tuple[RecoveryReport, Segment]:
    """Go on in a new segment; offsets that were given out are not given out again."""
    next_offset = reader.next_offset
    if reader.note is not None:
        next_offset = max(next_offset, reader.note.next_offset)
    torn_bytes, torn_path = 0, None
    if next_offset == newest.base:  # nothing in it can be read: its name is needed
        torn_bytes = storage.size(newest.path)
        torn_path = _keep_tail(storage, newest, 0, torn_bytes)
    segment = Segment.create(storage, directory, next_offset, now)
    files = list_segments(storage, directory)
    report = RecoveryReport(
        segments=len(files),
        next_offset=next_offset,
        last_id=_last_id(storage, files, last),
        segment=newest.path,
        torn_bytes=torn_bytes,
        torn_path=torn_path,
        damage=(*reader.damage, *reader.faults),
    )
    return report, segment


def _last_commit(storage: Storage, file: SegmentFile) -> tuple[Commit | None, SegmentReader]:
    last: Commit | None = None
    with SegmentReader(storage, file) as reader:
        for item in reader.poll():
            if isinstance(item, Commit):
                last = item
    return last, reader


def _last_id(storage: Storage, files: list[SegmentFile], last: Commit | None) -> bytes | None:
    """The id of the partition's last record; looks back over segments without any."""
    if last is not None:
        return _id_of(last)
    for file, following in reversed(list(pairwise(files))):
        with SegmentReader(storage, file) as reader:
            for item in reader.poll():
                if isinstance(item, Commit) and item.first < following.base:
                    last = item
        if last is not None:
            return _id_of(last)
    return None


def _id_of(commit: Commit) -> bytes | None:
    head = head_of(commit.lines[-1])
    return head.stored_id if head is not None else None


def _keep_tail(storage: Storage, file: SegmentFile, position: int, size: int) -> Path | None:
    """Move the `size` bytes from `position` on out of a segment.

    Returns:
        where they are now; None when there is no room for a copy, and nothing was done.
    """
    torn = _free_name(storage, file.path)
    if not position:
        storage.rename(file.path, torn)
        storage.sync_directory(file.path.parent)
        return torn
    try:
        _copy(storage, file.path, position, size, torn)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        if torn.name in storage.names(torn.parent):
            storage.remove(torn)
        return None
    storage.sync_directory(file.path.parent)
    storage.truncate(file.path, position)
    return torn


def _free_name(storage: Storage, path: Path) -> Path:
    taken = set(storage.names(path.parent))
    number = 1
    while f"{path.name}.torn-{number}" in taken:
        number += 1
    return path.with_name(f"{path.name}.torn-{number}")


def _copy(storage: Storage, source: Path, position: int, size: int, target: Path) -> None:
    reading = storage.open_read(source)
    try:
        writing = storage.open_write(target, create=True)
        try:
            written = 0
            while left := size - written:
                data = storage.read(reading, min(left, _COPY_BYTES), position + written)
                storage.write(writing, [data], written)
                written += len(data)
            storage.sync(writing)
        finally:
            storage.close(writing)
    finally:
        storage.close(reading)
