"""A dead letter is durable before its consumer goes on, and none is lost on a bad disk."""

from __future__ import annotations

import dataclasses
import errno
from pathlib import Path
from typing import Any

import pytest
from gevent.event import Event

from ingest.consumers import Switch
from ingest.consuming_attempts import Attempts, Shared
from ingest.consuming_dead import DeadLetters
from ingest.errors import IngestError
from ingest.followers import SharedReads
from ingest.handlers.consumers import Record
from ingest.handlers.loader import Handler
from ingest.journal.checkpoints import Checkpoints
from ingest.journal.reader import PartitionReader
from ingest.journal.storage import Storage
from ingest.metrics import Metrics
from ingest.settings import Settings
from tests.support.journals import Written

SETTINGS = dataclasses.replace(
    Settings(),
    disk_reserve_bytes=0,
    consume_max_attempts=1,
    consume_backoff_min_seconds=0.001,
    consume_backoff_max_seconds=0.001,
)


class BadDisk(Storage):
    """Fails so many fdatasyncs."""

    def __init__(self) -> None:
        self.failures = 0

    def sync(self, descriptor: int) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EIO, "Input/output error")
        super().sync(descriptor)


def records(tmp_path: Path, count: int) -> list[Record]:
    line = Written(tmp_path / "data").commit("thing")
    line = line[: line.index(b',"ingestcommit"')] + b"}"
    return [Record(offset, line) for offset in range(count)]


def letters(directory: Path) -> int:
    found = PartitionReader(Storage(), directory / "0").poll()
    return sum(item.item.records for item in found)  # type: ignore[union-attr]


@pytest.fixture
def disk() -> BadDisk:
    return BadDisk()


@pytest.fixture
def dead(tmp_path: Path, disk: BadDisk) -> Any:
    made = DeadLetters(tmp_path / "dead", 0, SETTINGS, disk)
    made.open()
    made.start()
    yield made
    made.close(5)


def test_a_dead_letter_that_is_not_durable_is_an_error(
    tmp_path: Path, disk: BadDisk, dead: DeadLetters
) -> None:
    (record,) = records(tmp_path, 1)
    disk.failures = 1
    with pytest.raises(IngestError) as refused:
        dead.put(0, record, ValueError("x"), 1)
    assert refused.value.code == "journal_failed"
    dead.put(0, record, ValueError("x"), 1)
    assert letters(tmp_path / "dead") >= 1


def test_a_consumer_waits_until_its_dead_letter_is_durable(
    tmp_path: Path, disk: BadDisk, dead: DeadLetters
) -> None:
    calls: list[list[int]] = []
    done: list[tuple[int, int]] = []

    def consume(events: Any) -> None:
        calls.append([event.offset for event in events])
        if 1 in calls[-1]:
            disk.failures = 3
            raise ValueError("never")

    metrics = Metrics()
    shared = Shared(
        SETTINGS,
        metrics,
        SharedReads(),
        Checkpoints(tmp_path / "checkpoints", Storage()),
        dead,
        Event(),
    )
    attempts = Attempts(
        Handler("thing", "thing.py", consume=consume),
        0,
        shared,
        Switch("thing", metrics),
        lambda offset: done.append((offset, disk.failures)),
        lambda: None,
    )
    attempts.work(records(tmp_path, 3))
    assert calls == [[0, 1, 2], [0], [1, 2], [1], [2]]
    assert done == [(1, 3), (2, 0), (3, 0)]
    assert metrics.consumer_failures.cell("thing", "dead_letter").value == 3
    assert metrics.consumer_dead_letters.cell("thing").value == 1
    shared.threads.close()
