"""Messages and what became of them: librdkafka's reports, collected.

This module must not know which thread calls for reports, HTTP, or what a waiter is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ingest.errors import IngestError

Headers = list[tuple[str, bytes]]
#: Key, value and headers.
Message = tuple["bytes | None", bytes, Headers]
#: Waiters, each with what befell its message: None, or librdkafka's error; of a waiter for many
#: messages the errors by number, librdkafka's or ours.
Reports = list[tuple[Any, Any]]
#: Waiter, bytes, messages, when it began, what befell them.
Report = tuple[Any, int, int, float, Any]


class Source(Protocol):
    """Makes messages out of what it is given.

    Attributes:
        topic: where they go.
        message: makes key, value and headers of one.
    """

    topic: str
    message: Callable[[bytes], Message]


#: What makes a message, and what it is made of.
Made = tuple[Source, bytes]


class Ended(Exception):
    """Ends a call of librdkafka's `poll` after as many reports as it is to bring.

    What a callback raises, `poll` raises; reports that are left come with the next call.
    """


class Collected:
    """The reports of one or more calls of `poll`.

    Attributes:
        reports: those that nobody has taken yet.
        room: how many more the call is to bring.
    """

    __slots__ = ("reports", "room")

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.room = 0

    def one(self, report: Report, error: Any, message: Any) -> None:
        """The report of a message with a waiter of its own; called from within `poll`.

        Args:
            report: what it is if nothing befell the message.

        Raises:
            Ended
        """
        self.reports.append(report if error is None else (*report[:4], error))
        self.room -= 1
        if self.room <= 0:
            raise Ended

    def take(self) -> list[Report]:
        """All that there are."""
        taken = self.reports[:]
        del self.reports[: len(taken)]
        return taken


class Many:
    """Many messages with one waiter, who is told when all of them are reported.

    One object takes all their reports: to make one for each message costs as much as its report.

    Attributes:
        refused: why messages were not taken, by number.
        size: bytes of those that were.
        failed: errors, each with librdkafka's message.
        done: its waiter has been told.
    """

    __slots__ = ("_collected", "_made", "_reported", "done", "expected", "failed", "refused",
                 "size", "started", "waiter")  # fmt: skip

    def __init__(self, made: Sequence[Made], waiter: Any, collected: Collected) -> None:
        self._made = made
        self._collected = collected
        self._reported = 0
        #: how many reports there will be; one more than there are messages until all are sent
        self.expected = len(made) + 1
        self.waiter = waiter
        self.failed: list[tuple[Any, Any]] = []
        self.refused: dict[int, IngestError] = {}
        self.size = 0
        self.done = False
        self.started = time.monotonic()

    def report(self, error: Any, message: Any) -> None:
        """One of them has been reported; called from within `poll`.

        Raises:
            Ended
        """
        if error is not None:
            self.failed.append((error, message))
        self._reported += 1
        collected = self._collected
        if self._reported == self.expected:
            collected.reports.append((self, self.size, self.expected, self.started, None))
        collected.room -= 1
        if collected.room <= 0:
            raise Ended

    def sent(self) -> bool:
        """All are sent that can be; returns whether all of these are reported already."""
        self.expected -= 1 + len(self.refused)
        return self._reported == self.expected

    def failures(self) -> dict[int, Any] | None:
        """Why messages were not delivered, by number.

        A report says which message it is about by what was sent, not by number. Of messages that
        are all alike and of which one failed, none is taken to be delivered.
        """
        found: dict[int, Any] = dict(self.refused)
        if self.failed:
            errors = {(m.topic(), m.key(), m.value()): error for error, m in self.failed}
            for number, (source, raw) in enumerate(self._made):
                key, value, _ = source.message(raw)
                error = errors.get((source.topic, key, value))
                if error is not None:
                    found[number] = error
        return found or None
