"""Events that are answered when Kafka has them: `ack: remote`.

    pipeline ─ line ─▶ message ─▶ producer ─▶ brokers        (and the journal, if it is a sink too)
                                                │
    answers ◀─ those whose all is there ◀─ delivery reports

For the pipeline it stands where the journal does: it takes lines and an exchange that waits for
them. A request of many events may fail in part, as no two messages share their fate.

This module must not know HTTP, nor how an event is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, Protocol

from ingest.errors import IngestError
from ingest.sinks.kafka_errors import failure_of
from ingest.sinks.kafka_messages import Messages
from ingest.sinks.kafka_producer import MESSAGE_BYTES, KafkaProducer
from ingest.sinks.kafka_reports import Reports
from ingest.sinks.routing import Route

if TYPE_CHECKING:
    from ingest.journal import Journal


class Answers(Protocol):
    """Who answers exchanges."""

    def committed(self, exchanges: list[Any], error: IngestError | None) -> None:
        """All of these are durable, or none of what each of them brought is."""

    def partly(self, exchange: Any, failures: Mapping[int, IngestError]) -> None:
        """Of the lines of an exchange some are not stored: by their number among its lines."""


class Waiting:
    """An exchange that waits for more than one thing.

    Attributes:
        exchange: who waits.
        lines: how many it brought.
        pending: for how many things it waits.
        failures: why lines are not stored, by their number.
        journaled, remote: numbers of the lines that the journal, and Kafka, have in hand.
    """

    __slots__ = ("exchange", "failures", "journaled", "lines", "pending", "remote")

    def __init__(self, exchange: Any, lines: int, remote: Sequence[int]) -> None:
        self.exchange = exchange
        self.lines = lines
        self.remote = remote
        self.pending = 0
        self.failures: dict[int, IngestError] = {}
        self.journaled: Sequence[int] = ()


class TypeSink:
    """Takes the events of one type; what `Target.append` and `append_each` are.

    Args:
        route: where they go.
        remote: what they all have in common.
    """

    def __init__(self, route: Route, remote: Remote) -> None:
        self.route = route
        self.topic = route.topic
        self.message = Messages(route.mode, route.key).message
        self._remote = remote

    def append(self, lines: bytes, count: int, exchange: Any, sync: bool = True) -> None:
        """Take the events of an exchange. Hub only.

        Args:
            lines: whole lines, each with its line end.
            count: how many.
            exchange: answered when all of them are where they belong.
            sync: whether the journal, if it is a sink too, is to sync them.

        Raises:
            IngestError: overloaded, message_too_large…; nothing was taken.
        """
        if self.route.journaled:
            entries = [(self, line) for line in lines.split(b"\n")[:-1]]
            self._remote.append(entries, exchange, sync)
        elif count == 1:
            message = self.message(lines[:-1])
            self._remote.producer.produce(self.topic, *message, exchange)
        else:
            self._remote.append_lines(self, lines, count, exchange)

    def append_all(self, entries: Sequence[Entry], exchange: Any, sync: bool = True) -> None:
        """Take the events of one exchange, of whatever types: see `Remote.append`."""
        self._remote.append(entries, exchange, sync)

    def append_each(self, lines: bytes, exchanges: Sequence[Any], sync: bool = True) -> None:
        """The same for as many events as exchanges."""
        if self.route.journaled:
            for line, exchange in zip(lines.splitlines(True), exchanges, strict=True):
                self._remote.each(self.append, line, exchange, sync)
            return
        producer, message, topic = self._remote.producer, self.message, self.topic
        size = len(lines) + MESSAGE_BYTES * len(exchanges)
        producer.judge(size)
        messages = map(message, lines.split(b"\n"))
        if producer.fits(size):
            refused = producer.send_each(topic, messages, exchanges)
            for exchange, error in refused:
                self._remote.answers.committed([exchange], error)
            return
        # What does not go together goes one by one, as far as it goes.
        for exchange, made in zip(exchanges, messages, strict=False):
            try:
                producer.produce(topic, *made, exchange)
            except IngestError as error:
                self._remote.answers.committed([exchange], error)


Entry = tuple["TypeSink | None", bytes]


class Remote:
    """The producer, and who waits for its reports.

    Args:
        routes: of the types that are answered when Kafka has their events.
        new_producer: makes the producer, given what takes its reports.
        journal: for those that it has, too.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        new_producer: Callable[[Callable[[Reports], None]], KafkaProducer],
        journal: Journal,
    ) -> None:
        self.producer = new_producer(self._delivered)
        self._journal = journal
        self.sinks = {route.name: TypeSink(route, self) for route in routes}
        self.answers: Answers
        self.yield_turn: Callable[[], None]

    # -- taking ----------------------------------------------------------------------------

    def each(self, append: Callable[..., None], line: bytes, exchange: Any, sync: bool) -> None:
        """Take the event of one of several exchanges; what is refused is answered."""
        try:
            append(line, 1, exchange, sync)
        except IngestError as error:
            self.answers.committed([exchange], error)

    def append_lines(self, sink: TypeSink, lines: bytes, count: int, exchange: Any) -> None:
        """Take lines of one exchange, all for one sink and for Kafka alone.

        Raises:
            IngestError: nothing was taken.
        """
        self.producer.judge(len(lines) + MESSAGE_BYTES * count)
        waiting = Waiting(exchange, count, range(count))
        waiting.pending = 1
        made = list(zip(repeat(sink), lines.split(b"\n")[:-1], strict=False))
        self.producer.send_many(made, waiting, self.yield_turn)

    def append(self, entries: Sequence[Entry], exchange: Any, sync: bool) -> None:
        """Take lines without their ends of one exchange, each for a sink; None: the journal alone.

        Raises:
            IngestError: nothing was taken.
        """
        producer = self.producer
        remote = [number for number, (sink, _) in enumerate(entries) if sink is not None]
        size = sum([len(entries[number][1]) for number in remote])
        producer.judge(size + MESSAGE_BYTES * len(remote))
        waiting = Waiting(exchange, len(entries), remote)
        waiting.journaled = [
            number
            for number, (sink, _) in enumerate(entries)
            if sink is None or sink.route.journaled
        ]
        if waiting.journaled:
            lines = b"".join([entries[number][1] + b"\n" for number in waiting.journaled])
            self._journal.append(lines, len(waiting.journaled), waiting, sync)
            waiting.pending = 1
        waiting.pending += 1
        made = [(sink, line) for sink, line in entries if sink is not None]
        producer.send_many(made, waiting, self.yield_turn)

    # -- reports ---------------------------------------------------------------------------

    def _delivered(self, reports: Reports) -> None:
        whole: list[Any] = []
        for waiter, error in reports:
            if type(waiter) is Waiting:
                if error is not None:
                    self._note(waiter, error)
                waiter.pending -= 1
                if not waiter.pending:
                    self._done(waiter, whole)
            elif error is None:
                whole.append(waiter)
            else:
                self.answers.committed([waiter], failure_of(error, self.producer.trouble))
        if whole:
            self.answers.committed(whole, None)

    def _note(self, waiting: Waiting, errors: Mapping[int, Any]) -> None:
        """Keep why some of its messages were not delivered."""
        for number, error in errors.items():
            if not isinstance(error, IngestError):
                error = failure_of(error, self.producer.trouble)
            waiting.failures[waiting.remote[number]] = error

    def committed(self, waiting: Waiting, error: IngestError | None) -> None:
        """What the journal had in hand of an exchange is durable, or failed."""
        if error is not None:
            for number in waiting.journaled:
                waiting.failures.setdefault(number, error)
        self._less(waiting)

    def _less(self, waiting: Waiting) -> None:
        """One of the things it waits for is done."""
        waiting.pending -= 1
        if not waiting.pending:
            whole: list[Any] = []
            self._done(waiting, whole)
            if whole:
                self.answers.committed(whole, None)

    def _done(self, waiting: Waiting, whole: list[Any]) -> None:
        """It waits for nothing more; those of whom nothing failed are collected."""
        failures = waiting.failures
        if not failures:
            whole.append(waiting.exchange)
        elif len(failures) == waiting.lines:
            self.answers.committed([waiting.exchange], next(iter(failures.values())))
        else:
            self.answers.partly(waiting.exchange, failures)
