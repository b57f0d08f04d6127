"""What is remembered of events survives the process: it is read back from the journal.

    journal/0/00…0.ndjson.zst ── keys ──▶ dedupe/0/00…0.keys ──┐
    journal/0/00…184467.ndjson (newest) ── read at start ──────┴──▶ windows

The journal says everything: each key stands in its event's line, and a record that is in the
journal after a crash is one that counts. A *key file* holds the keys of one closed segment,
made when it was closed, so that a start reads the newest segment only. Key files are no more
than that: a start makes those that are missing or damaged, and passes over segments that
ended before every window began. They outlive their segments (retention may be shorter than a
window) and are removed when no key in them counts any more.

`load` runs before anything is served; `keep` runs beside the service in a native thread,
in small steps with pauses in between, because it and the event loop share one interpreter.
It must not log or count: it says what happened, and `dedupe_keeper` does that.

This module must not know requests, answers or what the keys mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from ingest.dedupe import Window, ms_of
from ingest.dedupe_files import (
    Collector,
    Header,
    Key,
    Section,
    is_whole,
    parse_header,
    sections_of,
)
from ingest.dedupe_records import keyed_records
from ingest.journal.frame import Commit
from ingest.journal.reader import first_time, open_segment
from ingest.journal.record import time_text
from ingest.journal.segment import SegmentFile, list_segments
from ingest.journal.storage import Storage

SUFFIX = ".keys"
_NAME = re.compile(r"([0-9]{20})\.keys")
_UNFINISHED = ".new"
_HEADER_BYTES = 64 << 10
_READ_BYTES = 4 << 20
#: Keyed records taken between two pauses: about half a millisecond.
_STEP_RECORDS = 128


class Notice(NamedTuple):
    """Something worth a log line.

    Attributes:
        level: info, warning or error.
        event: name of the log line.
        data: what it says.
        failure: the operation that failed, for the metric; "" when none did.
    """

    level: str
    event: str
    data: dict[str, Any]
    failure: str = ""


class Loaded(NamedTuple):
    """What a start found.

    Attributes:
        entries: keys remembered now.
        files: key files that were read.
        segments: segments that were read, the newest included.
        notices: what went wrong.
    """

    entries: int
    files: int
    segments: int
    notices: list[Notice]


class Stopped(Exception):
    """Raised by a pause when nobody waits for the work any more."""


def no_pause() -> None:
    """Read on at once."""


class KeyStore:
    """The key files of one partition.

    Args:
        directory: of the key files; made when the first one is written.
        segments: directory of the partition's segments.
        windows: by event type.
        storage: does the file system calls.
    """

    def __init__(
        self,
        directory: Path,
        segments: Path,
        windows: Mapping[str, Window],
        storage: Storage | None = None,
    ) -> None:
        self._directory = directory
        self._segments = segments
        self._windows = windows
        self._storage = storage or Storage()
        self._given_up: set[int] = set()
        self._notices: list[Notice] = []

    # -- at start --------------------------------------------------------------------------

    def load(self, now_ms: int) -> Loaded:
        """Fill the windows; after the journal's recovery, before the first append. Blocks.

        Nothing that is wrong with a key file keeps a service from starting. A segment that
        cannot be read is a notice of level error: repetitions of its events are not told.
        """
        files = list_segments(self._storage, self._segments)
        self._remove_unfinished()
        read_files = read_segments = 0
        for base in reversed(self._needed(files, now_ms)):
            found = self._read(base, _end_of(files, base))
            if found is None:
                collector = self._make(files, base, no_pause)
                read_segments += 1
                if collector is not None:
                    self._fill((section, collector.keys(section)) for section in collector.sections)
            else:
                data, header = found
                read_files += 1
                self._fill(sections_of(data, header))
        if files:
            newest = self._collect(files[-1], None, no_pause)
            read_segments += 1
            if newest is not None:
                self._fill((section, newest.keys(section)) for section in newest.sections)
        self._prune(files, now_ms)
        for window in self._windows.values():
            window.evicted_by_age = window.evicted_by_count = 0
        entries = sum(map(len, self._windows.values()))
        return Loaded(entries, read_files, read_segments, self._take_notices())

    def _fill(self, sections: Iterable[tuple[Section, Iterable[Key]]]) -> None:
        for section, keys in sections:
            window = self._windows.get(section.type)
            if window is None or window.value_bytes != section.value_bytes:
                continue  # no longer deduplicated, or in another way
            add = window.add
            for digest, value, answer in keys:
                add(digest, value, ms_of(value), answer)

    # -- beside the service ------------------------------------------------------------------

    def keep(self, now_ms: int, pause: Callable[[], None]) -> list[Notice]:
        """Make the key files of segments that were closed, remove those that are over.

        Args:
            pause: called between two steps; may raise `Stopped`.

        Returns:
            what happened.
        """
        try:
            files = list_segments(self._storage, self._segments)
            for base in self._needed(files, now_ms):
                if base not in self._given_up and self._header(base, files) is None:
                    self._make(files, base, pause)
            self._prune(files, now_ms)
        except Stopped:
            pass
        except OSError as error:
            self._failed("read", error.filename or self._segments, error)
        return self._take_notices()

    # -- which files count -------------------------------------------------------------------

    def _needed(self, files: list[SegmentFile], now_ms: int) -> list[int]:
        """Bases of the closed segments whose keys may count, newest first.

        Those with a key file are judged by its header, the others by their time.
        """
        room = {name: window.entries_max for name, window in self._windows.items()}
        longest = max((window.window_ms for window in self._windows.values()), default=0)
        since = time_text(max(0, now_ms - longest)).encode()
        closed = {file.base: following for file, following in pairwise(files)}
        needed: list[int] = []
        over = False  # older segments ended before every window began
        for base in sorted({*closed, *self._bases()}, reverse=True):
            header = self._header(base, files)
            if header is not None:
                counting = [s for s in header.sections if self._counts(s, room, now_ms)]
                for section in counting:
                    room[section.type] -= section.rows
                if counting:
                    needed.append(base)
            elif base in closed and not over:
                over = self._starts_before(closed[base], since)
                if not over and any(left > 0 for left in room.values()):
                    needed.append(base)
        return needed

    def _counts(self, section: Section, room: Mapping[str, int], now_ms: int) -> bool:
        window = self._windows.get(section.type)
        return (
            window is not None
            and window.value_bytes == section.value_bytes
            and room[section.type] > 0
            and section.last_ms + window.window_ms > now_ms
        )

    def _starts_before(self, file: SegmentFile, since: bytes) -> bool:
        try:
            time = first_time(self._storage, file)
        except OSError:
            return False
        return time is not None and time < since

    def _prune(self, files: list[SegmentFile], now_ms: int) -> None:
        """Remove key files that no window needs and no start would make again."""
        needed = set(self._needed(files, now_ms))
        present = {file.base for file in files}
        try:
            for base in self._bases():
                header = self._header(base, files)
                if base in needed or (header is not None and base in present):
                    continue
                self._storage.remove(self._path(base))
        except OSError as error:
            self._failed("write", error.filename or self._directory, error)

    # -- segments ------------------------------------------------------------------------------

    def _make(
        self, files: list[SegmentFile], base: int, pause: Callable[[], None]
    ) -> Collector | None:
        """Read a closed segment and write its key file; None when it cannot be read."""
        file = next((file for file in files if file.base == base), None)
        end = _end_of(files, base)
        if file is None or end is None:
            return None
        collector = self._collect(file, end, pause)
        if collector is None:
            self._given_up.add(base)
            return None
        try:
            self._write(self._path(base), collector.encode(base, end))
        except OSError as error:
            self._given_up.add(base)  # until the next start, which can do without
            self._failed("write", error.filename or self._path(base), error)
        return collector

    def _collect(
        self, file: SegmentFile, end: int | None, pause: Callable[[], None]
    ) -> Collector | None:
        """The keys of a segment's records before the offset `end`."""
        collector = Collector()
        taken = 0
        try:
            reader = open_segment(self._storage, self._segments, file.base)
            if reader is None:
                return None
            with reader:
                if reader.file.base != file.base:  # removed by retention meanwhile
                    return None
                for item in reader.poll():
                    pause()
                    if not isinstance(item, Commit) or (end is not None and item.first >= end):
                        continue
                    for record in keyed_records(item.body):
                        collector.add(record)
                        taken += 1
                        if taken % _STEP_RECORDS == 0:
                            pause()
        except OSError as error:
            self._failed("segment", file.path, error, "error")
            return None
        return collector

    # -- key files -------------------------------------------------------------------------------

    def _path(self, base: int) -> Path:
        return self._directory / f"{base:020d}{SUFFIX}"

    def _bases(self) -> list[int]:
        try:
            names = self._storage.names(self._directory)
        except FileNotFoundError:
            return []
        return [int(found.group(1)) for found in map(_NAME.fullmatch, names) if found]

    def _header(self, base: int, files: list[SegmentFile]) -> Header | None:
        """The header of a key file; None when it is missing, damaged, or of another segment."""
        try:
            descriptor = self._storage.open_read(self._path(base))
        except FileNotFoundError:
            return None
        except OSError as error:
            self._failed("read", self._path(base), error)
            return None
        try:
            data = b""
            while b"\n" not in data:
                more = self._storage.read(descriptor, _HEADER_BYTES, len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            self._failed("read", self._path(base), error)
            return None
        finally:
            self._storage.close(descriptor)
        header = parse_header(data)
        return header if header is not None and _belongs(header, base, files) else None

    def _read(self, base: int, end: int | None) -> tuple[bytes, Header] | None:
        """A whole key file; None when it has to be made."""
        path = self._path(base)
        try:
            descriptor = self._storage.open_read(path)
            try:
                parts = []
                size = 0
                while data := self._storage.read(descriptor, _READ_BYTES, size):
                    parts.append(data)
                    size += len(data)
            finally:
                self._storage.close(descriptor)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._failed("read", path, error)
            return None
        data = b"".join(parts)
        header = parse_header(data)
        if header is None or not is_whole(data) or (end is not None and header.next != end):
            self._notices.append(
                Notice("warning", "dedupe.key_file_damaged", {"path": str(path)}, "read")
            )
            return None
        return data, header

    def _write(self, path: Path, data: bytes) -> None:
        """Write a file so that it is there as a whole or not at all."""
        storage = self._storage
        storage.make_directory(self._directory)
        unfinished = path.with_name(path.name + _UNFINISHED)
        try:
            storage.remove(unfinished)
        except FileNotFoundError:
            pass
        descriptor = storage.open_write(unfinished, create=True)
        try:
            storage.write(descriptor, [data], 0)
            storage.sync(descriptor)
        finally:
            storage.close(descriptor)
        storage.rename(unfinished, path)
        storage.sync_directory(self._directory)

    def _remove_unfinished(self) -> None:
        try:
            for name in self._storage.names(self._directory):
                if name.endswith(_UNFINISHED):
                    self._storage.remove(self._directory / name)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._failed("write", error.filename or self._directory, error)

    # -- what happened ---------------------------------------------------------------------------

    def _failed(self, operation: str, path: object, error: OSError, level: str = "warning") -> None:
        data = {"operation": operation, "path": str(path), "error": str(error)}
        self._notices.append(Notice(level, "dedupe.failure", data, operation))

    def _take_notices(self) -> list[Notice]:
        notices, self._notices = self._notices, []
        return notices


def _end_of(files: list[SegmentFile], base: int) -> int | None:
    """Where a closed segment ends: the offset of the next one; None for all others."""
    return next((later.base for file, later in pairwise(files) if file.base == base), None)


def _belongs(header: Header, base: int, files: list[SegmentFile]) -> bool:
    """Whether a key file is that of the segment it is named after.

    Of a segment that was removed the file stays, but nothing that is written from now on can
    stand before the newest segment: such a file belongs to a journal that is no more.
    """
    if header.first != base or not files or header.next > files[-1].base:
        return False
    end = _end_of(files, base)
    return end is None or header.next == end
