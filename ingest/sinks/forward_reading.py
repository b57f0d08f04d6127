"""Reads what is to be forwarded out of one partition, and makes messages of it.

Both are done in a native thread, one at a time: it leaves the interpreter to the event loop as
readers of consumers do (`consuming_batches`). This module must not log or count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ingest.consuming_batches import BatchReader, Gap, Pace
from ingest.handlers.consumers import Record
from ingest.journal.frame import Commit
from ingest.journal.record import head_of, quoted
from ingest.journal.storage import Storage
from ingest.sinks.kafka_messages import Message, Messages
from ingest.sinks.routing import Route

#: Most that is sent at a time: what is read while it is on its way follows it.
EVENTS_MAX = 500
BYTES_MAX = 1 << 20


class Topic:
    """What a producer asks for where messages go; it gets them ready made.

    Attributes:
        topic: its name.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic

    @staticmethod
    def message(made: Any) -> Any:
        """The message itself."""
        return made


class Read(NamedTuple):
    """What one look into the journal gave.

    Attributes:
        records: those to be forwarded, in order.
        made: a message of each, and where it goes.
        size: bytes of their values.
        next_offset: behind the last record that was looked at.
        broken: of which no message can be made, and why.
        gaps: what was missing on the way.
    """

    records: list[Record]
    made: list[tuple[Topic, Message]]
    size: int
    next_offset: int
    broken: list[tuple[Record, Exception]]
    gaps: list[Gap]


class ForwardReader(BatchReader):
    """Reads on where it was, whatever the type.

    Args:
        directory: of the partition.
        routes: of the types that are forwarded, by name.
        start: offset to begin with.
    """

    def __init__(self, directory: Path, routes: Mapping[str, Route], start: int) -> None:
        super().__init__(Storage(), directory, "", start, EVENTS_MAX, BYTES_MAX)
        self._ways: dict[bytes, tuple[Topic, Messages]] = {}
        for name, route in routes.items():
            as_written = quoted(name)[1:-1].encode()
            self._ways[as_written] = Topic(route.topic), Messages(route.mode, route.key)
        self._needles = [b',"type":"' + name + b'","time":' for name in self._ways]

    def read(self, limit: int, single: bool) -> Read:
        """What comes next before `limit`.

        Args:
            limit: as for `fetch`.
            single: one record at most.

        Raises:
            OSError: the journal cannot be read; to be called again.
        """
        self._events_max = 1 if single else EVENTS_MAX
        fetched = self.fetch(limit)
        read = Read([], [], 0, fetched.next_offset, [], fetched.gaps)
        size = 0
        pace = Pace()
        for record in fetched.records:
            head = head_of(record.line)
            way = self._ways.get(head.type) if head is not None else None
            if way is None:
                continue
            topic, messages = way
            try:
                message = messages.message(record.line)
            except Exception as error:  # noqa: BLE001 - it becomes a dead letter, which is logged
                read.broken.append((record, error))
                continue
            read.records.append(record)
            read.made.append((topic, message))
            size += len(message[1])
            pace()
        return read._replace(size=size)

    def _take(self, commit: Commit, pace: Callable[[], None]) -> None:
        body = commit.body
        if any(needle in body for needle in self._needles):
            self._lines.extend(map(Record, range(commit.first, commit.first + commit.records),
                                   commit.lines))  # fmt: skip
