"""Finds the place of a record in a segment without reading all of it.

Commit marks say which records they end and where they stand, and they only grow, so a
segment can be searched by halves: about ten short reads in 128 MiB. What is found is where
to *start*: the scan from there checks every commit as always.

This module must not know files, directories or the clock; it is given a function that reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from ingest.journal.frame import (
    KEY,
    MARK_MAX_BYTES,
    Commit,
    Damage,
    Mark,
    Scanner,
    mark_holds,
    parse_mark,
)

#: `read(size, position)`: up to `size` bytes of a segment's content, b"" at its end.
Read = Callable[[int, int], bytes]

#: Below it the rest is scanned instead of halved.
NEAR_BYTES = 256 << 10
_PROBE_BYTES = 64 << 10
_SCAN_BYTES = 256 << 10
_READ_BYTES = 1 << 20
#: More than any offset.
END = 1 << 63


class Spot(NamedTuple):
    """A place where a commit may start: byte of the segment, and the offset that is due."""

    position: int
    offset: int


def locate(read: Read, size: int, base: int, offset: int) -> Spot:
    """A place at or before the commit that holds `offset`, and not far from it.

    Args:
        read: reads the segment.
        size: bytes in the segment, the fill included.
        base: offset of its first record.
        offset: that is looked for; `END` for the last commit.
    """
    start = low = Spot(0, base)
    high = size
    last: Mark | None = None
    while high - low.position > NEAR_BYTES:
        middle = (low.position + high) // 2
        mark = _mark_after(read, middle, high)
        if mark is not None and mark.first + mark.records <= offset:
            last = mark
            low = Spot(mark.end, mark.first + mark.records)
        else:
            high = middle
    if last is not None and not mark_holds(last, read_all(read, last.length, last.start)):
        return start  # a damaged mark; who reads all of it will say so
    return low


def read_all(read: Read, size: int, position: int) -> bytes:
    """`size` bytes, or fewer where the content ends."""
    parts = []
    while size:
        data = read(min(size, _READ_BYTES), position)
        if not data:
            break
        parts.append(data)
        size -= len(data)
        position += len(data)
    return b"".join(parts)


def _mark_after(read: Read, position: int, end: int) -> Mark | None:
    """The first mark that begins between two bytes and stands where it says.

    Its `end` is the byte of the segment. None when there is none, or nothing but fill.
    """
    buffer = b""
    at = position
    while at < end:
        data = read(_PROBE_BYTES, at)
        if not data or not data.strip(b"\n"):
            return None
        at += len(data)
        # A mark may stand across two reads: what could be its beginning is kept.
        buffer = buffer[-MARK_MAX_BYTES:] + data
        origin = at - len(buffer)
        found = buffer.find(KEY)
        while found >= 0:
            mark = parse_mark(buffer, found)
            if mark is not None and mark.start + mark.length == origin + found:
                return mark._replace(end=origin + mark.end)
            found = buffer.find(KEY, found + 1)
    return None


def scan(read: Read, spot: Spot) -> Iterator[Commit | Damage]:
    """The commits from a place on, until there are no more or nothing but fill."""
    scanner = Scanner(spot.offset)
    scanner.position = read_at = spot.position
    while data := read(_SCAN_BYTES, read_at):
        read_at += len(data)
        yield from scanner.feed(data)
        if not data.strip(b"\n"):
            return
