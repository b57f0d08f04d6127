"""`ingest journal ls|cat|tail|verify|export`: the journal on the command line.

All of them only read, and may be used while a gateway writes. Tables and sentences go to a
terminal, JSON lines (`--json`) anywhere else. Exit codes: `ingest.exits.ExitCode`. What is
chosen by type, time and offset is in `selection.py`, the file formats in `export*.py`.

This module must not know how commits are framed or recovered.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ujson

from ingest.exits import ExitCode
from ingest.journal.checkpoints import Checkpoints, directory_of
from ingest.journal.locate import END
from ingest.journal.reader import Found, PartitionReader, SegmentReader
from ingest.journal.record import data64_of, data_of
from ingest.journal.segment import list_segments
from ingest.journal.selection import (
    Picked,
    Selection,
    UsageProblem,
    add_selection,
    journal_of,
    open_partition,
    partitions_of,
    passed_over,
    picked,
    selection_of,
    text_of,
)
from ingest.journal.storage import Storage
from ingest.journal.verify import Problem, verify_partition

#: How often `tail` looks for new records.
POLL_SECONDS = 0.1

_LIST_ATTEMPTS = 5

PROG = "python -m ingest journal"

_EPILOG = f"""\
examples:
  {PROG} ls
  {PROG} cat --type metrics --since 1h | jq .data
  {PROG} cat --data-only > events.ndjson
  {PROG} cat --rejected --since 1d
  {PROG} cat --dead --type order
  {PROG} tail --type order
  {PROG} verify --data /var/lib/ingest
  {PROG} export --format csv --type order --output orders.csv
"""


# -- the command line -----------------------------------------------------------------------


def add_commands(subparsers: Any) -> None:
    """Add `journal` and its commands to the `add_subparsers` of a parser.

    Each sets `run`, which takes the parsed arguments and returns the exit code.
    """
    parser = subparsers.add_parser(
        "journal",
        prog=PROG,
        help="read the stored events back",
        description="Read the stored events back. Safe while a gateway is running.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(
        dest="journal_command", required=True, metavar="command", prog=PROG
    )
    _add(commands, "ls", ls, "list the segments", json=True)
    cat_parser = _add(commands, "cat", cat, "print every stored event as one line of JSON")
    tail_parser = _add(commands, "tail", tail, "print events as they are stored, until Ctrl-C")
    _add(commands, "verify", verify, "check every checksum and every line", json=True)
    export_parser = _add(commands, "export", export, "write stored events into a file")
    add_selection(cat_parser)
    add_selection(tail_parser, following=True)
    add_selection(export_parser)
    for selecting in (cat_parser, tail_parser):
        selecting.add_argument(
            "--data-only", action="store_true", help="only the event's data, as it was sent"
        )
    tail_parser.add_argument(
        "--from-start", action="store_true", help="begin with the oldest event, not with the next"
    )
    from ingest.journal.export import add_flags

    add_flags(export_parser)


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which journal is read."""
    parser.add_argument(
        "--data", type=Path, default=Path("data"), metavar="DIR", help="default: data"
    )
    parser.add_argument("--partition", type=int, metavar="N", help="only this partition")
    parser.add_argument(
        "--rejected",
        action="store_true",
        help="the rejected events (of types with x-ingest.on_reject: keep) instead of the stored",
    )
    parser.add_argument(
        "--dead",
        action="store_true",
        help="the dead letters (what consume() could not process) instead of the stored",
    )


def _add(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
    json: bool = False,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=f"{text}.")
    add_common(parser)
    if json:
        parser.add_argument(
            "--json", action="store_true", help="JSON lines; the default unless on a terminal"
        )
    parser.set_defaults(run=lambda arguments: guarded(run, arguments))
    return parser


def guarded(run: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Run a command; what a person can do something about is said in words."""
    try:
        code = run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has seen enough (`| head`). The interpreter flushes once more at
        # exit, so it gets something to flush to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except KeyboardInterrupt:
        return ExitCode.OK
    except UsageProblem as problem:
        return complain(str(problem), ExitCode.USAGE)
    except OSError as error:
        return complain(f"{error.filename or arguments.data}: {error.strerror}")
    return code


def complain(message: str, code: ExitCode = ExitCode.DATA_UNUSABLE) -> ExitCode:
    """Say what is wrong."""
    sys.stderr.write(f"ingest: {message}\n")
    return code


def _wants_json(arguments: argparse.Namespace) -> bool:
    return arguments.json or not sys.stdout.isatty()


def _json_line(members: dict[str, Any]) -> str:
    return ujson.dumps(members, escape_forward_slashes=False, ensure_ascii=False) + "\n"


# -- cat and tail ----------------------------------------------------------------------------


def _print(found: Iterator[Found], selection: Selection, data_only: bool) -> bool:
    """Print what is chosen; returns whether everything in between was whole."""
    out = sys.stdout.buffer
    whole = True
    for item in picked(found, selection):
        if isinstance(item, Picked):
            lines = item.lines
            out.write(text_of([payload_of(line) for line in lines] if data_only else lines))
        else:
            whole = False
            complain(passed_over(item))
    out.flush()
    return whole


def payload_of(line: bytes) -> bytes:
    """The data of a record as one line; of what is no JSON the text, as a JSON string."""
    coded = data64_of(line)
    if coded is None:
        return data_of(line)
    text = b64decode(coded).decode("utf-8", "replace")
    return ujson.dumps(text, escape_forward_slashes=False, ensure_ascii=False).encode()


def cat(arguments: argparse.Namespace) -> int:
    """Print every stored event; one partition after the other."""
    selection = selection_of(arguments)
    whole = True
    for _, directory in partitions_of(arguments):
        reader = open_partition(Storage(), directory, selection)
        try:
            whole &= _print(reader.poll(), selection, arguments.data_only)
        finally:
            reader.close()
    return ExitCode.OK if whole else ExitCode.PROBLEMS


def tail(arguments: argparse.Namespace) -> int:
    """Print events as they come, until SIGINT; new partitions are followed too."""
    selection = selection_of(arguments)
    readers: dict[int, PartitionReader] = {}
    from_start = arguments.from_start or selection.since or arguments.from_offset is not None
    while True:
        for number, directory in partitions_of(arguments):
            if number not in readers:
                readers[number] = open_partition(Storage(), directory, selection)
                if not from_start:
                    readers[number].skip()
            _print(readers[number].poll(), selection, arguments.data_only)
        from_start = True  # a partition that appears from now on is new from its start
        time.sleep(POLL_SECONDS)


def export(arguments: argparse.Namespace) -> int:
    """Write stored events into a file of another format."""
    from ingest.journal.export import run

    return run(arguments)


# -- ls and verify ----------------------------------------------------------------------------


def _segments(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    storage = Storage()
    for partition, directory in partitions_of(arguments):
        files = list_segments(storage, directory)
        for index, file in enumerate(files):
            newest = index + 1 == len(files)
            with SegmentReader(storage, file, END if newest else file.base) as reader:
                if newest:
                    for _ in reader.poll():
                        pass
                next_offset = reader.next_offset if newest else files[index + 1].base
                started = reader.first_time()
                yield {
                    "partition": partition,
                    "segment": file.path.name,
                    "first_offset": file.base,
                    "records": next_offset - file.base,
                    "bytes": reader.stored_bytes,
                    "content_bytes": reader.content_bytes,
                    "first_time": started.decode() if started is not None else None,
                }


def ls(arguments: argparse.Namespace) -> int:
    """List the segments with their offsets, sizes and first times."""
    rows: list[dict[str, Any]] = []
    for attempt in range(_LIST_ATTEMPTS):
        try:
            rows = list(_segments(arguments))
            break
        except FileNotFoundError:  # compressed or removed since it was listed
            if attempt + 1 == _LIST_ATTEMPTS:
                raise
    if _wants_json(arguments):
        for row in rows:
            sys.stdout.write(_json_line(row))
        return ExitCode.OK
    line = "{:>9}  {:<31}  {:>12}  {:>14}  {:>14}  {}\n".format
    sys.stdout.write(line("partition", "segment", "records", "bytes", "content", "first record"))
    for row in rows:
        sys.stdout.write(
            line(
                row["partition"],
                row["segment"],
                f"{row['records']:,}",
                f"{row['bytes']:,}",
                f"{row['content_bytes']:,}",
                row["first_time"] or "-",
            )
        )
    records, stored, content = (
        sum(row[name] for row in rows) for name in ("records", "bytes", "content_bytes")
    )
    sys.stdout.write(
        f"{len(rows)} segments, {records:,} records, {stored:,} bytes of {content:,}\n"
    )
    return ExitCode.OK


def verify(arguments: argparse.Namespace) -> int:
    """Check everything; names file, byte and offset of each thing that is wrong."""
    as_json = _wants_json(arguments)
    problems = segments = commits = records = 0
    for _, directory in partitions_of(arguments):
        for result in verify_partition(Storage(), directory):
            if isinstance(result, Problem):
                problems += 1
                sys.stdout.write(
                    _json_line(result._asdict())
                    if as_json
                    else f"{result.path}: byte {result.byte}, offset {result.offset}: "
                    f"{result.reason}\n"
                )
            else:
                segments += 1
                commits += result.commits
                records += result.records
    directory = directory_of(arguments.data, journal_of(arguments))
    for path in Checkpoints(directory, Storage()).broken():
        problems += 1
        broken = Problem(str(path), 0, 0, "a checkpoint that names no offset")
        sys.stdout.write(
            _json_line(broken._asdict()) if as_json else f"{broken.path}: {broken.reason}\n"
        )
    if as_json:
        summary = {"segments": segments, "commits": commits, "records": records}
        sys.stdout.write(_json_line({**summary, "problems": problems}))
    else:
        sys.stdout.write(
            f"{segments} segments, {commits:,} commits, {records:,} records: "
            f"{problems or 'no'} problem{'' if problems == 1 else 's'}\n"
        )
    return ExitCode.PROBLEMS if problems else ExitCode.OK
