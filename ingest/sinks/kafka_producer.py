"""Messages to Kafka, and what became of each: librdkafka beside an event loop.

    greenlets  produce ─▶ librdkafka ─▶ brokers
                              │ reports
    native thread        waits for the first ──▶ async wake-up
    the hub                                          └▶ takes the others, 256 a turn ─▶ on_delivered

librdkafka never cooperates with the event loop, but `produce` only puts a message into its queue.
That there are reports, a native thread learns, which waits for them within librdkafka. It takes one
and wakes the hub, which takes the rest while the thread rests: a report is a call into Python, and
each one that the thread took would stop the hub for a moment (docs/decisions/0005).

Bounds: what waits for its report is at most `inflight_max_bytes` (or one request's messages, if
these are larger); beyond it `judge` refuses. A message is given up after
`delivery_timeout_seconds`. A turn of the loop takes at most `TURN_REPORTS` reports.

This module must not know HTTP, events or what a waiter is.

Source: librdkafka's INTRODUCTION.md (idempotent producer, fatal errors).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import gevent
from gevent.event import Event
from gevent.hub import get_hub
from gevent.monkey import get_original

from ingest.errors import IngestError
from ingest.logs import get_logger
from ingest.metrics import Metrics
from ingest.sinks.kafka_errors import failure_of
from ingest.sinks.kafka_reports import (
    Collected,
    Ended,
    Headers,
    Made,
    Many,
    Message,
    Report,
    Reports,
)
from ingest.sinks.kafka_settings import KafkaSettings, KafkaUnusable, library_or_refuse
from ingest.sinks.kafka_troubles import Troubles

log = get_logger(__name__)

#: What a message takes in librdkafka's memory beside its value.
MESSAGE_BYTES = 512
#: Reports that one turn of the event loop takes: less than a millisecond.
TURN_REPORTS = 256
#: Messages of one waiter between two turns of the event loop: likewise.
YIELD_MESSAGES = 256
#: The thread looks whether it is to end so often.
POLL_SECONDS = 0.1
#: How often brokers are asked whether they are there while nothing else shows it.
PROBE_SECONDS = 1.0
#: How long such a question may take; what is delivered meanwhile waits for it.
PROBE_TIMEOUT_SECONDS = 1.0

#: Arguments of `produce` by their place: to name them costs a third of the call.
ANY, NOW = -1, 0  # partition: the partitioner's choice; timestamp: librdkafka's

# The thread is a native one and must wait like one.
_start_thread = get_original("_thread", "start_new_thread")
_new_lock = get_original("_thread", "allocate_lock")


class KafkaProducer:
    """An idempotent producer whose messages count when all replicas in sync have them.

    Use: construct, `start`, `produce`…, `close`. All of it on one hub.

    Args:
        settings: of the sink.
        metrics: the worker's.
        on_delivered: called on the hub with waiters, and with the error that befell the message of
            each or None. It should not block: the next reports wait for it.
        name: what the messages are for; one of `metrics.KAFKA_PRODUCERS`.

    Attributes:
        outstanding_bytes, outstanding_messages: handed to librdkafka and not reported.
        troubles: what is wrong beside single messages.

    Raises:
        KafkaUnusable: librdkafka does not take the settings, or is not there.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        metrics: Metrics,
        on_delivered: Callable[[Reports], None],
        name: str,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._on_delivered = on_delivered
        self._name = name
        self._library = library_or_refuse()
        self._max_bytes = settings.inflight_max_bytes
        self.outstanding_bytes = 0
        self.outstanding_messages = 0
        self.troubles = Troubles(settings, metrics, name)
        self._collected = Collected()
        self._progress_at = 0.0
        self._closing = False
        self._stop = False
        self._thread_ended = False
        self._greenlet: gevent.Greenlet | None = None
        self._wake: Any = None
        self._parked = False
        #: held while the hub takes reports; the thread waits for it
        self._hubs_turn = _new_lock()
        self._called = False
        self._idle = Event()
        self._ended = Event()
        self._delivered = metrics.kafka_delivered.cell(name)
        self._wakeups = metrics.kafka_wakeups.cell(name)
        self._produce: Any = None
        self._producer: Any = None
        self._open()

    def _open(self) -> None:
        """Make librdkafka's producer."""
        settings, library = self._settings, self._library
        try:
            self._producer = library.Producer(
                {**settings.configuration(), "error_cb": self.troubles.failed},
                logger=self.troubles,
            )
        except library.KafkaException as error:
            raise KafkaUnusable(settings.without_secrets(error.args[0].str())) from None
        self._produce = self._producer.produce

    # -- life ------------------------------------------------------------------------------

    def start(self) -> None:
        """Take reports from now on."""
        loop = get_hub().loop
        self._wake = loop.async_()
        self._wake.start(self._turn)
        metrics, name = self._metrics, self._name
        metrics.kafka_inflight_bytes.cell(name).set_function(lambda: self.outstanding_bytes)
        metrics.kafka_inflight_messages.cell(name).set_function(lambda: self.outstanding_messages)
        self.troubles.since = self._progress_at = time.monotonic()
        self._greenlet = gevent.spawn(self._run)
        _start_thread(self._wait_for_reports, ())

    def close(self, timeout: float) -> bool:
        """Take nothing more, wait for the reports of what was taken, end the thread.

        Args:
            timeout: seconds to wait.

        Returns:
            whether all of it was reported in time; the rest is given up.
        """
        self._closing = True
        if self._greenlet is None:
            self._producer = self._produce = None
            return True
        self._idle.clear()
        whole = not self.outstanding_messages or self._idle.wait(timeout)
        if not whole:
            log.error("kafka.close_timed_out", producer=self._name, left=self.outstanding_messages)
        self._stop = True
        self._ended.wait(PROBE_TIMEOUT_SECONDS + 10 * POLL_SECONDS)
        self._greenlet.kill()
        self._greenlet = None
        return whole

    # -- messages --------------------------------------------------------------------------

    def judge(self, size: int) -> None:
        """Raise what stands against messages of so many bytes, `MESSAGE_BYTES` for each included.

        Those of one request are never too large by themselves: what sends them is bounded.

        Raises:
            IngestError: overloaded, sink_refused, draining.
        """
        if self._closing:
            raise IngestError("draining", "The producer is closing.")
        if self.troubles.fatal is not None:
            raise IngestError("sink_refused", "The connection to Kafka is made anew.")
        if self.outstanding_messages and not self.fits(size):
            raise IngestError("overloaded", "Too many events are waiting for Kafka.")

    def fits(self, size: int) -> bool:
        """Whether so many bytes more are within the bound."""
        return self.outstanding_bytes + size <= self._max_bytes

    def produce(
        self, topic: str, key: bytes | None, value: bytes, headers: Headers, waiter: Any
    ) -> None:
        """Take a message; returns at once. Hub only.

        Args:
            waiter: given to `on_delivered` with what became of it.

        Raises:
            IngestError: overloaded, message_too_large, sink_refused, draining: it was not taken.
        """
        self.judge(len(value) + MESSAGE_BYTES)
        self.send(topic, key, value, headers, waiter)

    def send(
        self, topic: str, key: bytes | None, value: bytes, headers: Headers, waiter: Any
    ) -> None:
        """The same for what `judge` let pass.

        Raises:
            IngestError: message_too_large, sink_refused.
        """
        size = len(value) + MESSAGE_BYTES
        now = time.monotonic()
        report = partial(self._collected.one, (waiter, size, 1, now, None))
        self._take(1, now)
        try:
            self._produce(topic, value, key, ANY, report, None, NOW, headers)
        except (BufferError, self._library.KafkaException) as error:
            self.outstanding_messages -= 1
            raise self._refusal(error, topic) from None
        self.outstanding_bytes += size

    def send_each(
        self, topic: str, messages: Iterable[Message], waiters: Sequence[Any]
    ) -> list[tuple[Any, IngestError]]:
        """Take as many messages as waiters that `judge` let pass together. Hub only.

        Args:
            messages: key, value and headers of each; of more than there are waiters none is made.

        Returns:
            those that were not taken, and why.
        """
        now = time.monotonic()
        produce, one = self._produce, self._collected.one
        refused: list[tuple[Any, IngestError]] = []
        sum_size = sent = 0
        self._take(len(waiters), now)
        try:
            # The waiters first: no message is made for which there is none.
            for waiter, (key, value, headers) in zip(waiters, messages, strict=False):
                size = len(value) + MESSAGE_BYTES
                report = partial(one, (waiter, size, 1, now, None))
                try:
                    produce(topic, value, key, ANY, report, None, NOW, headers)
                except (BufferError, self._library.KafkaException) as error:
                    refused.append((waiter, self._refusal(error, topic)))
                else:
                    sent += 1
                    sum_size += size
        finally:
            self.outstanding_bytes += sum_size
            self.outstanding_messages -= len(waiters) - sent
        return refused

    def send_many(self, made: Sequence[Made], waiter: Any, yield_turn: Callable[[], None]) -> None:
        """Take many messages that `judge` let pass, for one waiter. Hub only.

        Those that cannot be taken are reported together with those that are not delivered.

        Args:
            made: what they are made of; read again where one is not delivered.
            waiter: given to `on_delivered` when all are reported, with the errors by number.
            yield_turn: lets others run; called again and again.
        """
        many = Many(made, waiter, self._collected)
        report, refused = many.report, many.refused
        for start in range(0, len(made), YIELD_MESSAGES):
            if start:
                yield_turn()
            some = made[start : start + YIELD_MESSAGES]
            before, size = len(refused), MESSAGE_BYTES * len(some)
            self._take(len(some), many.started)
            produce = self._produce
            for number, (source, raw) in enumerate(some, start):
                key, value, headers = source.message(raw)
                size += len(value)
                try:
                    produce(source.topic, value, key, ANY, report, None, NOW, headers)
                except (BufferError, self._library.KafkaException) as error:
                    refused[number] = self._refusal(error, source.topic)
                    size -= len(value) + MESSAGE_BYTES
            many.size += size
            self.outstanding_bytes += size
            self.outstanding_messages -= len(refused) - before
        if many.sent():
            self._hand_on([(many, many.size, many.expected, many.started, None)])

    def _take(self, count: int, now: float) -> None:
        """Count messages before librdkafka has them: the thread may make a producer anew while
        there are none, and those in the old one would be lost without a report."""
        if not self.outstanding_messages:
            self._progress_at = now
        self.outstanding_messages += count

    def _refusal(self, error: Any, topic: str) -> IngestError:
        if isinstance(error, BufferError):
            return IngestError("overloaded", "Too many events are waiting for Kafka.")
        self._count_error(error.args[0])
        return failure_of(error.args[0], None, topic)

    # -- the thread ------------------------------------------------------------------------

    def _wait_for_reports(self) -> None:
        probe_at = 0.0
        while not self._stop:
            self._collected.room = 1
            self._poll(POLL_SECONDS)
            if self._collected.reports or self.troubles.unsaid:
                self._hubs_turn.acquire()
                self._called = True
                self._wake.send()
                while not self._hubs_turn.acquire(True, POLL_SECONDS) and not self._stop:
                    pass
                self._hubs_turn.release()
            if not self.outstanding_messages:
                if self.troubles.fatal is not None:
                    self._renew()
                if self.troubles.since is not None and time.monotonic() >= probe_at:
                    self._probe()
                    probe_at = time.monotonic() + PROBE_SECONDS
        # To end librdkafka takes a moment, and here it holds nobody up.
        self._produce = None
        self._producer = None
        self._thread_ended = True
        self._wake.send()

    def _poll(self, timeout: float) -> bool:
        """Let librdkafka tell what it has to, as much as there is room for; returns whether there
        may be more."""
        try:
            self._producer.poll(timeout)
        except Ended:
            return True
        except Exception as error:  # noqa: BLE001 - logged and counted on the hub
            self.troubles.unexpected(error)
        return False

    def _probe(self) -> None:
        """Ask the brokers whether they are there, as nothing is sent that would show it."""
        try:
            self._producer.list_topics("", timeout=PROBE_TIMEOUT_SECONDS)
        except self._library.KafkaException:
            return  # what is wrong, `error_cb` is told
        self.troubles.over()

    def _renew(self) -> None:
        """After a fatal error nothing can be sent any more: begin anew. Nothing is outstanding."""
        try:
            self._open()
        except KafkaUnusable as error:
            self.troubles.log(3, str(error))
            return
        self.troubles.log(4, f"the producer is made anew after: {self.troubles.fatal}")
        self.troubles.fatal = None

    # -- on the hub ------------------------------------------------------------------------

    def _turn(self) -> None:
        if self._thread_ended:
            self._wake.stop()
            self._ended.set()
        if self._parked and self._greenlet is not None:
            self._parked = False
            self._greenlet.switch()

    def _run(self) -> None:
        hub = get_hub()
        while True:
            if not self._called:
                self._parked = True
                hub.switch()
                continue
            self._called = False
            self._wakeups.value += 1
            self._take_reports()
            if self._hubs_turn.locked():  # unless the thread has ended meanwhile
                self._hubs_turn.release()
            self.troubles.say()
            if not self.outstanding_messages:
                self._idle.set()

    def _take_reports(self) -> None:
        """All that there are, while the thread waits."""
        more = True
        while more:
            self._collected.room = TURN_REPORTS
            more = self._poll(0)
            reports = self._collected.take()
            if reports:
                self._hand_on(reports)
            if more:
                gevent.sleep(0)

    def _hand_on(self, reports: list[Report]) -> None:
        now = self._progress_at = time.monotonic()
        told: Reports = []
        delivered = 0
        for waiter, size, count, _, error in reports:
            if type(waiter) is Many:
                if waiter.done:  # the thread and `send_many` saw the last report at once
                    continue
                waiter.done = True
                error = waiter.failures()
                for failed, _ in waiter.failed:
                    self._count_error(failed)
                delivered -= len(waiter.failed)
                waiter = waiter.waiter
            elif error is not None:
                self._count_error(error)
                delivered -= 1
            delivered += count
            self.outstanding_bytes -= size
            self.outstanding_messages -= count
            told.append((waiter, error))
        if delivered:
            self._delivered.value += delivered
            if self.troubles.since is not None:
                self.troubles.over()
        self._metrics.kafka_delivery_seconds.observe_ages(now, [report[3] for report in reports])
        self._tell(told)

    def _count_error(self, error: Any) -> None:
        self._metrics.kafka_errors.cell(self._name, error.name()).value += 1

    def _tell(self, reports: Reports) -> None:
        try:
            self._on_delivered(reports)
        except Exception:
            # Nobody else can tell these waiters; the next ones must still be told.
            self._metrics.unhandled_errors.cell("kafka").value += 1
            log.exception("kafka.on_delivered_failed", producer=self._name, reports=len(reports))

    # -- state -----------------------------------------------------------------------------

    @property
    def trouble(self) -> Any:
        """librdkafka's last error that was nobody's message's, while it may last."""
        return self.troubles.last

    def healthy(self) -> str | None:
        """Why events cannot be delivered, or None; for readyz."""
        limit = self._settings.unready_after_seconds
        waited = time.monotonic() - self._progress_at
        if self.outstanding_messages and waited > limit:
            return f"Kafka: nothing was delivered for {waited:.0f} s"
        why = self.troubles.why(limit)
        return None if why is None else f"Kafka: {why}"
