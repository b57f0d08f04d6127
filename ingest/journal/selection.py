"""Choosing records: by type, time and offset.

This module must not know the command line's output.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from ingest.journal.frame import Damage
from ingest.journal.locate import END
from ingest.journal.reader import Found, PartitionReader, SegmentReader
from ingest.journal.record import RecordHead, head_of, quoted, time_text
from ingest.journal.segment import SegmentFile, list_partitions, list_segments
from ingest.journal.storage import Storage

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_WHEN = (
    "(2026-11-23T10:00:00Z, UTC unless it says otherwise) or this long ago (500ms, 30s, 10m, 2h, "
    "7d)"
)


class UsageProblem(Exception):
    """The arguments do not go together; the message says why."""


class Selection(NamedTuple):
    """Which records are wanted.

    Attributes:
        type_name: as it stands in a line, without its quotes.
        since: the first time, in the form of `record.time_text`.
        until: the time behind the last.
        from_offset: the first offset.
        to_offset: the offset behind the last.
    """

    type_name: bytes | None = None
    since: bytes | None = None
    until: bytes | None = None
    from_offset: int = 0
    to_offset: int | None = None

    @property
    def by_record(self) -> bool:
        """Whether each record has to be looked at."""
        return not (self.type_name is None and self.since is None and self.until is None)


class Picked(NamedTuple):
    """The records that were chosen out of one commit.

    Attributes:
        file: the segment.
        offsets: of the records.
        lines: without commit mark and line end.
    """

    file: SegmentFile
    offsets: range | list[int]
    lines: list[bytes]


# -- the command line ---------------------------------------------------------------------------


def add_selection(parser: argparse.ArgumentParser, *, following: bool = False) -> None:
    """Add the flags that choose records.

    Args:
        following: only those that make sense for records which are still to come.
    """
    parser.add_argument("--type", metavar="NAME", help="only events of this type")
    parser.add_argument(
        "--since", type=_when, metavar="WHEN", help=f"only events stored since this time {_WHEN}"
    )
    parser.add_argument(
        "--from-offset", type=_offset, metavar="N", help="begin with this offset of the partition"
    )
    if following:
        return
    parser.add_argument(
        "--until", type=_when, metavar="WHEN", help="only events stored before this time"
    )
    parser.add_argument(
        "--to-offset", type=_offset, metavar="N", help="end before this offset of the partition"
    )


def selection_of(arguments: argparse.Namespace) -> Selection:
    """What the flags say."""
    given: Any = arguments
    name = given.type
    return Selection(
        quoted(name)[1:-1].encode() if name is not None else None,
        given.since,
        getattr(given, "until", None),
        given.from_offset or 0,
        getattr(given, "to_offset", None),
    )


def _offset(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no offset: a number from 0 on")
    return int(text)


def _when(text: str) -> bytes:
    """A time in the form that records have it."""
    duration = _DURATION.fullmatch(text)
    if duration:
        seconds = time.time() - float(duration.group(1)) * _UNIT_SECONDS[duration.group(2)]
    else:
        try:
            moment = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{text!r} is neither a time like 2026-11-23T10:00:00Z nor a duration like 10m"
            ) from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        seconds = moment.timestamp()
    return time_text(max(0, int(seconds * 1000))).encode()


def journal_of(arguments: argparse.Namespace) -> str:
    """Name of the journal that was asked for: `journal`, `rejected` or `dead`.

    Raises:
        UsageProblem: two of them were.
    """
    if arguments.dead and arguments.rejected:
        raise UsageProblem("--dead and --rejected exclude each other")
    return "dead" if arguments.dead else "rejected" if arguments.rejected else "journal"


def partitions_of(arguments: argparse.Namespace) -> list[tuple[int, Path]]:
    """The partitions that were asked for: numbers and directories.

    Raises:
        OSError: there is no such data directory, or no such partition.
        UsageProblem: offsets are given, and there are several partitions.
    """
    storage = Storage()
    storage.names(arguments.data)  # a directory without a journal is empty, not an error
    journal = arguments.data / journal_of(arguments)
    found = list_partitions(storage, journal) if journal.is_dir() else []
    if arguments.partition is not None:
        chosen = [entry for entry in found if entry[0] == arguments.partition]
        if not chosen:
            storage.names(journal / str(arguments.partition))
        return chosen
    given = [getattr(arguments, name, None) for name in ("from_offset", "to_offset")]
    if len(found) > 1 and given != [None, None]:
        raise UsageProblem(
            f"each partition counts offsets for itself: name one with --partition; there are "
            f"{', '.join(str(number) for number, _ in found)}"
        )
    return found


# -- choosing -------------------------------------------------------------------------------------


def open_partition(storage: Storage, directory: Path, selection: Selection) -> PartitionReader:
    """A reader that begins not long before the first record that is wanted."""
    reader = PartitionReader(storage, directory, selection.since)
    if selection.from_offset:
        reader.seek(selection.from_offset)
    return reader


def picked(found: Iterator[Found], selection: Selection) -> Iterator[Picked | Found]:
    """The chosen records, commit by commit, and the damage in between (as `Found`).

    It ends where none can follow.
    """
    start, stop = selection.from_offset, selection.to_offset
    for file, item in found:
        if isinstance(item, Damage):
            yield Found(file, item)
            continue
        end = item.first + item.records
        if stop is not None and item.first >= stop:
            return
        offsets: range | list[int] = range(item.first, end)
        lines = item.lines
        if start > item.first or (stop is not None and stop < end):
            offsets = range(max(start, item.first), end if stop is None else min(stop, end))
            lines = lines[offsets.start - item.first : offsets.stop - item.first]
        if selection.by_record:
            pairs = [
                (offset, line)
                for offset, line in zip(offsets, lines, strict=True)
                if _wanted(line, selection)
            ]
            if selection.until is not None and lines and _at_or_past(lines[-1], selection.until):
                stop = item.first  # times only grow: this is the last commit with any
            offsets, lines = [offset for offset, _ in pairs], [line for _, line in pairs]
        if lines:
            yield Picked(file, offsets, lines)


def _wanted(line: bytes, selection: Selection) -> bool:
    head = head_of(line)
    return (
        head is not None
        and (selection.type_name is None or head.type == selection.type_name)
        and (selection.since is None or _stored_time(head) >= selection.since)
        and (selection.until is None or _stored_time(head) < selection.until)
    )


def _stored_time(head: RecordHead) -> bytes:
    """When we stored it; a producer's own time is in no order."""
    return getattr(head, "stored_time", head.time)


def _at_or_past(line: bytes, time_: bytes) -> bool:
    head = head_of(line)
    return head is not None and _stored_time(head) >= time_


def extent(storage: Storage, directory: Path, selection: Selection) -> range:
    """The offsets among which the chosen records are, for a progress bar."""
    files = list_segments(storage, directory)
    if not files:
        return range(0)
    with SegmentReader(storage, files[-1], END) as reader:
        for _ in reader.poll():
            pass
        end = reader.next_offset
    if selection.to_offset is not None:
        end = min(end, selection.to_offset)
    return range(min(end, max(files[0].base, selection.from_offset)), end)


def passed_over(found: Found) -> str:
    """What there is to say of damage."""
    file, item = found
    assert isinstance(item, Damage)
    return (
        f"{file.path}: byte {item.start} to {item.end}, offset {item.offset}: "
        f"passed over, {item.reason}"
    )


def text_of(lines: list[bytes]) -> bytes:
    """Lines as NDJSON."""
    return b"\n".join(lines) + b"\n" if lines else b""
