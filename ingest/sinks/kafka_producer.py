"""Messages to Kafka, and what became of each: librdkafka beside an event loop.

    greenlets  produce ─▶ librdkafka ─▶ brokers            on_delivered ─▶ answers
                              │                                 ▲
    native thread           poll: reports ─▶ list ─▶ async wake-up, one for many

librdkafka never cooperates with the event loop, but `produce` only puts a message into its queue.
Its reports are called for by a native thread, which puts them into a list and wakes the hub once
for all that have come. The hub hands them on in portions, so that no turn of the loop is long.

Bounds: what waits for its report is at most `inflight_max_bytes` (or one message, if that is
larger); beyond it `produce` refuses. A message is given up after `delivery_timeout_seconds`.

This module must not know HTTP, events or what a waiter is.

Source: librdkafka's INTRODUCTION.md (idempotent producer, fatal errors).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import gevent
from gevent.event import Event
from gevent.hub import get_hub
from gevent.monkey import get_original

from ingest.errors import IngestError
from ingest.logs import get_logger
from ingest.metrics import Metrics
from ingest.sinks.kafka_errors import failure_of, is_unauthorized
from ingest.sinks.kafka_settings import KafkaSettings, KafkaUnusable, library_or_refuse

log = get_logger(__name__)

Headers = list[tuple[str, bytes]]
#: What a message takes in librdkafka's memory beside its key and value.
MESSAGE_BYTES = 512
#: Reports that the hub hands on before others get a turn: about two milliseconds.
PORTION = 512
#: The thread looks whether it is to end so often.
POLL_SECONDS = 0.1
#: Reports that one wake-up brings at most while more come.
WAKE_REPORTS = 256
#: How often brokers are asked whether they are there while nothing else shows it.
PROBE_SECONDS = 1.0
#: How long such a question may take; what is delivered meanwhile waits for it.
PROBE_TIMEOUT_SECONDS = 1.0
#: The same words of librdkafka are logged so often.
SAY_SECONDS = 10.0

# The thread is a native one and must wait like one.
_start_thread = get_original("_thread", "start_new_thread")

Reports = list[tuple[Any, Any]]


class Report(NamedTuple):
    """What became of a message: `error` is None where it was delivered."""

    waiter: Any
    size: int
    started: float
    error: Any


class _Said(NamedTuple):
    """A line of librdkafka's log, or an error that is nobody's message's."""

    level: int
    code: str
    text: str


class _Ended(Exception):
    """Ends a call of `poll` after many reports, so that the hub learns of them."""


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
        self._reports: list[Report] = []
        self._said: deque[_Said] = deque(maxlen=1000)
        self._told = False  # the hub knows that there are reports
        self._closing = False
        self._stop = False
        #: why nothing is taken: the producer has failed as a whole and is made anew
        self._fatal: str | None = None
        #: the last trouble with brokers, and since when nothing has shown that it is over
        self.trouble: Any = None
        self._trouble_text = "no broker has answered yet"
        self._trouble_since: float | None = time.monotonic()
        self._progress_at = 0.0
        self._said_at: dict[str, float] = {}
        self._greenlet: gevent.Greenlet | None = None
        self._wake: Any = None
        self._parked = False
        self._idle = Event()
        self._ended = Event()
        self._thread_ended = False
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
                {**settings.configuration(), "error_cb": self._failed}, logger=self
            )
        except library.KafkaException as error:
            raise KafkaUnusable(settings.without_secrets(error.args[0].str())) from None
        self._produce = self._producer.produce

    # -- life ------------------------------------------------------------------------------

    def start(self) -> None:
        """Call for reports from now on."""
        self._loop = get_hub().loop
        self._wake = self._loop.async_()
        self._wake.start(self._turn)
        self._metrics.kafka_inflight_bytes.cell(self._name).set_function(
            lambda: self.outstanding_bytes
        )
        self._metrics.kafka_inflight_messages.cell(self._name).set_function(
            lambda: self.outstanding_messages
        )
        self._trouble_since = self._progress_at = time.monotonic()
        self._greenlet = gevent.spawn(self._run)
        _start_thread(self._poll, ())

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
        if key is not None:
            size += len(key)
        report = partial(self._report, waiter, size, time.monotonic())
        try:
            self._produce(topic, value, key, on_delivery=report, headers=headers)
        except BufferError:
            raise IngestError("overloaded", "Too many events are waiting for Kafka.") from None
        except self._library.KafkaException as error:
            fault = error.args[0]
            self._metrics.kafka_errors.cell(self._name, fault.name()).value += 1
            raise failure_of(fault, topic, None) from None
        if not self.outstanding_messages:
            self._progress_at = time.monotonic()
        self.outstanding_bytes += size
        self.outstanding_messages += 1

    def judge(self, size: int) -> None:
        """Raise what stands against messages of so many bytes, `MESSAGE_BYTES` for each included.

        Those of one request are never too large by themselves: what sends them is bounded.

        Raises:
            IngestError: overloaded, sink_refused, draining.
        """
        if self._closing:
            raise IngestError("draining", "The producer is closing.")
        if self._fatal is not None:
            raise IngestError("sink_refused", "The connection to Kafka is made anew.")
        if self.outstanding_bytes + size > self._max_bytes and self.outstanding_messages:
            raise IngestError("overloaded", "Too many events are waiting for Kafka.")

    # -- called by the thread, from within poll --------------------------------------------

    def _report(self, waiter: Any, size: int, started: float, error: Any, message: Any) -> None:
        reports = self._reports
        reports.append(Report(waiter, size, started, error))
        if len(reports) >= WAKE_REPORTS and not self._told:
            raise _Ended

    def _failed(self, error: Any) -> None:
        """Something is wrong that is not one message's."""
        self._said.append(_Said(3, error.name(), error.str()))
        if error.fatal():
            self._fatal = error.str()
        if self.trouble is None or not is_unauthorized(self.trouble):  # what follows says less
            self.trouble = error
            self._trouble_text = error.str()
        if self._trouble_since is None:
            self._trouble_since = time.monotonic()

    def log(self, level: int, text: str, *args: Any, **_: Any) -> None:
        """Take a line of librdkafka's log; it takes this object for a logger."""
        self._said.append(_Said(level, "", text % args if args else text))

    # -- the thread ------------------------------------------------------------------------

    def _poll(self) -> None:
        probe_at = 0.0
        while not self._stop:
            try:
                self._producer.poll(POLL_SECONDS)
            except _Ended:
                pass
            except Exception as error:  # noqa: BLE001 - told to the hub, which logs and counts it
                self._said.append(_Said(2, "unexpected", repr(error)))
            if (self._reports or self._said) and not self._told:
                self._told = True
                self._wake.send()
            if not self.outstanding_messages:
                if self._fatal is not None:
                    self._renew()
                if self._trouble_since is not None and time.monotonic() >= probe_at:
                    self._probe()
                    probe_at = time.monotonic() + PROBE_SECONDS
        # To end librdkafka takes a moment, and here it holds nobody up.
        self._produce = None
        self._producer = None
        self._thread_ended = True
        self._wake.send()

    def _probe(self) -> None:
        """Ask the brokers whether they are there, as nothing is sent that would show it."""
        try:
            self._producer.list_topics("", timeout=PROBE_TIMEOUT_SECONDS)
        except self._library.KafkaException:
            return  # what is wrong, `_failed` has been told
        self._recovered()

    def _recovered(self) -> None:
        self.trouble = None
        self._trouble_since = None

    def _renew(self) -> None:
        """After a fatal error nothing can be sent any more: begin anew. Nothing is outstanding."""
        try:
            self._open()
        except KafkaUnusable as error:
            self._said.append(_Said(3, "", str(error)))
            return
        self._said.append(_Said(4, "", f"the producer is made anew after: {self._fatal}"))
        self._fatal = None

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
            self._parked = True
            hub.switch()
            while self._told:
                self._told = False
                # The thread may append meanwhile, so the list stays the same one.
                count = len(self._reports)
                reports = self._reports[:count]
                del self._reports[:count]
                self._wakeups.value += 1
                while self._said:
                    self._say(self._said.popleft())
                for start in range(0, len(reports), PORTION):
                    if start:
                        gevent.sleep(0)
                    self._hand_on(reports[start : start + PORTION])
                if not self.outstanding_messages:
                    self._idle.set()

    def _hand_on(self, reports: list[Report]) -> None:
        now = self._progress_at = time.monotonic()
        self.outstanding_bytes -= sum([report[1] for report in reports])
        self.outstanding_messages -= len(reports)
        failed = 0
        for report in reports:
            if report[3] is not None:
                failed += 1
                self._metrics.kafka_errors.cell(self._name, report[3].name()).value += 1
        if failed < len(reports):
            self._delivered.value += len(reports) - failed
            if self._trouble_since is not None:
                self._recovered()
        self._metrics.kafka_delivery_seconds.observe_ages(now, [report[2] for report in reports])
        try:
            self._on_delivered([(report[0], report[3]) for report in reports])
        except Exception:
            # Nobody else can tell these waiters; the next ones must still be told.
            self._metrics.unhandled_errors.cell("kafka").value += 1
            log.exception("kafka.on_delivered_failed", producer=self._name, reports=len(reports))

    def _say(self, said: _Said) -> None:
        """Log what librdkafka says, not the same every second."""
        if said.code == "unexpected":
            self._metrics.unhandled_errors.cell("kafka").value += 1
        elif said.code:
            self._metrics.kafka_troubles.cell(said.code).value += 1
        text = self._settings.without_secrets(said.text)
        now = time.monotonic()
        known = said.code or text
        if now - self._said_at.get(known, -SAY_SECONDS) < SAY_SECONDS:
            return
        if len(self._said_at) > 1000:
            self._said_at.clear()
        self._said_at[known] = now
        say = log.error if said.level <= 2 else log.warning if said.level <= 4 else log.info
        say("kafka.trouble", producer=self._name, code=said.code or None, reason=text)

    # -- state -----------------------------------------------------------------------------

    def healthy(self) -> str | None:
        """Why events cannot be delivered, or None; for readyz."""
        if self._fatal is not None:
            return f"Kafka: {self._settings.without_secrets(self._fatal)}"
        now, limit = time.monotonic(), self._settings.unready_after_seconds
        if self.outstanding_messages and now - self._progress_at > limit:
            return f"Kafka: nothing was delivered for {now - self._progress_at:.0f} s"
        since = self._trouble_since
        if since is not None and now - since > limit:
            return f"Kafka: {self._settings.without_secrets(self._trouble_text)}"
        return None
