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
from typing import Any, BinaryIO

from ingest.exits import ExitCode
from ingest.journal.export_formats import FORMATS, FormatMissing, Sink
from ingest.journal.export_rows import Columns, TooManyColumns, row_of
from ingest.journal.progress import Progress
from ingest.journal.selection import (
    Picked,
    Selection,
    UsageProblem,
    extent,
    open_partition,
    partitions_of,
    picked,
    selection_of,
)
from ingest.journal.storage import Storage


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
    """The chosen records, read once or twice, always the same ones."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._partitions = partitions_of(arguments)
        self._storage = Storage()
        selection = selection_of(arguments)
        extents = [extent(self._storage, path, selection) for _, path in self._partitions]
        #: What comes while the export runs is not in it.
        self._selections = [selection._replace(to_offset=found.stop) for found in extents]
        self.total = sum(map(len, extents))
        self.whole = True

    def read(self, what: str) -> Iterator[tuple[int, Picked]]:
        """Partitions and records."""
        self.whole = True
        with Progress(self.total, what) as progress:
            for (number, path), selection in zip(self._partitions, self._selections, strict=True):
                yield from self._read(number, path, selection, progress)

    def _read(
        self, number: int, path: Path, selection: Selection, progress: Progress
    ) -> Iterator[tuple[int, Picked]]:
        if selection.to_offset == 0:
            return
        reader = open_partition(self._storage, path, selection)
        seen = selection.from_offset
        try:
            for item in picked(reader.poll(), selection):
                if isinstance(item, Picked):
                    yield number, item
                    progress.add(item.offsets[-1] + 1 - seen)
                    seen = item.offsets[-1] + 1
                else:
                    self.whole = False
                    sys.stderr.write(f"ingest: {item.file.path}: {item.item}\n")
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
    except BrokenPipeError:
        raise
    except OutputFailed as failed:
        sys.stderr.write(f"ingest: {failed}\n")
        return ExitCode.OUTPUT_FAILED
    if arguments.output != "-":
        sys.stderr.write(f"{written:,} events in {arguments.output}\n")
    return ExitCode.OK if source.whole else ExitCode.PROBLEMS


class OutputFailed(Exception):
    """The output cannot be written; the message says which and why."""


def _write(source: _Source, sink: Sink) -> int:
    written = 0
    for number, item in source.read("exporting"):
        sink.write(number, item.offsets, item.lines)
        written += len(item.lines)
    sink.close()
    return written


def _to_file(output: str, write: Callable[[BinaryIO], int]) -> int:
    """Write a file under a temporary name and give it its own when it is whole."""
    if output == "-":
        return write(sys.stdout.buffer)
    path = Path(output)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        file = _Checked(temporary, path)
    except OSError as error:
        raise OutputFailed(f"{output}: {error.strerror}") from None
    try:
        with file:
            written = write(file)  # type: ignore[arg-type]
            file.finish()
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return written


class _Checked:
    """A file whose errors are told from those of what is read."""

    def __init__(self, temporary: Path, path: Path) -> None:
        self._temporary = temporary
        self._path = path
        self._file = temporary.open("xb")
        self.closed = False

    def __enter__(self) -> _Checked:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: Any) -> int:
        return self._call(self._file.write, data)

    def flush(self) -> None:
        self._call(self._file.flush)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """Stay open: it is closed when it has its name."""

    def finish(self) -> None:
        """Make it durable and give it its name."""
        self._call(self._file.flush)
        self._call(os.fsync, self._file.fileno())
        self._call(os.replace, self._temporary, self._path)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except OSError as error:
            raise OutputFailed(f"{self._path}: {error.strerror}") from None
