"""Checks a partition on disk: every checksum, every line, every offset.

What it cannot see, because nothing in the files says that it was ever there: commits cut
off exactly at the end of a commit of the newest segment, and what stands beyond the last
whole commit of a segment that failed (no record there was acknowledged).

This module must not know the command line.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import orjson

from ingest.journal.frame import Commit
from ingest.journal.reader import SegmentReader, open_segment
from ingest.journal.segment import SegmentFile, list_segments, successor_of
from ingest.journal.storage import Storage

#: How long the end of the newest segment may be unfinished before it is not being written.
SETTLE_SECONDS = 1.0
_LOOK_SECONDS = 0.05

_STRINGS = ("id", "source", "type", "time")


class Problem(NamedTuple):
    """One thing that is wrong.

    Attributes:
        path: the file.
        byte: at which it starts; of the content, where the file is compressed.
        offset: of the first record concerned.
        reason: for a person.
    """

    path: str
    byte: int
    offset: int
    reason: str


class Checked(NamedTuple):
    """One segment was looked through; `records` is the number of good ones."""

    path: str
    records: int
    commits: int
    bytes: int


def verify_partition(storage: Storage, directory: Path) -> Iterator[Problem | Checked]:
    """Check the segments of a partition, oldest first; a writer may be at work.

    Raises:
        OSError: a file cannot be read.
    """
    expected: int | None = None  # the oldest may have been removed, so any base may be first
    file: SegmentFile | None = next(iter(list_segments(storage, directory)), None)
    while file is not None:
        reader = open_segment(storage, directory, file.base)
        if reader is None:
            return
        with reader:
            file = reader.file
            if expected is not None and file.base > expected and _after_others(storage, file):
                reason = f"records {expected} to {file.base - 1} are missing before this segment"
                yield Problem(str(file.path), 0, expected, reason)
            file = yield from _verify_segment(storage, directory, reader)
            expected = reader.next_offset


def _after_others(storage: Storage, file: SegmentFile) -> bool:
    """Whether older segments are there still; retention takes them, from the front."""
    return list_segments(storage, file.path.parent)[0].base < file.base


def _verify_segment(
    storage: Storage, directory: Path, reader: SegmentReader
) -> Generator[Problem | Checked, None, SegmentFile | None]:
    """Check one segment; returns the next one, if there is one."""
    path = str(reader.file.path)
    records = commits = 0
    deadline = time.monotonic() + SETTLE_SECONDS
    seen = -1  # where the last look at an unfinished end got to
    while True:
        successor = successor_of(storage, directory, reader.file)
        end = successor.base if successor is not None else None
        for item in reader.poll():
            if end is not None and (item.first if isinstance(item, Commit) else item.offset) >= end:
                continue
            if isinstance(item, Commit):
                commits += 1
                records += item.records
                yield from _verify_lines(path, item)
            else:
                reason = f"{item.end - item.start} bytes are damaged: {item.reason}"
                yield Problem(path, item.start, item.offset, reason)
        moved = 0 <= seen < reader.position
        if successor is not None or not reader.tail_bytes or moved or reader.file.compressed:
            break
        seen = reader.position
        if time.monotonic() > deadline:
            reason = f"{reader.tail_bytes} bytes at the end are no commit: {reader.tail_reason}"
            yield Problem(path, reader.position, reader.next_offset, reason)
            break
        time.sleep(_LOOK_SECONDS)
    yield from _verify_compressed(path, reader)
    yield Checked(path, records, commits, reader.position)
    return successor


def _verify_compressed(path: str, reader: SegmentReader) -> Iterator[Problem]:
    """What is wrong with a compressed file as such, which may have cost commits or not."""
    for fault in reader.faults:
        yield Problem(path, fault.start, fault.offset, fault.reason)
    if reader.faults or reader.note is None:
        return
    reason = reader.check()
    if reason:
        yield Problem(path, 0, reader.file.base, reason)
    note = reader.note
    if (note.first, note.next_offset) != (reader.file.base, reader.next_offset):
        reason = f"it should hold records {note.first} to {note.next_offset - 1}"
        yield Problem(path, 0, reader.file.base, reason)


def _verify_lines(path: str, commit: Commit) -> Iterator[Problem]:
    byte = commit.start
    for number, line in enumerate(commit.lines):
        reason = _wrong_with(line)
        if reason:
            yield Problem(path, byte, commit.first + number, reason)
        byte += len(line) + 1


def _wrong_with(line: bytes) -> str:
    """What keeps a line from being one of our records, "" when nothing does."""
    try:
        record = _loads(line)
    except ValueError as error:
        return f"the line is not JSON: {error}"
    if not isinstance(record, dict) or record.get("specversion") != "1.0":
        return "the line is not a CloudEvents 1.0 object"
    missing = [name for name in _STRINGS if not isinstance(record.get(name), str)]
    if "data" not in record and "data_base64" not in record:
        missing.append("data")
    return f"the record has no {', '.join(missing)}" if missing else ""


def _loads(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        # What was re-encoded for a lenient producer may hold a lone surrogate as an
        # escape: RFC 8259 allows it, orjson does not.
        return json.loads(line, parse_constant=_refuse_constant)


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
