"""`ingest journal export`: stored events as NDJSON, CSV or Parquet.

A table has a row for each event. Its columns are partition and offset, the event's CloudEvents
attributes, and the members of its data as `data.<name>` (`data` for what is no object). What
is nested is JSON text. Columns that are not named are found in a first reading, which goes
as far as the second one will.

Memory does not grow with the number of events: they are written as they are read. The
output has a temporary name until it is whole.

This module must not know how a format is written.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from ingest.exits import ExitCode
from ingest.journal.export_formats import FORMATS, FormatMissing, Sink
from ingest.journal.export_rows import Columns, TooManyColumns, row_of
from ingest.journal.output import Output, OutputFailed
from ingest.journal.progress import Progress
from ingest.journal.selection import (
    Picked,
    Selection,
    UsageProblem,
    extent,
    open_partition,
    partitions_of,
    passed_over,
    picked,
    selection_of,
)
from ingest.journal.storage import FILE_MODE, Storage


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `export` but those that choose records."""
    parser.add_argument("--format", choices=list(FORMATS), default="ndjson", help="default: ndjson")
    parser.add_argument(
        "--output", required=True, metavar="FILE", help="is replaced when all is written; - for "
        "standard output (not for parquet)",
    )  # fmt: skip
    parser.add_argument(
        "--columns",
        metavar="NAMES",
        help="of csv and parquet, in this order, with commas between: partition, offset, id, type, "
        "time, … and data.NAME for the members of the data; by default all there are",
    )


class _Source:
    """The chosen records, read once or twice, always the same ones.

    Attributes:
        total: offsets among which they are.
        whole: whether nothing was passed over in the last reading.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._partitions = partitions_of(arguments)
        self._storage = Storage()
        selection = selection_of(arguments)
        extents = [extent(self._storage, path, selection) for _, path in self._partitions]
        # What comes while the export runs is not in it.
        self._selections = [selection._replace(to_offset=found.stop) for found in extents]
        self._starts = [found.start for found in extents]
        self.total = sum(map(len, extents))
        self.whole = True

    def read(self, what: str) -> Iterator[tuple[int, Picked]]:
        """Partitions and records."""
        self.whole = True
        with Progress(self.total, what) as progress:
            for (number, path), selection, start in zip(
                self._partitions, self._selections, self._starts, strict=True
            ):
                yield from self._read(number, path, selection, start, progress)

    def _read(
        self, number: int, path: Path, selection: Selection, seen: int, progress: Progress
    ) -> Iterator[tuple[int, Picked]]:
        if selection.to_offset is None or selection.to_offset <= seen:
            return
        reader = open_partition(self._storage, path, selection)
        try:
            for item in picked(reader.poll(), selection):
                if isinstance(item, Picked):
                    yield number, item
                    progress.add(item.offsets[-1] + 1 - seen)
                    seen = item.offsets[-1] + 1
                else:
                    self.whole = False
                    progress.say(f"ingest: {passed_over(item)}")
            progress.add(selection.to_offset - seen)
        finally:
            reader.close()


def run(arguments: argparse.Namespace) -> int:
    """Write the chosen records; see the module's text."""
    sink_of = FORMATS[arguments.format]
    if arguments.format == "ndjson" and arguments.columns is not None:
        raise UsageProblem("--columns is for csv and parquet: ndjson has whole records")
    if arguments.format == "parquet" and arguments.output == "-":
        raise UsageProblem("parquet needs a file to write to: --output FILE")
    try:
        sink_of.check()
    except FormatMissing as missing:
        raise UsageProblem(str(missing)) from None
    source = _Source(arguments)
    columns = Columns(arguments.columns.split(",") if arguments.columns else None)
    if sink_of.typed or (sink_of.tabular and arguments.columns is None):
        try:
            for number, item in source.read("looking for columns"):
                for offset, line in zip(item.offsets, item.lines, strict=True):
                    columns.look_at(row_of(number, offset, line))
        except TooManyColumns as error:
            raise UsageProblem(str(error)) from None

    def write(file: BinaryIO) -> int:
        return _write(source, sink_of(file, columns))

    try:
        written = _to_file(arguments.output, write)
    except OutputFailed as failed:
        sys.stderr.write(f"ingest: {failed}\n")
        return ExitCode.OUTPUT_FAILED
    if arguments.output != "-":
        sys.stderr.write(f"{written:,} events in {arguments.output}\n")
    return ExitCode.OK if source.whole else ExitCode.PROBLEMS


def _write(source: _Source, sink: Sink) -> int:
    written = 0
    for number, item in source.read("exporting"):
        sink.write(number, item.offsets, item.lines)
        written += len(item.lines)
    sink.close()
    return written


def _to_file(output: str, write: Callable[[BinaryIO], int]) -> int:
    """Write a file under a temporary name and give it its own when it is whole.

    What is no regular file (a device, a pipe) is written to as it is: a rename would put a
    file in its place.
    """
    if output == "-":
        return _write_to(Output(sys.stdout.fileno(), "standard output"), write)
    path = Path(os.path.realpath(output))  # a link stays one
    try:
        if Path(output).exists() and not path.is_file():
            return _write_to(Output(os.open(output, os.O_WRONLY), output, own=True), write)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        descriptor = os.open(temporary, flags, FILE_MODE)
    except OSError as error:
        raise OutputFailed(f"{output}: {error.strerror}") from None
    try:
        file = Output(descriptor, output, own=True)
        written = _write_to(file, write, os.fsync)
        try:
            os.replace(temporary, path)
        except OSError as error:
            raise OutputFailed(f"{output}: {error.strerror}") from None
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return written


def _write_to(
    file: Output, write: Callable[[BinaryIO], int], finish: Callable[[int], object] | None = None
) -> int:
    try:
        written = write(cast("BinaryIO", file))
        file.flush()
        if finish is not None:
            file.call(finish)
    finally:
        file.done()
    return written
