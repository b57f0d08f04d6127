"""The smallest life of a journal that has everything in it, one call after the other.

Start, commits that wait for fdatasync and for write, rotation, a sync and a write that fail,
a clean stop. In this process and without threads, so that it can be killed at any call.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

from ingest.journal.recovery import recover
from ingest.journal.storage import Storage
from ingest.journal.writer import Batch, Finished, Message, Writer, Written
from tests.support.audit import stored_in
from tests.support.recorder import Call, really_close
from tests.support.replay import acknowledgement, line_of, recorded

#: A sync of a commit and a write fail.
FAILING = {("sync", 9): errno.EIO, ("write", 4): errno.ENOSPC}
#: Waiters of each commit: s waits for the sync, w for the write.
COMMITS = ("s", "w", "sw", "w", "s", "s", "w", "ws", "s", "s")
SETTINGS = SimpleNamespace(
    segment_max_bytes=1500,
    segment_max_age_seconds=0,
    segment_fill_bytes=64,
    commit_max_bytes=1 << 20,
    disk_reserve_bytes=0,
)


class Killed(BaseException):
    """The process is no more; nobody catches this, as nobody catches SIGKILL."""


class Fate:
    """What befalls a life: calls that fail, and the call before which it ends.

    Args:
        kill_at: index of the call that is not made any more; None: it lives to its end.
        failing: (call, which one of its kind from 0) -> errno of the calls that fail.
    """

    def __init__(
        self, kill_at: int | None = None, failing: dict[tuple[str, int], int] | None = None
    ) -> None:
        self._kill_at = kill_at
        self._failing = failing or {}
        self._made: Counter[str] = Counter()

    def before(self, call: str) -> None:
        if self._kill_at is not None and self._made.total() >= self._kill_at:
            raise Killed
        number = self._made[call]
        self._made[call] += 1
        if (call, number) in self._failing:
            code = self._failing[call, number]
            raise OSError(code, os.strerror(code))


def live(data: Path, name: str, fate: Fate) -> list[Call]:
    """One life on a data directory; returns its calls and acknowledgements."""
    with recorded(fate.before) as calls:
        try:
            _live(data, name, calls)
        except Killed:
            pass
    _close_what_it_left_open(calls)
    return [{"call": "start"}, *calls]


def _live(data: Path, name: str, calls: list[Call]) -> None:
    storage = Storage()
    storage.make_directory(data)
    directory = data / "journal" / "0"
    report, segment = recover(storage, directory, 0.0)
    calls.append(acknowledgement(stored_in(directory), "found"))

    def tell(message: Message) -> None:
        if isinstance(message, Written | Finished) and not getattr(message, "error", None):
            tell_waiters(message.waiters)

    def tell_waiters(waiters: list[tuple[str, str, str]]) -> None:
        for event_id, key, ack in waiters:
            calls.append(acknowledgement({event_id: key}, ack))

    writer = Writer(
        directory,
        SETTINGS,  # type: ignore[arg-type]
        storage,
        segment,
        report.next_offset,
        tell,
        lambda: 0.0,
    )
    for number, waiters in enumerate(COMMITS):
        writer.commit(_batch(name, number, waiters))
    writer.close()


def _batch(name: str, number: int, waiters: str) -> Batch:
    batch = Batch()
    for index, kind in enumerate(waiters):
        key = f"{name}-{number:04d}-{index}"
        event_id = f"00-{key}"  # comes before every UUIDv7 of this age
        batch.chunks.append(line_of(event_id, key, size=40 * number))
        if kind == "s":
            batch.sync_waiters.append((event_id, key, "fsync"))
        else:
            batch.write_waiters.append((event_id, key, "write"))
    batch.records = len(waiters)
    batch.size = sum(map(len, batch.chunks))
    return batch


def _close_what_it_left_open(calls: list[Call]) -> None:
    """Descriptors go with a process; this one goes on."""
    left = set()
    for call in calls:
        if call["call"] == "open" and "error" not in call:
            left.add(call["fd"])
        elif call["call"] == "close":
            left.discard(call["fd"])
    for descriptor in left:
        really_close(descriptor)
