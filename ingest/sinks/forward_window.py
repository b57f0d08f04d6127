"""What of a partition is on its way to Kafka, and how far all of it has arrived.

    place                                                  end
      │ part, done │ part, in flight │ part, done │ part … │
      └─ moves over parts that are done, in order; stops at the first that is not, or failed

PURE: no clock, no sockets; this module must not know what an event is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ingest.handlers.consumers import Record


class Failure(NamedTuple):
    """Why a window does not move on.

    Attributes:
        record: the first one that was not delivered.
        error: what befell it.
        until: offset behind the last one that was not.
    """

    record: Record
    error: Any
    until: int


class Part:
    """Records that were sent together.

    Attributes:
        records: in order; may be none.
        next_offset: behind the last one that was looked at.
        done: nothing of it is in flight.
        failures: what befell those that were not delivered, by number.
    """

    __slots__ = ("done", "failures", "next_offset", "records")

    def __init__(self, records: Sequence[Record], next_offset: int) -> None:
        self.records = records
        self.next_offset = next_offset
        self.done = False
        self.failures: Mapping[int, Any] = {}


class Window:
    """Parts in the order of the journal.

    Args:
        start: offset to begin with.

    Attributes:
        place: all records before this offset are delivered, or need not be.
        in_flight: parts that are not done.
        failing: something was not delivered: nothing more should be sent until `rewind`.
    """

    def __init__(self, start: int) -> None:
        self.place = start
        self.in_flight = 0
        self.failing = False
        self._parts: deque[Part] = deque()

    @property
    def end(self) -> int:
        """Offset behind what was added last."""
        return self._parts[-1].next_offset if self._parts else self.place

    @property
    def oldest(self) -> Record | None:
        """The first record that may not have been delivered."""
        return next((part.records[0] for part in self._parts if part.records), None)

    def add(self, records: Sequence[Record], next_offset: int) -> Part:
        """A part that is about to be sent; without records it is done at once."""
        part = Part(records, next_offset)
        self._parts.append(part)
        self.in_flight += 1
        if not records:
            self.settle(part, None)
        return part

    def settle(self, part: Part, failures: Mapping[int, Any] | None) -> None:
        """Nothing of a part is in flight any more.

        Args:
            failures: what was not delivered, by number; None or empty when all was.
        """
        part.done = True
        self.in_flight -= 1
        if failures:
            part.failures = failures
            self.failing = True
        parts = self._parts
        while parts and parts[0].done and not parts[0].failures:
            self.place = parts.popleft().next_offset

    def rewind(self) -> Failure:
        """Begin anew with the first record that was not delivered; nothing is in flight."""
        assert self.failing and not self.in_flight
        failed = [
            (part.records[number], error)
            for part in self._parts
            for number, error in sorted(part.failures.items())
        ]
        record, error = failed[0]
        self._parts.clear()
        self.failing = False
        self.place = record.offset
        return Failure(record, error, failed[-1][0].offset + 1)

    def pass_over(self, offset: int) -> None:
        """Go on at an offset; nothing is in the window."""
        assert not self._parts
        self.place = offset
