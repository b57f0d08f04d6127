"""Turns a closed segment into its compressed form, and never loses one on the way.

    <base>.ndjson                                           there
      → <base>.ndjson.zst.tmp     written, synced, read back and compared
      → <base>.ndjson.zst         renamed, the directory synced: both forms are there
      → <base>.ndjson             removed, the directory synced

A crash at any point leaves the plain form, the compressed one, or both and equal; readers
take the plain one of both. What is kept are the commits up to the successor's base: what
a segment that failed holds beyond was never acknowledged, and no reader gives it out. A
segment that is damaged, or does not reach up to its successor, stays as it is.

All of it is done in small steps with a `pause` after each, which may raise to end it.

This module must not know threads, which segments there are or when they are due.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from google_crc32c import extend

from ingest.journal.content import open_content
from ingest.journal.frame import Damage
from ingest.journal.reader import SegmentReader
from ingest.journal.seekable import FRAME_BYTES, FrameWriter, SeekableFile
from ingest.journal.segment import SegmentFile, compressed_path
from ingest.journal.storage import Storage

TEMPORARY_SUFFIX = ".tmp"
#: Read at a time while looking for commits: that is done with the interpreter's lock held.
_STEP_BYTES = 64 << 10
#: Synced at a time: the journal's own syncs may have to wait for one of these.
_SYNC_BYTES = 2 << 20

Pause = Callable[[], None]


class Unfit(Exception):
    """A segment is not compressed; the message says why."""


class Compressed(NamedTuple):
    """A segment was compressed: bytes of both files, and of the content that was kept."""

    path: Path
    plain_bytes: int
    content_bytes: int
    stored_bytes: int


def compress_segment(
    storage: Storage, file: SegmentFile, end: int, level: int, pause: Pause
) -> Compressed:
    """Replace a plain segment by its compressed form.

    Args:
        storage: does the file system calls.
        file: a closed segment, which nobody writes to.
        end: the base of its successor.
        level: of compression.
        pause: called after each step; may raise, and then the segment is as it was.

    Raises:
        Unfit: it is damaged, or what was written did not read back.
        OSError: nothing has been lost.
    """
    target = compressed_path(file.path)
    temporary = target.with_name(target.name + TEMPORARY_SUFFIX)
    plain_bytes = storage.size(file.path)
    descriptor = storage.open_write(temporary, create=True)
    try:
        try:
            frames = _write(storage, file, end, level, descriptor, pause)
            storage.sync(descriptor)
        finally:
            storage.close(descriptor)
        _read_back(storage, temporary, frames, pause)
        storage.rename(temporary, target)
    except BaseException:
        remove_quietly(storage, temporary)
        raise
    storage.sync_directory(target.parent)
    storage.remove(file.path)
    storage.sync_directory(target.parent)
    return Compressed(target, plain_bytes, frames.content_bytes, frames.file_bytes)


def remove_quietly(storage: Storage, path: Path) -> None:
    """Remove a temporary file; if that fails, the next start will do it."""
    try:
        storage.remove(path)
    except OSError:
        pass


def _write(
    storage: Storage, file: SegmentFile, end: int, level: int, descriptor: int, pause: Pause
) -> FrameWriter:
    """Write the frames, the note and the table; each frame ends where a commit does."""
    frames = FrameWriter(level)
    with SegmentReader(storage, file, step=_STEP_BYTES) as reader:
        source = open_content(storage, file)
        try:

            def put(upto: int) -> None:
                """Write frames up to a byte of the content; a huge commit makes several."""
                while (size := upto - frames.content_bytes) > 0:
                    size = size if size < 2 * FRAME_BYTES else FRAME_BYTES
                    content = _read(source.read, size, frames.content_bytes)
                    at = frames.file_bytes
                    storage.write(descriptor, [frames.frame(content)], at)
                    if at // _SYNC_BYTES != frames.file_bytes // _SYNC_BYTES:
                        storage.sync(descriptor)
                    pause()

            kept, next_offset = 0, file.base
            for item in reader.poll():
                if (item.offset if isinstance(item, Damage) else item.first) >= end:
                    break
                if isinstance(item, Damage):
                    raise Unfit(f"byte {item.start} to {item.end}: {item.reason}")
                kept, next_offset = item.end, item.first + item.records
                if kept - frames.content_bytes >= FRAME_BYTES:
                    put(kept)
                pause()
            put(kept)
        finally:
            source.close()
    if next_offset != end:
        raise Unfit(f"it ends with record {next_offset - 1}, and the next segment begins at {end}")
    at = frames.file_bytes
    storage.write(descriptor, [frames.close(file.base, end)], at)
    return frames


def _read(read: Callable[[int, int], bytes], size: int, position: int) -> bytes:
    content = read(size, position)
    if len(content) != size:
        raise Unfit(f"{size} bytes at {position} cannot be read again")
    return content


def _read_back(storage: Storage, path: Path, frames: FrameWriter, pause: Pause) -> None:
    """Compare what the file holds with what was put into it."""
    written = SeekableFile(storage, path)
    try:
        crc = position = 0
        while content := written.read(FRAME_BYTES, position):
            crc = extend(crc, content)
            position += len(content)
            pause()
        whole = (written.note is not None, written.faults, position, crc)
        if whole != (True, [], frames.content_bytes, frames.content_crc):
            raise Unfit("its compressed form did not read back as it was written")
    finally:
        written.close()


def settle(storage: Storage, plain: SegmentFile, end: int, pause: Pause) -> Path | None:
    """Of the two forms of a segment, which a crash has left, remove the one too many.

    Args:
        plain: the plain form.
        end: the base of its successor.
        pause: as for `compress_segment`.

    Returns:
        what was removed. None when both were left, because they contradict each other.

    Raises:
        OSError: nothing has been lost.
    """
    compressed = SegmentFile(plain.base, compressed_path(plain.path))
    left, right = open_content(storage, plain), open_content(storage, compressed)
    try:
        position = 0
        while content := right.read(FRAME_BYTES, position):
            if left.read(len(content), position) != content:
                return None
            position += len(content)
            pause()
        if right.faults or right.note is None:
            return None
        # A segment may have been appended to since it was compressed, if by other hands.
        spare = plain.path if right.note.next_offset == end else compressed.path
    finally:
        left.close()
        right.close()
    storage.remove(spare)
    storage.sync_directory(spare.parent)
    return spare
