"""A journal on real files, with a real thread, whose disk fails and waits when a test wants it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
from gevent.event import Event
from gevent.monkey import get_original

from ingest.errors import IngestError
from ingest.journal import Journal
from ingest.journal.frame import Commit
from ingest.journal.reader import PartitionReader
from ingest.journal.record import LINE_END, LINE_START, middle, time_text
from ingest.journal.storage import Storage
from ingest.metrics import Metrics

SETTINGS = {
    "segment_max_bytes": 1 << 20,
    "segment_max_age_seconds": 0,
    "commit_max_bytes": 1 << 16,
    "journal_pending_max_bytes": 1 << 20,
    "disk_reserve_bytes": 0,
    "segment_fill_bytes": 4096,
}

_this_thread = get_original("_thread", "get_ident")


class Gate(Storage):
    """Holds fdatasync back while it is shut, and fails writes and syncs by a rule.

    The lock is a native one: the thread that waits for it is not gevent's.
    """

    def __init__(self) -> None:
        self._lock = get_original("_thread", "allocate_lock")()
        self.rule: Callable[[str], int] = lambda operation: 0
        self.commits: list[int] = []
        #: which thread wrote each of them
        self.threads: list[int] = []
        #: called before a write
        self.before_write: Callable[[], object] = lambda: None
        self.free = 1 << 40

    def shut(self) -> None:
        self._lock.acquire()

    def open(self) -> None:
        self._lock.release()

    def _ask(self, operation: str) -> None:
        code = self.rule(operation)
        if code:
            raise OSError(code, os.strerror(code))

    def write(self, descriptor: int, parts: Any, position: int) -> None:
        self.before_write()
        self._ask("write")
        super().write(descriptor, parts, position)
        self.threads.append(_this_thread())
        self.commits.append(sum(part.count(b"}\n") for part in parts))

    def sync(self, descriptor: int) -> None:
        with self._lock:
            self._ask("sync")
        super().sync(descriptor)

    def free_bytes(self, path: Path) -> int:
        return self.free


class Bench:
    """A journal and what its waiters were told."""

    def __init__(self, directory: Path, **settings: int) -> None:
        self.directory = directory
        self.storage = Gate()
        self.metrics = Metrics()
        self.told: dict[Any, IngestError | None] = {}
        self.calls: list[list[Any]] = []
        self._change = Event()
        self.journal = Journal(
            directory,
            0,
            settings=SimpleNamespace(**{**SETTINGS, **settings}),  # type: ignore[arg-type]
            metrics=self.metrics,
            on_commit=self.on_commit,
            storage=self.storage,
        )
        self.journal.open()
        self.journal.start()

    def on_commit(self, waiters: list[Any], error: IngestError | None) -> None:
        self.calls.append(waiters)
        for waiter in waiters:
            assert waiter not in self.told, "a waiter is told once"
            self.told[waiter] = error
        self._change.set()

    def append(self, waiter: Any, sync: bool = True, data: bytes = b"1") -> None:
        ids = self.journal.id_source
        line = LINE_START + ids.next() + middle("/", "t", time_text(ids.ms), "/s") + data + LINE_END
        self.journal.append(line, 1, waiter, sync)

    def wait(self, *waiters: Any) -> None:
        """Until all of these have been told."""
        while not set(waiters) <= set(self.told):
            self._change.clear()
            assert self._change.wait(20), f"told only {sorted(self.told)}"

    def until(self, true: Callable[[], Any]) -> None:
        """Until something holds that no waiter is told of."""
        with gevent.Timeout(20):
            while not true():
                gevent.sleep(0.005)

    def stored(self) -> list[Any]:
        with closing(PartitionReader(Storage(), self.directory / "0")) as reader:
            items = [item for _, item in reader.poll()]
        commits = [item for item in items if isinstance(item, Commit)]
        return [json.loads(line)["data"] for commit in commits for line in commit.lines]
