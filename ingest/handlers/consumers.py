"""What `consume(events)` is given, and one call of it within its time limit.

This module must not know where events come from or what becomes of those that fail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gevent
import orjson
import ujson

from ingest.handlers.event import Event
from ingest.handlers.loader import Handler


class Record(NamedTuple):
    """One stored event as it stands in the journal; `line` has no mark and no line end."""

    offset: int
    line: bytes


class StoredEvent(Event):
    """One event that is in the journal, as `consume` gets it.

    Attributes:
        data: the decoded JSON value.
        partition: of the journal.
        offset: within the partition; with it the event's name for ever, so a consumer that
            must not do a thing twice can remember it.
        attributes: all that the record says of the event beside its data.
    """

    __slots__ = ("attributes", "offset", "partition")

    def __init__(self, partition: int, offset: int, record: dict[str, Any]) -> None:
        data = record.pop("data", None)
        super().__init__(data=data, id=record["id"], type=record["type"], time=record["time"])
        self.partition = partition
        self.offset = offset
        self.attributes = record


class ConsumerTimeout(Exception):
    """`consume` did not return within its time limit."""


def events_of(
    partition: int, records: Sequence[Record], pause: Callable[[], None]
) -> list[StoredEvent]:
    """Decode records, each time anew, so that an attempt sees nothing of the one before.

    Args:
        pause: called between two of them.
    """
    events = []
    for record in records:
        try:
            decoded = orjson.loads(record.line)
        except orjson.JSONDecodeError:  # what the lenient decoder has let in
            decoded = ujson.loads(record.line)
        events.append(StoredEvent(partition, record.offset, decoded))
        pause()
    return events


def call_consume(handler: Handler, events: list[StoredEvent], timeout_seconds: float) -> None:
    """Call `handler.consume(events)`; what it returns counts for nothing.

    Args:
        timeout_seconds: after it, `gevent.Timeout` is raised at the next cooperative wait; 0
            for no limit.

    Raises:
        ConsumerTimeout: it took too long.
        Exception: whatever it raised.
    """
    assert handler.consume is not None  # a file without one has no consumer
    timeout = gevent.Timeout(timeout_seconds or None)
    timeout.start()
    try:
        handler.consume(events)
    except gevent.Timeout as late:
        if late is not timeout:
            raise RuntimeError(f"gevent.Timeout: {late}") from late  # one of its own
        raise ConsumerTimeout(f"it took longer than {timeout_seconds:g} s") from late
    except SystemExit as left:
        raise RuntimeError(f"it called sys.exit({left.code!r})") from left
    finally:
        timeout.close()
