"""`ingest journal ls|cat|tail|verify`: the journal on the command line.

All of them only read, and may be used while a gateway writes. Tables and sentences go to a
terminal, JSON lines (`--json`) anywhere else. Exit codes: `ingest.exits.ExitCode`.

This module must not know how commits are framed or recovered.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import ujson

from ingest.exits import ExitCode
from ingest.journal.frame import Commit, Damage
from ingest.journal.reader import Found, PartitionReader, SegmentReader, first_time
from ingest.journal.record import data_of, head_of, quoted, time_text
from ingest.journal.segment import list_partitions, list_segments
from ingest.journal.storage import Storage
from ingest.journal.verify import Problem, verify_partition

#: How often `tail` looks for new records.
POLL_SECONDS = 0.1

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

PROG = "python -m ingest journal"

_EPILOG = f"""\
examples:
  {PROG} ls
  {PROG} cat --type metrics --since 1h | jq .data
  {PROG} cat --data-only > events.ndjson
  {PROG} tail --type order
  {PROG} verify --data /var/lib/ingest
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
    for selecting in (cat_parser, tail_parser):
        selecting.add_argument("--type", metavar="NAME", help="only events of this type")
        selecting.add_argument(
            "--data-only", action="store_true", help="only the event's data, as it was sent"
        )
    cat_parser.add_argument(
        "--since",
        type=_since,
        metavar="WHEN",
        help="only events stored since this time (2026-11-23T10:00:00Z, UTC unless it says "
        "otherwise) or this long ago (500ms, 30s, 10m, 2h, 7d)",
    )
    tail_parser.add_argument(
        "--from-start", action="store_true", help="begin with the oldest event, not with the next"
    )


def _add(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
    json: bool = False,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=f"{text}.")
    parser.add_argument(
        "--data", type=Path, default=Path("data"), metavar="DIR", help="default: data"
    )
    parser.add_argument("--partition", type=int, metavar="N", help="only this partition")
    if json:
        parser.add_argument(
            "--json", action="store_true", help="JSON lines; the default unless on a terminal"
        )
    parser.set_defaults(run=lambda arguments: _guarded(run, arguments))
    return parser


def _since(text: str) -> bytes:
    """The earliest time wanted, in the form records have it."""
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


def _guarded(run: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
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
    except OSError as error:
        return _complain(f"{error.filename or arguments.data}: {error.strerror}")
    return code


def _complain(message: str, code: ExitCode = ExitCode.DATA_UNUSABLE) -> ExitCode:
    sys.stderr.write(f"ingest: {message}\n")
    return code


def _partitions(arguments: argparse.Namespace) -> list[tuple[int, Path]]:
    """The partitions that were asked for.

    Raises:
        OSError: there is no such data directory, or no such partition.
    """
    storage = Storage()
    storage.names(arguments.data)  # a directory without a journal is empty, not an error
    journal = arguments.data / "journal"
    found = list_partitions(storage, journal) if journal.is_dir() else []
    if arguments.partition is None:
        return found
    chosen = [entry for entry in found if entry[0] == arguments.partition]
    if not chosen:
        storage.names(journal / str(arguments.partition))
    return chosen


def _wants_json(arguments: argparse.Namespace) -> bool:
    return arguments.json or not sys.stdout.isatty()


def _json_line(members: dict[str, Any]) -> str:
    return ujson.dumps(members, escape_forward_slashes=False, ensure_ascii=False) + "\n"


# -- cat and tail ----------------------------------------------------------------------------


def _selector(
    type_name: str | None, since: bytes | None, data_only: bool
) -> Callable[[Commit], bytes]:
    """What of a commit is printed; the whole text in one piece where that is possible."""
    if type_name is None and since is None and not data_only:
        return lambda commit: commit.text
    wanted = quoted(type_name)[1:-1].encode() if type_name is not None else None

    def select(commit: Commit) -> bytes:
        lines = commit.lines
        if wanted is not None or since is not None:
            lines = [line for line in lines if _matches(line, wanted, since)]
        if data_only:
            lines = [data_of(line) for line in lines]
        return b"\n".join(lines) + b"\n" if lines else b""

    return select


def _matches(line: bytes, type_name: bytes | None, since: bytes | None) -> bool:
    head = head_of(line)
    return (
        head is not None
        and (type_name is None or head.type == type_name)
        and (since is None or head.time >= since)
    )


def _print(found: Iterator[Found], select: Callable[[Commit], bytes]) -> bool:
    """Print commits; returns whether everything in between was whole."""
    out = sys.stdout.buffer
    whole = True
    for file, item in found:
        if isinstance(item, Damage):
            whole = False
            _complain(
                f"{file.path}: byte {item.start} to {item.end}, offset {item.offset}: "
                f"passed over, {item.reason}"
            )
        else:
            out.write(select(item))
    out.flush()
    return whole


def cat(arguments: argparse.Namespace) -> int:
    """Print every stored event; one partition after the other."""
    select = _selector(arguments.type, arguments.since, arguments.data_only)
    whole = True
    for _, directory in _partitions(arguments):
        reader = PartitionReader(Storage(), directory, arguments.since)
        try:
            whole &= _print(reader.poll(), select)
        finally:
            reader.close()
    return ExitCode.OK if whole else ExitCode.PROBLEMS


def tail(arguments: argparse.Namespace) -> int:
    """Print events as they come, until SIGINT; new partitions are followed too."""
    select = _selector(arguments.type, None, arguments.data_only)
    readers: dict[int, PartitionReader] = {}
    from_start = arguments.from_start
    while True:
        for number, directory in _partitions(arguments):
            if number not in readers:
                readers[number] = PartitionReader(Storage(), directory)
                if not from_start:
                    readers[number].skip()
            _print(readers[number].poll(), select)
        from_start = True  # a partition that appears from now on is new from its start
        time.sleep(POLL_SECONDS)


# -- ls and verify ----------------------------------------------------------------------------


def _segments(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    storage = Storage()
    for partition, directory in _partitions(arguments):
        files = list_segments(storage, directory)
        for index, file in enumerate(files):
            if index + 1 < len(files):
                next_offset = files[index + 1].base
            else:
                with SegmentReader(storage, file) as reader:
                    for _ in reader.poll():
                        pass
                    next_offset = reader.next_offset
            started = first_time(storage, file)
            yield {
                "partition": partition,
                "segment": file.path.name,
                "first_offset": file.base,
                "records": next_offset - file.base,
                "bytes": storage.size(file.path),
                "first_time": started.decode() if started is not None else None,
            }


def ls(arguments: argparse.Namespace) -> int:
    """List the segments with their offsets, sizes and first times."""
    rows = list(_segments(arguments))
    if _wants_json(arguments):
        for row in rows:
            sys.stdout.write(_json_line(row))
        return ExitCode.OK
    line = "{:>9}  {:<27}  {:>12}  {:>14}  {}\n".format
    sys.stdout.write(line("partition", "segment", "records", "bytes", "first record"))
    for row in rows:
        sys.stdout.write(
            line(
                row["partition"],
                row["segment"],
                f"{row['records']:,}",
                f"{row['bytes']:,}",
                row["first_time"] or "-",
            )
        )
    records, size = sum(row["records"] for row in rows), sum(row["bytes"] for row in rows)
    sys.stdout.write(f"{len(rows)} segments, {records:,} records, {size:,} bytes\n")
    return ExitCode.OK


def verify(arguments: argparse.Namespace) -> int:
    """Check everything; names file, byte and offset of each thing that is wrong."""
    as_json = _wants_json(arguments)
    problems = segments = commits = records = 0
    for _, directory in _partitions(arguments):
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
    if as_json:
        summary = {"segments": segments, "commits": commits, "records": records}
        sys.stdout.write(_json_line({**summary, "problems": problems}))
    else:
        sys.stdout.write(
            f"{segments} segments, {commits:,} commits, {records:,} records: "
            f"{problems or 'no'} problem{'' if problems == 1 else 's'}\n"
        )
    return ExitCode.PROBLEMS if problems else ExitCode.OK
