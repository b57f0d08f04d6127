"""Is what was acknowledged in the journal, each event once, whole and in order?

Reads a data directory as any consumer would, through `PartitionReader`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ingest.journal.frame import Commit, Damage
from ingest.journal.reader import PartitionReader
from ingest.journal.segment import list_partitions
from ingest.journal.storage import Storage
from tests.support.events import is_signed


class Acks(NamedTuple):
    """What producers were told: id -> key of the event, by the ack that was asked for."""

    fsync: dict[str, str]
    write: dict[str, str]
    statuses: Counter[int]

    @property
    def all(self) -> dict[str, str]:
        return {**self.fsync, **self.write}

    def add(self, line: dict[str, Any]) -> None:
        """Take one line of `tests.support.storm`."""
        if line["call"] == "answer":
            self.statuses[line["status"]] += 1
            return
        told = self.fsync if line["ack"] == "fsync" else self.write
        for event_id, key in line["stored"].items():
            assert event_id not in told, f"id {event_id} was given twice"
            told[event_id] = key
        self.statuses[202] += 1


def no_acks() -> Acks:
    return Acks({}, {}, Counter())


def read_acks(path: Path) -> Acks:
    """All that a storm has written down."""
    acks = no_acks()
    if path.exists():
        for line in path.read_bytes().splitlines():
            acks.add(json.loads(line))
    return acks


def stored_events(data: Path, *, damage_allowed: bool = False) -> dict[str, str]:
    """id -> key of everything in a data directory; each must be whole, once, and in order."""
    journal = data / "journal"
    found: dict[str, str] = {}
    for _, directory in list_partitions(Storage(), journal) if journal.is_dir() else []:
        found.update(stored_in(directory, damage_allowed=damage_allowed))
    return found


def stored_in(directory: Path, *, damage_allowed: bool = False) -> dict[str, str]:
    """The same of one partition."""
    found: dict[str, str] = {}
    last = ""
    for line in lines_of(directory, damage_allowed=damage_allowed):
        event_id, key = _event_of(line)
        assert event_id > last, f"{event_id} comes after {last}"
        last = event_id
        found[event_id] = key
    assert len(set(found.values())) == len(found), "an event stands there twice"
    return found


@lru_cache(maxsize=1 << 16)  # replays of power loss read the same lines over and over
def _event_of(line: bytes) -> tuple[str, str]:
    """Id and key of a record, which must be whole."""
    record = json.loads(line)
    assert is_signed(record["data"]), f"not whole: {line[:200]!r}"
    return record["id"], record["data"]["key"]


def lines_of(directory: Path, *, damage_allowed: bool = False) -> Iterable[bytes]:
    """The records of a partition as they are read by a consumer."""
    with closing(PartitionReader(Storage(), directory)) as reader:
        for file, item in reader.poll():
            if isinstance(item, Damage):
                assert damage_allowed, f"{file.path}: {item}"
            else:
                assert isinstance(item, Commit)
                yield from item.lines


def require_stored(stored: dict[str, str], told: dict[str, str], where: object = "") -> None:
    """Everything that was told is stored, under the id that was told."""
    missing = [event_id for event_id in told if event_id not in stored]
    assert not missing, f"{where}: {len(missing)} acknowledged events are lost, first {missing[0]}"
    other = [event_id for event_id, key in told.items() if stored[event_id] != key]
    assert not other, f"{where}: {other[0]} is another event than the one acknowledged"
