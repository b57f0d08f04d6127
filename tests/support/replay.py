"""Builds the states that losing power may leave, and starts the journal on each.

Each state is put on a real file system (one in memory where there is one), recovered by
the product's own recovery, appended to, and read as a consumer reads.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import ingest.journal.storage
from ingest.journal.frame import mark
from ingest.journal.record import LINE_END, IdSource
from ingest.journal.recovery import recover
from ingest.journal.segment import Segment, list_partitions
from ingest.journal.storage import Storage
from tests.support.audit import require_stored, stored_in
from tests.support.disk import FATES, Disk, State
from tests.support.events import signed
from tests.support.recorder import Call, RecordingOs

#: After those where all or nothing is there: one fate for everything, or any mixture.
SHARED_FATES = (*FATES[2:], None, None, None, None)
MEMORY = Path("/dev/shm")
DATA = "data"


class Quick(Storage):
    """Does not wait for a disk: what is synced does not matter in a state that was made up."""

    def sync(self, descriptor: int) -> None:
        pass

    def sync_directory(self, path: Path) -> None:
        pass


QUICK = Quick()


class Point(NamedTuple):
    """A moment at which the power fails.

    Attributes:
        number: index of the last call that was made.
        disk: as it was then; goes on changing once the next point is asked for.
        required: id -> key of what must be there afterwards: events that were acknowledged
            after fdatasync by then, and those acknowledged after write that a later sync,
            which succeeded, has covered.
    """

    number: int
    disk: Disk
    required: dict[str, str]


def points(log: Sequence[Call], disk: Disk, required: dict[str, str]) -> Iterator[Point]:
    """Every moment between two calls of a recording, each with the acknowledgements that
    came before the next call.

    An acknowledgement for which no sync had succeeded is an error by itself. So it is when a
    start goes on from records ("found") that no sync has covered: they count from then on.
    Only those written before a sync that failed may stay in doubt.

    Args:
        log: calls and acknowledgements in one order.
        disk: as it was before.
        required: what had to be there before.
    """
    required = dict(required)
    written: dict[str, str] = {}
    number = -1
    for index, line in enumerate(log):
        if line["call"] == "ack":
            told = line["stored"]
            if line["ack"] == "write":
                written.update(told)
                continue
            early = set(told) - disk.durable_ids
            if line["ack"] == "found":
                early -= disk.doubtful_ids
            assert not early, f"call {number}: acknowledged before a sync: {early}"
            required.update(_among(disk.durable_ids, told))
        elif line["call"] != "answer":
            if number >= 0:
                yield Point(number, disk, required | _among(disk.durable_ids, written))
            disk.apply(line)
            number = index
    yield Point(number, disk, required | _among(disk.durable_ids, written))


def _among(durable_ids: set[str], written: dict[str, str]) -> dict[str, str]:
    return {one: key for one, key in written.items() if one in durable_ids}


class Bench:
    """A place to put states in.

    Args:
        root: an empty directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, state: State) -> None:
        """Make the place hold this state and nothing else."""
        empty(self.root)
        for name, content in state.items():
            if content is None:
                (self.root / name).mkdir()
            else:
                (self.root / name).write_bytes(content)

    def require(self, point: Point, where: str, may_be_damaged: bool) -> None:
        """Recover what is there, append to it, and find all of it again.

        Where several commits may be lost at once, one in the middle may: damage to readers.
        """
        stored: dict[str, str] = {}
        for directory in self.partitions():
            added = recover_and_append(QUICK, directory)
            found = stored_in(directory, damage_allowed=may_be_damaged)
            require_stored(found, added, where)
            stored |= found
        require_stored(stored, point.required, where)

    def partitions(self) -> list[Path]:
        """Those that are there; the first, which a start makes, if there is none."""
        journal = self.root / DATA / "journal"
        found = [path for _, path in list_partitions(QUICK, journal)] if journal.is_dir() else []
        return found or [journal / "0"]


def replay(
    log: Sequence[Call],
    disk: Disk,
    bench: Bench,
    *,
    seed: int,
    most: int,
    required: dict[str, str] | None = None,
    may_be_damaged: bool = False,
    where: str = "",
) -> int:
    """Lose power at every moment of a recording; everything that must be there has to be.

    Args:
        log: calls and acknowledgements in one order.
        disk: as it was before.
        bench: where to put the states.
        seed: of what is left to chance.
        most: different states of one moment that are looked at.
        required: what had to be there before.
        may_be_damaged: whether a commit in the middle may have been lost before.
        where: leads the message of a failure.

    Returns:
        how many different states were looked at.
    """
    chance = random.Random(seed)
    seen: set[int] = set()
    looked_at: set[tuple[int, int]] = set()
    for point in points(log, disk, required or {}):
        for number in range(most):
            only = FATES[number] if number < 2 else chance.choice(SHARED_FATES)
            state = point.disk.crash(chance, only)
            digest = hash(tuple(state.items()))
            seen.add(digest)
            # The same state is looked at again when more has to be in it.
            if (digest, len(point.required)) not in looked_at:
                looked_at.add((digest, len(point.required)))
                bench.put(state)
                text = f"{where} seed {seed}, call {point.number}, try {number}"
                damage = may_be_damaged or point.disk.unsynced > 1
                bench.require(point, text, damage)
    return len(seen)


def empty(root: Path) -> None:
    """Remove what is below a directory, without opening descriptors, of which gevent would
    keep those of directories until its loop turns."""
    for above, directories, files in os.walk(root, topdown=False):
        for name in files:
            os.unlink(os.path.join(above, name))
        for name in directories:
            os.rmdir(os.path.join(above, name))


def line_of(event_id: str, key: str, size: int = 0) -> bytes:
    """A record as the gateway would make it."""
    head = f'{{"specversion":"1.0","id":"{event_id}","source":"/","type":"t","time":"9999","data":'
    return f"{head}{json.dumps(signed(key, size))}}}\n".encode()


def recover_and_append(storage: Storage, directory: Path) -> dict[str, str]:
    """What a start does to a partition, and one commit; returns id -> key of its event."""
    segment, added = _append(storage, directory, commits=1)
    segment.close()
    return added


def leave_open(storage: Storage, directory: Path, commits: int, fill_bytes: int) -> None:
    """A start, some commits, and a death without a word: the fill stays behind them."""
    segment, _ = _append(storage, directory, commits, fill_bytes)
    segment.abandon()


def _append(
    storage: Storage, directory: Path, commits: int, fill_bytes: int = 512
) -> tuple[Segment, dict[str, str]]:
    report, segment = recover(storage, directory, 0.0)
    ids = IdSource(time.time, random.getrandbits)
    if report.last_id is not None:
        ids.resume(report.last_id)
    added = {}
    for number in range(commits):
        event_id = ids.next().decode()
        key = added[event_id] = f"added-{event_id}"
        body = line_of(event_id, key, size=100)[: -len(LINE_END)]
        tail = mark(body, report.next_offset + number, 1, segment.position)
        segment.append([body, tail], 0.0, b"\n" * fill_bytes)
        segment.sync()
    return segment, added


@contextmanager
def recorded(before: Callable[[str], None] = lambda call: None) -> Iterator[list[Call]]:
    """Record what this process does to the journal's files.

    Args:
        before: is asked before each call; may raise in its place.
    """
    calls: list[Call] = []
    recording: Any = RecordingOs(calls.append, nullcontext(), before)
    with patch.object(ingest.journal.storage, "os", recording):
        yield calls


def acknowledgement(told: dict[str, str], ack: str = "fsync") -> Call:
    return {"call": "ack", "ack": ack, "stored": told}


@contextmanager
def place() -> Iterator[Path]:
    """An empty directory, in memory where that is possible."""
    memory = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="ingest-test-", dir=memory) as name:
        root = Path(name) / "disk"
        root.mkdir()
        yield root
